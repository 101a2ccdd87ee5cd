"""Keys are shown once, roles bound what is seen, and nobody makes himself a superuser."""

import io
import re
import runpy
import zipfile

import pytest
from auditlog.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.files.base import ContentFile
from django.db import connections
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from backend.access.models import Device
from backend.access.services import find_device
from backend.catalogue.imports import IMPORT_KIND
from backend.catalogue.models import Product, ProductSet
from backend.catalogue.services import save_product
from backend.common.audit import acting, done_by
from backend.jobs.services import run_job, start_job
from backend.menu import MENU
from tests.backend.factories import make_device, make_product, make_staff

pytestmark = pytest.mark.django_db

KEY = re.compile(r"<code class=\"ck-key\" data-key>(ck_[\w-]+)</code>")


@pytest.fixture
def operator() -> Client:
    return make_staff("operator", "operator")


def test_a_new_device_shows_its_key_once(operator):
    product_set = ProductSet.objects.create(slug="north", name="North")
    form = {"name": "Till 9", "scopes": ["recognise", "catalogue"], "product_set": product_set.pk}
    response = operator.post(reverse("admin:access_device_add"), form)
    found = KEY.search(response.content.decode())
    assert found is not None
    device = find_device(found[1])
    assert device is not None
    assert (device.name, device.scopes, device.product_set) == (
        "Till 9",
        ["recognise", "catalogue"],
        product_set,
    )
    assert "no-store" in response["Cache-Control"]
    assert "messages" not in response.cookies, "a key in a cookie is a key in a log"
    page = operator.get(reverse("admin:access_device_change", args=[device.pk])).content.decode()
    assert found[1] not in page
    assert device.key_prefix in page


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": "till 1", "scopes": ["recognise"]}, "already exists"),
        ({"name": "new", "scopes": ["rule"]}, "is not one of the available choices"),
        ({"name": "new", "scopes": []}, "This field is required"),
    ],
)
def test_a_bad_device_is_refused(operator, form, said):
    make_device("till 1")
    response = operator.post(reverse("admin:access_device_add"), form)
    assert said in response.content.decode()
    assert Device.objects.count() == 1


def test_a_renewed_key_replaces_the_old(operator):
    device, headers = make_device("till 1")
    old = headers["Authorization"].removeprefix("Bearer ")
    url = reverse("admin:access_device_renew_key", args=[device.pk])
    assert "stops at once" in operator.get(url).content.decode()
    assert find_device(old) == device, "asking changes nothing"
    found = KEY.search(operator.post(url).content.decode())
    assert found is not None
    assert find_device(found[1]) == device
    assert find_device(old) is None
    assert operator.get(reverse("admin:access_device_renew_key", args=[999])).status_code == 404


def test_a_device_is_changed_and_stopped(operator):
    device, _ = make_device("till 1")
    url = reverse("admin:access_device_change", args=[device.pk])
    assert operator.post(url, {"name": "till one", "scopes": ["operate"]}).status_code == 302
    device.refresh_from_db()
    assert (device.name, device.scopes, device.is_active) == ("till one", ["operate"], False)


def test_menu_and_pages_are_those_of_the_role(operator):
    manager = make_staff("manager", "manager")
    sees = {
        "manager": {"Overview", "Recognise", "Products", "Reference images", "Product sets", "Imports and jobs",
                    "Recognitions", "Corrections", "Review", "Generations", "Shadowed items", "Evaluations"},
        "operator": {entry for _, entries in MENU for entry, *_ in entries},
    }  # fmt: skip
    for client, role in ((manager, "manager"), (operator, "operator")):
        groups = client.get(reverse("admin:index")).context["sidebar_navigation"]
        assert {item["title"] for group in groups for item in group["items"]} == sees[role]
        for _, entries in MENU:
            for entry, _, address, _ in entries:
                expected = 200 if entry in sees[role] else 403
                assert client.get(reverse(f"admin:{address}")).status_code == expected, (role, entry)


def test_without_a_role_there_is_the_overview_and_no_more():
    client = make_staff("nobody")
    page = client.get(reverse("admin:index"))
    assert page.status_code == 200
    assert page.context["figures"] == []
    assert client.get(reverse("admin:catalogue_product_changelist")).status_code == 403


