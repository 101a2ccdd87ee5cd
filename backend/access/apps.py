from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccessConfig(AppConfig):
    name = "backend.access"
    label = "access"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.access.models import Device

        auditlog.register(Device, exclude_fields=["key_sha256", "last_seen_at", "updated_at"])
        post_migrate.connect(_create_roles, sender=self)


def _create_roles(**_: Any) -> None:
    """Permissions exist only after migrations, so the roles are brought up to date after each of them."""
    from backend.access.roles import create_roles

    create_roles()
