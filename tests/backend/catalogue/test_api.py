"""The catalogue over REST: keys, scopes, a device's own product set, and bad input by name."""

import io
import zipfile

import pytest
from rest_framework.test import APIClient

from backend.catalogue.models import Product, ProductSet, ReferenceImage
from tests.backend.factories import make_device, make_picture, make_product

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


def client_of(headers) -> APIClient:
    return APIClient(headers=headers)


@pytest.fixture
def api() -> APIClient:
    return client_of(make_device()[1])


def picture(data: bytes, name: str = "p.jpg") -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = name
    return file


def test_without_a_key_401_with_a_wrong_scope_403():
    answer = APIClient().get("/api/v1/products")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer["Content-Type"] == "application/problem+json"
    assert client_of({"Authorization": "Bearer ck_00000000_wrong"}).get("/api/v1/products").status_code == 401
    _, headers = make_device("till 2", "recognise")
    answer = client_of(headers).get("/api/v1/products")
    assert answer.status_code == 403
    assert "'catalogue'" in answer.json()["detail"]


def test_a_product_lives_over_rest(api):
    made = api.post(
        "/api/v1/products", {"sku": "A", "name": "Apple", "price": "0.50", "currency": "EUR"}, "json"
    )
    assert made.status_code == 201, made.content
    assert made.json()["price"] == "0.50"
    assert api.post("/api/v1/products", {"sku": "A", "name": "Again"}, "json").status_code == 409
    make_product("B")
    taken = api.patch("/api/v1/products/B", {"sku": "A"}, "json")
    assert (taken.status_code, taken.json()["detail"]) == (409, "there is a product 'A' already")
    assert api.patch("/api/v1/products/B", {"sku": "C"}, "json").json()["sku"] == "C"
    changed = api.patch("/api/v1/products/A", {"state": "retired"}, "json").json()
    assert (changed["state"], changed["name"]) == ("retired", "Apple")
    assert [product["sku"] for product in api.get("/api/v1/products?name=app").json()["results"]] == ["A"]
    assert api.delete("/api/v1/products/A").status_code == 204
    assert api.get("/api/v1/products/A").status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gtin": "4006381333932"}, "gtin"),
        ({"price": "1.00"}, "currency"),
        ({"price": "-1", "currency": "EUR"}, "price"),
        ({"sku": "a b"}, "sku"),
        ({"attributes": [1]}, "attributes"),
        ({"name": "x" * 201}, "name"),
        ({"name": "nul \0"}, "name"),
    ],
)
def test_a_bad_product_is_refused_by_field(api, changes, field):
    answer = api.post("/api/v1/products", {"sku": "A", "name": "Apple"} | changes, "json")
    assert answer.status_code == 400, answer.content
    assert field in answer.json()["errors"]
    assert not Product.objects.exists()


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"sku": None}, "sku: found null, a text of 1 to 64 characters is wanted"),
        (
            {"sku": "a b"},
            "sku: 'a b' is no SKU: letters, digits, '.', '_' and '-' are wanted, the first a letter",
        ),
        ({"name": ""}, "name: found '', a text of 1 to 200 characters is wanted"),
        (
            {"name": "x" * 201},
            "name: found a text of 201 characters, a text of 1 to 200 characters is wanted",
        ),
        ({"name": {"en": "Apple"}}, "name: found an object, a text of 1 to 200 characters is wanted"),
        ({"name": "nul \0"}, "name: found a NUL character in the text, a text without one is wanted"),
        ({"price": "cheap"}, "price: found 'cheap', a number of at least 0 with at most 10 digits before"),
        ({"price": -1}, "price: found -1, a number of at least 0 with at most 10 digits before"),
        ({"price": "1.999"}, "price: found '1.999', a number of at least 0 with at most 10 digits before"),
        ({"currency": "XXX"}, "currency: 'XXX' is no currency: a code of ISO 4217 such as EUR is wanted"),
        ({"currency": "eur"}, "currency: 'eur' is no currency"),
        ({"sold_by": "dozen"}, "sold_by: found 'dozen', one of 'unit', 'weight' is wanted"),
        ({"attributes": [1]}, "attributes: found [1], an object is wanted"),
        ({"nmae": "Apple"}, "nmae: there is no such member; did you mean 'name'? known are sku, gtin, name,"),
        ({"zzz": 1}, "zzz: there is no such member; known are sku,"),
    ],
)
def test_a_refusal_names_what_was_found_and_what_is_wanted(api, changes, detail):
    answer = api.post("/api/v1/products", {"sku": "A", "name": "Apple"} | changes, "json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert answer.json()["detail"].startswith(detail)


def test_a_body_that_is_no_object_and_a_missing_member_are_named(api):
    assert (
        api.post("/api/v1/products", [1], "json").json()["detail"] == "found a JSON list, an object is wanted"
    )
    found = api.post("/api/v1/products", {"name": "Apple"}, "json").json()
    assert found["detail"] == "sku: found nothing, a text of 1 to 64 characters is wanted"
    found = api.post("/api/v1/product-sets", {"slug": "a b", "name": "A"}, "json").json()
    wanted = "a text of letters, digits, '-' and '_' of at most 64 characters"
    assert found["detail"] == f"slug: found 'a b', {wanted} is wanted"


def test_what_a_product_has_none_of_is_null_and_null_is_taken(api):
    made = api.post("/api/v1/products", {"sku": "A", "name": "Apple"}, "json").json()
    assert (made["gtin"], made["currency"], made["price"]) == (None, None, None)
    full = {"gtin": "4006381333931", "price": "1.00", "currency": "EUR"}
    assert api.patch("/api/v1/products/A", full, "json").json()["gtin"] == "4006381333931"
    # A program may send back what it read, with its read-only members.
    again = api.patch("/api/v1/products/A", made, "json")
    assert (again.status_code, again.json()["gtin"], again.json()["currency"]) == (200, None, None)
    assert Product.objects.get().gtin == ""


def test_boxes_are_told_to_a_tenth_of_a_pixel(api):
    make_product("A")
    url = "/api/v1/products/A/reference-images"
    sides = {"x1": 1.23456, "y1": 2.98765, "x2": 30.55555, "y2": 40}
    made = api.post(url, {"image": picture(make_picture()), **sides}, "multipart").json()
    assert made["box"] == [1.2, 3.0, 30.6, 40.0]
    refused = api.patch(f"{url}/{made['id']}", {"box": [1, 2, "wide", 4]}, "json").json()
    assert refused["detail"] == "box: 2: found 'wide', a number is wanted"
    refused = api.patch(f"{url}/{made['id']}", {"box": [1, 2, 3]}, "json").json()
    assert refused["detail"] == "box: found a list of 3, a list of 4, each a number, or null is wanted"


def test_a_part_that_comes_twice_or_is_unknown_is_refused(api):
    make_product("A")
    url = "/api/v1/products/A/reference-images"
    two = {"image": [picture(make_picture(0)), picture(make_picture(1))]}
    assert (
        api.post(url, two, "multipart").json()["detail"] == "image: found 2 parts of this name, one is wanted"
    )
    odd = api.post(url, {"image": picture(make_picture()), "x_1": 3}, "multipart")
    assert odd.json()["detail"].startswith("x_1: there is no such member; did you mean 'x1'?")
    text = api.post(url, {"image": "p.jpg"}, "multipart")
    assert text.json()["detail"] == "image: found 'p.jpg', a file is wanted"
    assert not ReferenceImage.objects.exists()


def test_pictures_come_with_their_box_and_can_be_corrected(api):
    make_product("A")
    url = "/api/v1/products/A/reference-images"
    made = api.post(
        url, {"image": picture(make_picture()), "x1": 1, "y1": 2, "x2": 30, "y2": 40}, "multipart"
    )
    assert made.status_code == 201, made.content
    assert (made.json()["box"], made.json()["box_source"]) == ([1, 2, 30, 40], "person")
    one = f"{url}/{made.json()['id']}"
    corrected = api.patch(one, {"box": [5, 5, 50, 50]}, "json").json()
    assert (corrected["box"], corrected["revision"]) == ([5, 5, 50, 50], 2)
    assert api.patch(one, {"box": [5, 5, 500, 50]}, "json").status_code == 400
    assert api.patch(one, {"box": None}, "json").json()["box_source"] == ""
    assert api.get(f"{one}/file").getvalue()[:3] == b"\xff\xd8\xff"
    assert api.delete(one).status_code == 204
    assert api.get(one).status_code == 404


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (make_picture()[:300], 400, "image-truncated"),
        (b"GIF89a" + bytes(100), 415, "image-unsupported-format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "image-unsupported-format"),
        (b"hello", 400, "image-not-an-image"),
        (make_picture(size=(4, 4), file_format="PNG"), 400, "image-too-small"),
    ],
)
def test_what_is_no_picture_is_refused_and_nothing_stored(api, data, status, code):
    make_product("A")
    answer = api.post("/api/v1/products/A/reference-images", {"image": picture(data)}, "multipart")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not ReferenceImage.objects.exists()


