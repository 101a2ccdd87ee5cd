"""A view names the scope it wants in `scope`; a device without it gets a 403."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:  # DRF's views load this module
    from rest_framework.views import APIView

from backend.access.models import Device


class HasScope(BasePermission):
    def has_permission(self, request: Request, view: "APIView") -> bool:
        device = request.auth
        if not isinstance(device, Device):
            return False  # DRF answers 401, for the authenticator has a header to ask with
        wanted = view.scope  # type: ignore[attr-defined]
        self.message = f"this key lacks the scope {wanted!r}; it has {', '.join(device.scopes) or 'none'}"
        return wanted in device.scopes
