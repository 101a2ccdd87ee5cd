"""The Celery application: `celery -A backend.celery worker -Q recognition` (and `bulk`), `... beat`."""

from typing import Any

from backend.bootstrap import prepare_environment

prepare_environment()

from celery import Celery, signals  # noqa: E402  the environment comes first
from django.conf import settings  # noqa: E402

app = Celery("checklane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Celery would replace the root logger's handlers; ours are structured and stay."""
    import logging.config

    logging.config.dictConfig(settings.LOGGING)
