"""`Authorization: Bearer <device key>`."""

from typing import cast

from django.contrib.auth.models import AnonymousUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from backend.access.models import Device
from backend.access.services import find_device


class DeviceKeyAuthentication(BaseAuthentication):
    """Puts the device into `request.auth`. There is no user behind a device."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Device] | None:
        words = get_authorization_header(request).split()
        if not words:
            return None
        if len(words) != 2 or words[0].lower() != b"bearer":
            raise AuthenticationFailed("send the device's key as 'Authorization: Bearer <key>'")
        device = find_device(words[1].decode("latin-1"))
        if device is None:
            raise AuthenticationFailed("this key is not known, or its device is switched off")
        return AnonymousUser(), device

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def get_device(request: Request) -> Device:
    """The device behind a request that was let through."""
    return cast(Device, request.auth)


class DeviceKeyScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document names the key."""

    target_class = DeviceKeyAuthentication
    name = "deviceKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A device's key, from `manage.py create_device`.",
        }
