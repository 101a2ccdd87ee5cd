from django.apps import AppConfig


class CheckoutConfig(AppConfig):
    name = "backend.checkout"
    label = "checkout"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.checkout import models, worker  # noqa: F401  connects the worker's start and heartbeat

        auditlog.register(models.Correction)
