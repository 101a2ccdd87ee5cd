"""Template filters of the audit log."""

from django import template

from backend.common.audit import done_by

register = template.Library()
register.filter(done_by)
