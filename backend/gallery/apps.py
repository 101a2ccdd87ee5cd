from django.apps import AppConfig


class GalleryConfig(AppConfig):
    name = "backend.gallery"
    label = "gallery"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from backend.gallery import models, signals  # noqa: F401  connects the catalogue's changes to the ledger
        from backend.gallery.reembedding import REEMBED_KIND, reembedding
        from backend.jobs.services import register_job

        auditlog.register(models.InstalledModel, exclude_fields=["updated_at", "generations"])
        auditlog.register(
            models.Generation,
            exclude_fields=["updated_at", "embeddings", "threshold_sets", "evaluation_runs", "shadows"],
        )
        auditlog.register(
            models.Shadow, exclude_fields=["updated_at", "n_dropped", "n_failed", "last_failure"]
        )
        auditlog.register(models.ThresholdSet, exclude_fields=["updated_at"])
        register_job(REEMBED_KIND, reembedding)
