from django.apps import AppConfig


class CheckoutConfig(AppConfig):
    name = "backend.checkout"
    label = "checkout"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.checkout import checks, models, worker  # noqa: F401  checks register, the worker beats

        auditlog.register(models.Correction)
