from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    name = "backend.catalogue"
    label = "catalogue"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.catalogue import models, signals  # noqa: F401  connects the file clean-up
        from backend.catalogue.imports import IMPORT_KIND, run_import_job
        from backend.jobs.services import JobKind, register_job

        # Without what a row's history needs not repeat: its times, and the rows that point at it.
        auditlog.register(models.Product, exclude_fields=["created_at", "updated_at", "reference_images"])
        auditlog.register(
            models.ProductSet, exclude_fields=["created_at", "updated_at", "devices"], m2m_fields={"products"}
        )
        auditlog.register(models.ReferenceImage, include_fields=["product", "box", "box_source"])
        register_job(IMPORT_KIND, JobKind(run_import_job, can_retry=lambda job: bool(job.file)))