def test_an_empty_file_and_half_a_box_are_refused(api):
    make_product("A")
    url = "/api/v1/products/A/reference-images"
    assert api.post(url, {"image": picture(b"")}, "multipart").status_code == 400
    answer = api.post(url, {"image": picture(make_picture()), "x1": 1}, "multipart")
    assert "all of x1, y1, x2, y2" in answer.json()["detail"]


def test_the_same_picture_twice_is_a_conflict(api):
    make_product("A")
    url = "/api/v1/products/A/reference-images"
    assert api.post(url, {"image": picture(make_picture())}, "multipart").status_code == 201
    again = api.post(url, {"image": picture(make_picture(), "other name.jpg")}, "multipart")
    assert (again.status_code, again.json()["code"]) == (409, "duplicate-picture")


def test_a_device_bound_to_a_product_set_sees_nothing_else():
    mine, other = (ProductSet.objects.create(slug=slug, name=slug) for slug in ("mine", "other"))
    mine.products.add(make_product("A"))
    other.products.add(make_product("B"))
    _, headers = make_device("store", product_set_id=mine.pk)
    api = client_of(headers)
    assert [product["sku"] for product in api.get("/api/v1/products").json()["results"]] == ["A"]
    for address in ("products/B", "products/B/reference-images", "product-sets/other"):
        assert api.get(f"/api/v1/{address}").status_code == 404
    assert [one["slug"] for one in api.get("/api/v1/product-sets").json()["results"]] == ["mine"]
    assert api.delete("/api/v1/products/A").status_code == 403
    assert api.post("/api/v1/product-sets", {"slug": "x", "name": "x"}, "json").status_code == 403
    assert api.post("/api/v1/product-sets/mine/products", {"add": ["B"]}, "json").status_code == 403


