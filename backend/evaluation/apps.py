from django.apps import AppConfig


class EvaluationConfig(AppConfig):
    name = "backend.evaluation"
    label = "evaluation"

    def ready(self) -> None:
        from backend.evaluation.switching import COMPARE_KIND, comparing
        from backend.jobs.services import register_job

        register_job(COMPARE_KIND, comparing)
