"""What the admin pages of several apps share: read-only pages, private files, the history out of the audit log."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from auditlog.mixins import AuditlogHistoryAdminMixin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.db.models.fields.files import FieldFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin


class AuditedAdmin(AuditlogHistoryAdminMixin, ModelAdmin):
    """The history page tells what the audit log holds: changes by people, devices and imports alike."""

    auditlog_history_template = "common/history.html"
    auditlog_history_per_page = 20

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if self.get_object(request, object_id) is None:
            raise Http404
        response: HttpResponse = self.auditlog_history_view(request, object_id, extra_context)
        return response


class ReadOnlyAdmin(AuditedAdmin):
    """Rows that commands and workers write, and people only read.

    `empty_note`, on any admin: what an empty list says is to be done first (unfold/helpers/empty_results.html).
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def check_permission(request: HttpRequest, permission: str) -> None:
    """Let nobody go on who lacks `permission`, e.g. "catalogue.view_product".

    Raises:
        PermissionDenied: naming it.
    """
    if not request.user.has_perm(permission):
        raise PermissionDenied(f"your account lacks the permission {permission}")


def private_file(file: FieldFile, content_type: str, *, kept: timedelta) -> FileResponse:
    """A stored picture for the one who is logged in; no cache on the way may keep it.

    Args:
        kept: how long the browser may show it without asking again.
    Raises:
        Http404: the file is gone.
    """
    try:
        response = FileResponse(file.open("rb"), content_type=content_type)
    except (FileNotFoundError, ValueError) as error:
        raise Http404("the picture is gone") from error
    response["Cache-Control"] = f"private, max-age={int(kept.total_seconds())}"
    return response


def facts(values: Mapping[str, Any]) -> SafeString | str:
    """What a row holds as JSON, as names and values; what lies deeper, on one line.

    By name, for PostgreSQL keeps no order of them.
    """
    if not values:
        return "-"
    listed = format_html_join(
        "",
        "<div><dt>{}</dt><dd>{}</dd></div>",
        (
            (name.replace("_", " ").capitalize(), _on_one_line(value))
            for name, value in sorted(values.items())
        ),
    )
    return format_html('<dl class="ck-facts">{}</dl>', listed)


def _on_one_line(value: Any) -> str:
    if value in (None, "", [], {}):
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case dict():
            return ", ".join(
                f"{name.replace('_', ' ')} {_on_one_line(inner)}" for name, inner in value.items()
            )
        case list():
            return ", ".join(_on_one_line(inner) for inner in value)
    return str(value)


def label(text: str, kind: str = "") -> SafeString:
    """A word on a coloured ground; the word says all, the colour only helps.

    Args:
        kind: "success" | "warning" | "danger" | "info" | "".
    """
    return format_html('<span class="ck-label {}">{}</span>', f"ck-{kind}" if kind else "", text)
