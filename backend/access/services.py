"""Making keys and finding who holds one."""

import hashlib
import hmac
import secrets
from datetime import timedelta

from django.utils import timezone

from backend.access.models import Device, Scope

KEY_MARK = "ck"
# last_seen_at is for people: writing it with each request would cost a write a photo.
SEEN_EVERY = timedelta(minutes=5)


def _sha256(key: str) -> str:
    # A key has 256 random bits, so a fast hash is as good as a slow one.
    return hashlib.sha256(key.encode()).hexdigest()


def _new_key() -> tuple[str, str]:
    """A key and its prefix: ck_<prefix>_<secret>."""
    prefix = secrets.token_hex(4)
    return f"{KEY_MARK}_{prefix}_{secrets.token_urlsafe(32)}", prefix


def create_device(*, name: str, scopes: list[str], product_set_id: int | None = None) -> tuple[Device, str]:
    """Make a device and its key; the key is shown this once.

    Raises:
        ValidationError: the name is taken, or a scope is none of `Scope`.
    """
    key, prefix = _new_key()
    device = Device(
        name=name,
        key_prefix=prefix,
        key_sha256=_sha256(key),
        scopes=scopes or [Scope.RECOGNISE],
        product_set_id=product_set_id,
    )
    device.full_clean()
    device.save()
    return device, key


def renew_key(device: Device) -> str:
    """Give a device another key; the old one stops at once."""
    key, device.key_prefix = _new_key()
    device.key_sha256 = _sha256(key)
    device.save(update_fields=["key_prefix", "key_sha256", "updated_at"])
    return key


def find_device(key: str) -> Device | None:
    """The active device that holds `key`, or None."""
    mark, _, rest = key.partition("_")
    prefix, _, _ = rest.partition("_")
    if mark != KEY_MARK or not prefix or "\0" in key:
        return None
    device = Device.objects.filter(key_prefix=prefix, is_active=True).first()
    if device is None or not hmac.compare_digest(device.key_sha256, _sha256(key)):
        return None
    now = timezone.now()
    if device.last_seen_at is None or now - device.last_seen_at > SEEN_EVERY:
        Device.objects.filter(pk=device.pk).update(last_seen_at=now)
    return device
