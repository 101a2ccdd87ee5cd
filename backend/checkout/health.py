"""/healthz: this process lives. /readyz: a photo sent now would be answered. /metrics: for Prometheus."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django_prometheus.exports import ExportToDjangoView

from backend.checkout.metrics import refresh_gauges
from backend.checkout.recogniser import get_serving
from backend.checkout.worker import count_recognition_workers
from backend.common.broker import broker_client
from backend.common.problems import Problem, engine_of, problem_of
from backend.gallery.loading import get_gallery
from backend.gallery.thresholds import search_settings
from recognition import gallery

OK = "ok"

log = structlog.get_logger(__name__)


def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": OK})


def readyz(request: HttpRequest) -> JsonResponse:
    """Each thing that a recognition needs, and what is wrong with it; 503 when anything is."""
    checks: dict[str, str] = {}
    for name, (check, needed) in CHECKS.items():
        # What needs an engine that does not answer is not tried: each try waits for it.
        lacking = [other for other in needed if checks[other] != OK]
        checks[name] = f"unknown without {lacking[0]}" if lacking else _state_of(check)
    ready = all(state == OK for state in checks.values())
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JsonResponse({"status": OK if ready else "not ready", "checks": checks}, status=status)


def _state_of(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # a probe reports, whatever went wrong
        # A public page: the kind of fault, not addresses or credentials.
        if engine_of(error) is not None:
            return "does not answer"
        problem = problem_of(error)
        if problem is None:
            log.exception("a check of /readyz fails")
        return "fails; the operator's log says why" if problem is None else problem.detail
    return OK


def _check_postgresql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_broker() -> None:
    broker_client().ping()


def _check_milvus() -> None:
    gallery.ping(settings.MILVUS_URI, settings.MILVUS_TOKEN, settings.MILVUS_TIMEOUT_SECONDS)


def _check_generation() -> None:
    get_serving()


def _check_gallery() -> None:
    """Milvus answers before it can search: after a restart it reads its log, for seconds to a minute."""
    serving = get_serving()
    get_gallery(serving.generation).probe(search_settings(serving.strategy))


def _check_workers() -> None:
    if count_recognition_workers() == 0:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "no-worker-free", "no worker of the queue 'recognition' is up"
        )


# Each check, and those before it without which it is not tried.
CHECKS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "postgresql": (_check_postgresql, ()),
    "broker": (_check_broker, ()),
    "milvus": (_check_milvus, ()),
    "generation": (_check_generation, ("postgresql",)),
    "gallery": (_check_gallery, ("milvus", "generation")),
    "recognition_worker": (_check_workers, ("broker",)),
}


def metrics(request: HttpRequest) -> HttpResponse:
    refresh_gauges()
    response: HttpResponse = ExportToDjangoView(request)
    return response
