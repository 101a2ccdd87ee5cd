"""Keys: shown once, stored as a hash, found by prefix, refused when wrong."""

import pytest
from django.core.exceptions import ValidationError

from backend.access.models import Device
from backend.access.services import create_device, find_device, renew_key

pytestmark = pytest.mark.django_db


def test_the_key_finds_its_device_and_is_not_stored():
    device, key = create_device(name="till", scopes=["recognise"])
    assert find_device(key) == device
    stored = Device.objects.filter(pk=device.pk).values().get()
    assert not any(key in str(value) or key.split("_", 2)[2] in str(value) for value in stored.values())


@pytest.mark.parametrize("broken", ["", "ck", "ck__", "ck_0000_x", "xx_1_2", "ck_\0_1", "ck_é_1"])
def test_what_is_no_key_finds_nobody(broken):
    create_device(name="till", scopes=["recognise"])
    assert find_device(broken) is None


def test_a_wrong_secret_behind_a_right_prefix_finds_nobody():
    _, key = create_device(name="till", scopes=["recognise"])
    assert find_device(key[:-1] + ("a" if key[-1] != "a" else "b")) is None


def test_a_device_switched_off_or_renewed_loses_its_key():
    device, key = create_device(name="till", scopes=["recognise"])
    renewed = renew_key(device)
    assert find_device(key) is None
    assert find_device(renewed) == device
    Device.objects.update(is_active=False)
    assert find_device(renewed) is None


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValidationError, match="scopes"):
        create_device(name="till", scopes=["everything"])
