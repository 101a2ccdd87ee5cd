"""The Celery application, loaded with the apps so that every process sends its tasks to our broker."""

import logging.config
from typing import Any

from celery import Celery, signals
from django.conf import settings
from django.db import close_old_connections
from django_structlog.celery.steps import DjangoStructLogInitStep

app = Celery("checklane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(DjangoStructLogInitStep)  # the request id of the web goes on in the worker's logs


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Celery would replace the root logger's handlers; ours are structured and stay."""
    logging.config.dictConfig(settings.LOGGING)


@signals.task_prerun.connect
def _close_broken_connections(**_: Any) -> None:
    """As Django does before each request."""
    close_old_connections()
