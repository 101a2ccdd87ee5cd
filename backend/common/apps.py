from django.apps import AppConfig


class CommonConfig(AppConfig):
    name = "backend.common"
    label = "common"

    def ready(self) -> None:
        from auditlog.models import LogEntry
        from django.db.models.signals import pre_save

        from backend import celery  # noqa: F401  makes it the application of all shared tasks
        from backend.common.audit import note_actor

        pre_save.connect(note_actor, sender=LogEntry)
