"""The workers' application (backend/worker.py) on a broker that takes each message for lost after half a second, and
then sends it again: `celery -A tests.backend.impatient_worker worker`."""

from backend.worker import app

VISIBILITY_SECONDS = 0.5

app.conf.broker_transport_options = app.conf.broker_transport_options | {
    "visibility_timeout": VISIBILITY_SECONDS,
    "unacked_restore_interval": 0.1,  # between two looks at what is overdue; 10 otherwise
    "unacked_restore_throttle": 1,  # each look looks
}

__all__ = ["app"]
