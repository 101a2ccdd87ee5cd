from django.apps import AppConfig


class CheckoutConfig(AppConfig):
    name = "backend.checkout"
    label = "checkout"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.checkout import checks, crops, models, worker  # noqa: F401  checks register, the worker beats
        from backend.checkout.review import ACCEPT_KIND, run_accept_job
        from backend.jobs.services import JobKind, register_job

        auditlog.register(models.Correction, exclude_fields=["updated_at", "crop", "crop_box", "last_check"])
        register_job(ACCEPT_KIND, JobKind(run_accept_job))