def test_an_operator_makes_users_but_no_superusers(operator):
    root = User.objects.create_superuser("root")
    manager_role = Group.objects.get(name="manager")
    form = {
        "username": "new", "password1": "a-long-pass-phrase", "password2": "a-long-pass-phrase",
        "usable_password": "true", "is_staff": "on", "groups": [manager_role.pk], "is_superuser": "on",
    }  # fmt: skip
    assert operator.post(reverse("admin:auth_user_add"), form).status_code == 302
    new = User.objects.get(username="new")
    assert (new.is_superuser, new.is_staff, list(new.groups.all())) == (False, True, [manager_role])
    change = reverse("admin:auth_user_change", args=[new.pk])
    operator.post(
        change, {"username": "new", "is_active": "on", "is_superuser": "on", "groups": [manager_role.pk]}
    )
    new.refresh_from_db()
    assert not new.is_superuser
    for page in ("change", "delete"):
        url = reverse(f"admin:auth_user_{page}", args=[root.pk])
        assert operator.post(url, {"username": "mine", "post": "yes"}).status_code == 403
    url = reverse("admin:auth_user_password_change", args=[root.pk])
    assert operator.post(url, {"password1": "x" * 20, "password2": "x" * 20}).status_code == 403
    assert User.objects.filter(username="root").exists()


def test_the_audit_log_tells_who_changed_what(operator):
    product = make_product("A-1")
    form = {"sku": "A-1", "name": "Renamed", "sold_by": "unit", "state": "active", "attributes": "{}"}
    operator.post(reverse("admin:catalogue_product_change", args=[product.pk]), form)
    page = operator.get(reverse("admin:auditlog_logentry_changelist"))
    assert page.status_code == 200
    assert page.context["cl"].result_list[0].actor.username == "operator"
    entry = page.context["cl"].result_list[0]
    url = reverse("admin:auditlog_logentry_change", args=[entry.pk])
    page = operator.get(url).content.decode()
    assert "Renamed" in page
    assert reverse("admin:auditlog_logentry_history", args=[entry.pk]) not in page, "an entry has none"


def test_the_audit_log_names_device_import_and_command(operator, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    api = APIClient(headers=make_device("till 7")[1])
    api.post("/api/v1/products", {"sku": "A-1", "name": "Apple"}, "json")
    product = Product.objects.get()
    api.patch("/api/v1/products/A-1", {"name": "Pear"}, "json")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as entries:
        entries.writestr("products.csv", "sku,name\nA-1,Quince\n")
    job = start_job(kind=IMPORT_KIND, file=ContentFile(archive.getvalue()), asked_by="till 7")
    run_job(str(job.pk))
    with acting("command shell"):
        save_product(product, {"name": "Medlar"})
    save_product(product, {"name": "Sloe"})
    by = [
        "device till 7",
        "device till 7",
        f"catalogue-import asked by till 7, job {job.pk}",
        "command shell",
    ]
    entries = LogEntry.objects.get_for_object(product).order_by("timestamp")
    assert [done_by(entry) for entry in entries] == [*by, "the service itself"]
    log = reverse("admin:auditlog_logentry_changelist")
    assert all(name in operator.get(log).content.decode() for name in by)
    history = operator.get(reverse("admin:catalogue_product_history", args=[product.pk])).content.decode()
    assert all(f"by {name}" in history for name in by)
    found = operator.get(log, {"q": "till 7, job"}).context["cl"].result_list
    assert [entry.changes["name"][1] for entry in found] == ["Quince"]
    assert "device" not in done_by(_entry_of(operator, product)), "the next request is not the device's"


def test_the_audit_log_names_a_command_of_the_shell(monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "create_device", "till 9"])
    monkeypatch.setattr(connections, "close_all", lambda: None)  # a command's last act; the test's is open
    runpy.run_path("manage.py", run_name="__main__")
    made = LogEntry.objects.get_for_object(Device.objects.get(name="till 9")).get()
    assert done_by(made) == "command create_device"


def _entry_of(client: Client, product: Product) -> LogEntry:
    """What the log says after this person renamed the product."""
    form = {"sku": product.sku, "name": "Rowan", "sold_by": "unit", "state": "active", "attributes": "{}"}
    client.post(reverse("admin:catalogue_product_change", args=[product.pk]), form)
    return LogEntry.objects.get_for_object(product).order_by("timestamp").last()


def test_an_address_that_is_not_there_is_a_page_for_people_and_a_problem_for_programs(operator):
    for path in ("/admin/nowhere/", reverse("admin:checkout_recognition_change", args=["no-uuid"])):
        answer = operator.get(path, headers={"Accept": "text/html"}, follow=True)
        assert "text/html" in answer["Content-Type"], path
    answer = operator.get("/admin/nowhere/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
