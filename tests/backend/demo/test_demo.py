"""The demo's own accounts. That it comes up and recognises is what every end-to-end test begins with."""

import json

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError

from backend.access.models import Device
from backend.demo.management.commands.demo import _load_secrets

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    return tmp_path


def test_the_same_accounts_each_time(folder):
    first = _load_secrets()
    assert json.loads((folder / "demo.json").read_text()) == first
    assert _load_secrets() == first
    assert get_user_model().objects.get(username="admin").check_password(first["password"])
    assert Device.objects.get().name == "demo till"


def test_accounts_that_no_demo_made_are_left_alone():
    admin = get_user_model().objects.create_superuser("admin", password="ours")
    with pytest.raises(CommandError, match=r"found accounts in the database and no .*demo\.json"):
        _load_secrets()
    admin.refresh_from_db()
    assert admin.check_password("ours")
    assert not Device.objects.exists()
