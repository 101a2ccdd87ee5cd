"""The admin's two roles, as Django groups: manager (catalogue, corrections) and operator (all)."""

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

MANAGER_APPS = ("catalogue",)
MANAGER_PERMISSIONS = (
    "view_recognition",
    "view_recogniseditem",
    "view_correction",
    "add_correction",
    "recognise_photo",
    "view_job",
    "view_generation",
    "view_evaluationrun",
)


def create_roles() -> None:
    """Create both groups and set their permissions; run after each migration, changes nothing the second time."""
    manager, _ = Group.objects.get_or_create(name="manager")
    operator, _ = Group.objects.get_or_create(name="operator")
    ours = Permission.objects.filter(
        content_type__app_label__in=[
            "access",
            "jobs",
            "catalogue",
            "gallery",
            "checkout",
            "evaluation",
            "auditlog",
        ]
    )
    operator.permissions.set(ours | Permission.objects.filter(content_type__app_label="auth"))
    manager.permissions.set(
        ours.filter(Q(content_type__app_label__in=MANAGER_APPS) | Q(codename__in=MANAGER_PERMISSIONS))
    )
