"""gunicorn's settings. Threads wait for workers' answers, so they are many; they do no heavy work."""

import os
import tempfile

bind = os.environ.get("WEB_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_PROCESSES", "1"))
worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS", "64"))
timeout = 60
graceful_timeout = 20
keepalive = 30
control_socket_disable = True  # signals do, and several web processes would share the one in the home folder
accesslog = None  # django-structlog logs each request with its id

if workers > 1:
    # Several processes share their counts in a folder; prometheus_client reads the variable when it is imported.
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="checklane-metrics-"))


def child_exit(server, worker):  # type: ignore[no-untyped-def]
    """Forget a dead process's gauges when several processes share one metrics folder."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)
