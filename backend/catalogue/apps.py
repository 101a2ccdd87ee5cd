from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    name = "backend.catalogue"
    label = "catalogue"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.catalogue import models, signals  # noqa: F401  connects the file clean-up
        from backend.catalogue.imports import IMPORT_KIND, run_import_job
        from backend.jobs.services import register_job

        auditlog.register(models.Product, exclude_fields=["updated_at"])
        auditlog.register(models.ProductSet, exclude_fields=["updated_at"], m2m_fields={"products"})
        register_job(IMPORT_KIND, run_import_job)
