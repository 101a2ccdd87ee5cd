"""The worker and beat processes: `celery -A backend.worker worker -Q recognition` (or `bulk`), `... beat`."""

from backend.bootstrap import prepare_environment

prepare_environment()

import django  # noqa: E402  the environment comes first

django.setup()

from backend.celery import app  # noqa: E402

__all__ = ["app"]
