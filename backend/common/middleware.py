"""An engine that does not answer is a 503 on every page, also where DRF's handler is not reached."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from backend.common.problems import engine_of, problem_of, problem_page


class EngineFailureMiddleware:
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
