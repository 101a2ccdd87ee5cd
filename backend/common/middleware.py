"""What holds for every address, also where DRF's handler is not reached."""

from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from backend.common.audit import acting
from backend.common.problems import Problem, engine_of, problem_of, problem_page


class EngineFailureMiddleware:
    """An engine that does not answer is a 503 on every page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if engine_of(exception) is None:
            return None
        problem = problem_of(exception)
        assert problem is not None
        return problem_page(request, problem)


class OddRequestMiddleware:
    """Refuses what Django would take for something else, or hand on to PostgreSQL, which would not take it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            # It would be taken for an empty body.
            return problem_page(
                request,
                Problem(
                    HTTPStatus.LENGTH_REQUIRED,
                    "length-required",
                    "the body comes in chunks, without a Content-Length; send its length",
                ),
            )
        if "\0" in request.path:
            problem = Problem(
                HTTPStatus.NOT_FOUND, "not-found", "there is nothing whose name has a NUL in it"
            )
            return problem_page(request, problem)
        return self.get_response(request)


class ActingDeviceMiddleware:
    """What changes during a request with a device's key is noted as that device's doing."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        def device() -> str:
            # Known only once DRF has looked at the key.
            caller = getattr(request, "auth", None)
            return "" if caller is None else f"device {caller.name}"

        with acting(device):
            return self.get_response(request)
