"""/healthz: this process lives. /readyz: a photo sent now would be answered. /metrics: for Prometheus."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django_prometheus.exports import ExportToDjangoView

from backend.checkout.metrics import refresh_gauges
from backend.checkout.recogniser import get_serving
from backend.checkout.worker import count_recognition_workers
from backend.common.broker import broker_client
from backend.common.problems import engine_of
from recognition import gallery


def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """Each thing that a recognition needs, and what is wrong with it; 503 when anything is."""
    checks = {name: _state_of(check) for name, check in CHECKS.items()}
    ready = all(state == "ok" for state in checks.values())
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JsonResponse({"status": "ok" if ready else "not ready", "checks": checks}, status=status)


def _state_of(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # a probe reports, whatever went wrong
        # A public page: the kind of fault, not addresses or credentials.
        return "does not answer" if engine_of(error) is not None else str(error)
    return "ok"


def _check_postgresql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_broker() -> None:
    broker_client().ping()


def _check_milvus() -> None:
    gallery.ping(settings.MILVUS_URI, settings.MILVUS_TOKEN, settings.MILVUS_TIMEOUT_SECONDS)


def _check_generation() -> None:
    get_serving()


def _check_workers() -> None:
    if count_recognition_workers() == 0:
        raise RuntimeError("no worker of the queue 'recognition' is up")


CHECKS: dict[str, Callable[[], Any]] = {
    "postgresql": _check_postgresql,
    "broker": _check_broker,
    "milvus": _check_milvus,
    "generation": _check_generation,
    "recognition_worker": _check_workers,
}


def metrics(request: HttpRequest) -> HttpResponse:
    refresh_gauges()
    response: HttpResponse = ExportToDjangoView(request)
    return response
