"""The admin's two roles, as Django groups: manager (catalogue, corrections) and operator (all)."""

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db.models import Q

MANAGER_APPS = ("catalogue",)
MANAGER_PERMISSIONS = (
    "view_recognition",
    "view_recogniseditem",
    "view_correction",
    "add_correction",
    "review_correction",
    "recognise_photo",
    "view_job",
    "view_generation",
    "view_shadoweditem",
    "view_evaluationrun",
)


OPERATOR_APPS = (
    "access",
    "jobs",
    "catalogue",
    "gallery",
    "checkout",
    "evaluation",
    "auditlog",
    "auth",
)


def create_roles() -> None:
    """Create both groups and set their permissions; run after each migration, changes nothing the second time."""
    for label in OPERATOR_APPS:
        # Django makes an app's permissions when its turn after a migration comes, which may be after ours.
        create_permissions(apps.get_app_config(label), verbosity=0)
    manager, _ = Group.objects.get_or_create(name="manager")
    operator, _ = Group.objects.get_or_create(name="operator")
    ours = Permission.objects.filter(content_type__app_label__in=OPERATOR_APPS)
    operator.permissions.set(ours)
    manager.permissions.set(
        ours.filter(Q(content_type__app_label__in=MANAGER_APPS) | Q(codename__in=MANAGER_PERMISSIONS))
    )
