"""Who asks: the device behind a request, as the apps below `access` see it."""

from http import HTTPStatus
from typing import Protocol, cast

from rest_framework.request import Request

from backend.common.problems import Problem


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


def refuse_bound_device(request: Request) -> None:
    """For what looks beyond a device's own product set, or changes it.

    Raises:
        Problem: 403, the device is bound to one.
    """
    if get_caller(request).product_set_id is not None:
        raise Problem(
            HTTPStatus.FORBIDDEN, "bound-device", "this key is bound to one product set and cannot do this"
        )


def get_caller(request: Request) -> Caller:
    """The device, put there by `backend.access.authentication`; permissions have been asked before."""
    return cast(Caller, request.auth)
