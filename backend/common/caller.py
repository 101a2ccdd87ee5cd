"""Who asks: the device behind a request, as the apps below `access` see it."""

from typing import Protocol, cast

from rest_framework.request import Request


class Caller(Protocol):
    """What a view may know of the device whose key came with the request."""

    @property
    def pk(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def scopes(self) -> list[str]: ...
    @property
    def product_set_id(self) -> int | None: ...


def get_caller(request: Request) -> Caller:
    """The device, put there by `backend.access.authentication`; permissions have been asked before."""
    return cast(Caller, request.auth)
