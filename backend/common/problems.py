"""Errors as RFC 9457 problem+json: one exception for what a service refuses, one handler that writes it.

What the caller can cause is a 4xx; what the system lacks is a 503 with Retry-After; nothing is a 500 on purpose.
"""

import errno
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import redis
import structlog
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.urls import reverse
from kombu.exceptions import OperationalError as BrokerError
from rest_framework import exceptions
from rest_framework.response import Response

from recognition.errors import GalleryMismatch, GalleryUnavailable, ImageRefused, ModelRefused

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
FULL_RETRY_AFTER_SECONDS = 60
# What a folder says that takes no more: the disk is full, or somebody's share of it.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger(__name__)

BROKER = "the broker"
# What engines raise when they do not answer, and the name that the caller reads.
ENGINE_FAILURES: Mapping[type[Exception], str] = {
    OperationalError: "PostgreSQL",
    InterfaceError: "PostgreSQL",
    redis.RedisError: BROKER,
    BrokerError: BROKER,
    GalleryUnavailable: "Milvus",
}


class Problem(Exception):
    """A refusal that travels to the caller as problem+json.

    Args:
        status: HTTP status, 4xx or 503.
        code: stable word for programs, e.g. "duplicate-picture".
        detail: sentence for people: the value found, the value wanted, what to do.
        errors: further members, e.g. one message a field.
        retry_after: seconds, sent as Retry-After.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, errors: Any = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.errors, self.retry_after = (
            status,
            code,
            detail,
            errors,
            retry_after,
        )

    def body(self) -> dict[str, Any]:
        """The problem's members; `errors` only where there are any."""
        body: dict[str, Any] = {
            "type": f"urn:checklane:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return body

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def not_found(thing: str, key: object) -> Problem:
    """404 for one thing that is not there, or is not this device's to see."""
    return Problem(HTTPStatus.NOT_FOUND, "not-found", f"there is no {thing} {key!r} that this key may see")


def engine_unavailable(engine: str) -> Problem:
    """503: an engine does not answer; the same request may be sent again."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "engine-unavailable",
        f"{engine} does not answer; nothing was lost, send the request again",
        retry_after=RETRY_AFTER_SECONDS,
    )


def engine_of(error: BaseException) -> str | None:
    """The name of the engine whose failure this is, or None when it is no engine's."""
    return next((name for kind, name in ENGINE_FAILURES.items() if isinstance(error, kind)), None)


def problem_of(error: Exception) -> Problem | None:
    """The problem that an exception is to the caller; None for a mistake of ours."""
    match error:
        case Problem():
            return error
        case ImageRefused():
            status = HTTPStatus.BAD_REQUEST
            if error.code in {"too-many-bytes", "too-many-pixels", "too-much-metadata"}:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            elif error.code == "unsupported-format":
                status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            return Problem(status, f"image-{error.code}", error.detail)
        case GalleryMismatch() | ModelRefused():
            log.error("not ready to recognise", reason=str(error))
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not-ready",
                "the gallery and the installed model do not fit; the operator's log says what to do",
                retry_after=60,
            )
        case ValidationError():
            errors = (
                error.message_dict if hasattr(error, "error_dict") else {"non_field_errors": error.messages}
            )
            return Problem(HTTPStatus.BAD_REQUEST, "invalid", _first_message(errors), errors=errors)
        case OSError() if error.errno in NO_ROOM:
            log.error("no room left", reason=str(error))
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "storage-full",
                "there is no room left where files are kept, and nothing was stored; make room, then try again",
                retry_after=FULL_RETRY_AFTER_SECONDS,
            )
        case Http404():
            return Problem(HTTPStatus.NOT_FOUND, "not-found", str(error) or "there is nothing here")
        case PermissionDenied():
            return Problem(HTTPStatus.FORBIDDEN, "forbidden", str(error) or "this is not allowed")
        case exceptions.ValidationError():
            return Problem(
                HTTPStatus.BAD_REQUEST, "invalid", _first_message(error.detail), errors=error.detail
            )
        case RecursionError():
            return Problem(HTTPStatus.BAD_REQUEST, "invalid", "the body is nested too deeply")
        case exceptions.APIException():
            wait = getattr(error, "wait", None)
            return Problem(
                error.status_code,
                str(error.default_code).replace("_", "-"),
                str(error.detail),
                retry_after=None if wait is None else int(wait) + 1,
            )
    engine = engine_of(error)
    if engine is not None:
        log.warning("engine does not answer", engine=engine, reason=str(error))
        return engine_unavailable(engine)
    return None


def _first_message(errors: Any) -> str:
    """The first of nested messages, with the path of the field it belongs to."""
    if isinstance(errors, Mapping):
        field, inner = next(iter(errors.items()))
        return _first_message(inner) if field == "non_field_errors" else f"{field}: {_first_message(inner)}"
    if isinstance(errors, list | tuple):
        return _first_message(next((inner for inner in errors if inner), "invalid"))
    return str(errors)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook: every error of the API leaves through here."""
    problem = problem_of(error)
    if problem is None:
        return None
    headers = problem.headers()
    ask_for_key = getattr(error, "auth_header", None)
    if ask_for_key is not None:
        headers["WWW-Authenticate"] = ask_for_key
    return Response(problem.body(), status=problem.status, headers=headers, content_type=CONTENT_TYPE)


def problem_response(problem: Problem) -> JsonResponse:
    """The same for views that are not DRF's."""
    return JsonResponse(
        problem.body(), status=problem.status, headers=problem.headers(), content_type=CONTENT_TYPE
    )


def problem_page(request: HttpRequest, problem: Problem) -> HttpResponse:
    """To a person in the admin a page, that needs no engine; to a program problem+json."""
    if not request.path.startswith(reverse("admin:index")) or not request.accepts("text/html"):
        return problem_response(problem)
    page = render_to_string("common/problem.html", {"problem": problem})
    return HttpResponse(page, status=problem.status, headers=problem.headers())


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400: what Django itself refuses, such as a form of too many files."""
    return problem_page(request, Problem(HTTPStatus.BAD_REQUEST, "invalid", str(exception)))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403."""
    detail = str(exception) or "your account may not do this"
    return problem_page(request, Problem(HTTPStatus.FORBIDDEN, "forbidden", detail))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404: an address that no view has, or a row that is not there."""
    detail = f"there is nothing at {request.path}"
    return problem_page(request, Problem(HTTPStatus.NOT_FOUND, "not-found", detail))


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500: an engine that failed outside of a view, else a mistake of ours; the log has it under the same
    request id."""
    error = sys.exception()
    problem = problem_of(error) if isinstance(error, Exception) else None
    return problem_page(
        request,
        problem
        or Problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal",
            "this is a mistake of the service; the log says where",
        ),
    )