def test_product_sets_change_their_members(api):
    make_product("A")
    assert api.post("/api/v1/product-sets", {"slug": "s", "name": "Store"}, "json").status_code == 201
    taken = api.post("/api/v1/product-sets", {"slug": "s", "name": "Other"}, "json")
    assert (taken.status_code, taken.json()["detail"]) == (409, "there is a product set 's' already")
    changed = api.post("/api/v1/product-sets/s/products", {"add": ["A"]}, "json")
    assert (changed.status_code, changed.json()["n_products"]) == (200, 1)
    refused = api.post("/api/v1/product-sets/s/products", {"add": ["NOPE"]}, "json")
    assert (refused.status_code, refused.json()["errors"]) == (400, {"skus": ["NOPE"]})
    assert api.patch("/api/v1/product-sets/s", {"name": "Shop"}, "json").json()["name"] == "Shop"
    assert api.delete("/api/v1/product-sets/s").status_code == 204


def test_lists_come_in_pages(api):
    for number in range(7):
        make_product(f"P{number}")
    seen, url = [], "/api/v1/products?page_size=3"
    while url:
        page = api.get(url).json()
        seen += [product["sku"] for product in page["results"]]
        url = page["next"]
    assert seen == [f"P{number}" for number in range(7)]


def test_an_import_is_a_job_that_its_device_can_follow(api):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("products.csv", "sku,name\nA,Apple\n")
    buffer.seek(0)
    buffer.name = "c.zip"
    started = api.post("/api/v1/catalogue-imports", {"file": buffer}, "multipart")
    assert (started.status_code, started.json()["state"]) == (202, "queued")
    url = f"/api/v1/jobs/{started.json()['id']}"
    assert api.post(f"{url}/pause").json()["state"] == "paused"
    assert api.post(f"{url}/pause").status_code == 409
    assert api.post(f"{url}/cancel").json()["state"] == "cancelled"
    _, headers = make_device("till 9", "catalogue")
    assert client_of(headers).get(url).status_code == 404


def test_a_zip_beyond_the_limit_is_refused_by_size(api, settings):
    settings.IMPORT_MAX_BYTES = 10
    answer = api.post("/api/v1/catalogue-imports", {"file": picture(bytes(11), "c.zip")}, "multipart")
    assert (answer.status_code, answer.json()["code"]) == (413, "import-too-many-bytes")


def test_an_address_that_is_none_is_a_problem_too(client):
    answer = client.get("/api/v1/nothing")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
