"""Whatever a client sends around its picture: an answer in 4xx that says what was wrong, never a 500."""

import http.client
import json
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests

from tests.backend.factories import make_picture
from tests.live import LiveService

PICTURE = make_picture()
BOUNDARY = "a-boundary"
NOBODYS = "0f8fad5b-d9cb-469f-a165-70867728950e"  # the same in each process that collects tests


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    called = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{called}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FORM = part("image", PICTURE, filename="p.jpg") + END


def post(
    service: LiveService,
    body: bytes,
    *,
    content_type: str | None = f"multipart/form-data; boundary={BOUNDARY}",
    length: bool = True,
    headers: dict[str, str] | None = None,
    path: str = "recognitions",
) -> tuple[int, dict]:
    """Send bytes exactly as they are; without a length in chunks."""
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    sent = service.headers | ({"Content-Type": content_type} if content_type else {}) | (headers or {})
    try:
        connection.request(
            "POST", f"/api/v1/{path}", body if length else iter([body]), sent, encode_chunked=not length
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


BODIES = {
    "no field": (part("picture", PICTURE, filename="p.jpg") + END, "image"),
    "the picture as text": (part("image", b"a picture") + END, "image"),
    "an empty form": (END, "image"),
    "nothing": (b"", "image"),
    "no end": (part("image", PICTURE, filename="p.jpg")[:200], "image"),
    "no form at all": (b"\x00\xff" * 500, "image"),
    "NUL in the set's name": (part("product_set", b"a\0b") + FORM, "product_set"),
    "NUL in the number": (part("candidates", b"5\0") + FORM, "candidates"),
    "half a character": (part("product_set", b"\xff\xfe\xed\xa0\x80") + FORM, "product"),
    "a number beyond all": (part("candidates", b"9" * 400) + FORM, "candidates"),
    "a thousand numbers": (part("candidates", b"5") * 1_100 + FORM, "fields"),
    "hundreds of files": (part("other", b"x", filename="x") * 300 + FORM, "files"),
    "a field of 6 MB": (part("product_set", b"s" * 6_000_000) + FORM, "body"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BODIES)
def test_a_form_that_is_not_right_is_refused_with_what_is_wrong(live_service, fault):
    body, named = BODIES[fault]
    status, problem = post(live_service, body)
    assert 400 <= status < 500
    assert problem["status"] == status
    assert named in json.dumps(problem).lower()


def test_two_pictures_in_one_request_are_refused(live_service):
    """One of them would go unseen."""
    status, problem = post(live_service, part("image", PICTURE, filename="a.jpg") + FORM)
    assert (status, problem["detail"]) == (400, "image: found 2 parts of this name, one is wanted")


def test_a_body_without_a_length_is_asked_for_one(live_service):
    status, problem = post(live_service, FORM, length=False)
    assert (status, problem["code"]) == (411, "length-required")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "image/jpeg",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "text/plain",
        "ä/ö",
        None,
    ],
)
def test_another_type_of_body_is_refused(live_service, content_type):
    status, problem = post(live_service, FORM, content_type=content_type)
    assert status in (400, 415)
    assert problem["status"] == status


def test_a_length_that_is_no_number_is_refused(live_service):
    address = urlsplit(live_service.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("POST", "/api/v1/recognitions")
    for name, value in (live_service.headers | {"Content-Length": "many"}).items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize(
    "key", ["ünïcödé ⚡".encode().decode("latin-1"), "' OR 1=1 --", "%00", "k" * 255, " ", "{}"]
)
def test_any_key_is_taken_as_it_is(live_service, key):
    key += uuid4().hex[: max(0, 255 - len(key))]
    first = post(live_service, FORM, headers={"Idempotency-Key": key})
    assert first[0] == 201
    assert post(live_service, FORM, headers={"Idempotency-Key": key}) == first


def test_a_key_that_is_too_long_is_refused(live_service):
    status, problem = post(live_service, FORM, headers={"Idempotency-Key": "k" * 256})
    assert (status, problem["code"]) == (400, "invalid")
    assert "256" in problem["detail"]
    assert "255" in problem["detail"]


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer a b",
        "Basic YTpi",
        "Bearer ck_\xe4_b",
        "Bearer ck__",
        "ck_a_b",
        "Bearer " + "x" * 5_000,
    ],
)
def test_a_malformed_key_is_no_key(live_service, authorization):
    status, problem = post(live_service, FORM, headers={"Authorization": authorization})
    assert (status, problem["code"]) in {(401, "authentication-failed"), (401, "not-authenticated")}


@pytest.mark.parametrize(
    "path",
    [
        "recognitions/17", "recognitions/not-a-uuid", f"recognitions/{NOBODYS}", f"recognitions/{NOBODYS}0",
        "recognitions/", "jobs/1", f"jobs/{NOBODYS}", "products/a%00b", "products/%ed%a0%80", "products/" + "x" * 3_000,
        "products/A/reference-images/99999999999999999999999", "product-sets/a%00b",
        "product-sets/%F0%9F%8D%8C/products", "products?name=%00", "products?cursor=nonsense",
        "products?product_set=%00", "products?gtin=%00",
        "%2e%2e/%2e%2e/etc/passwd", "nothing",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found_whatever_it_is_called(live_service, path):
    answer = requests.get(f"{live_service.url}/api/v1/{path}", headers=live_service.headers, timeout=10)
    assert answer.status_code in (400, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "NONSENSE"])
def test_another_method_is_refused(live_service, method):
    answer = requests.request(
        method, f"{live_service.url}/api/v1/recognitions", headers=live_service.headers, timeout=10
    )
    assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a\0b"}, {"name": "\ud800"}, {"attributes": {"a": "b\0c"}}, {"attributes": {"\ud800": 1}},
        {"attributes": [1]}, {"price": "NaN", "currency": "EUR"}, {"price": 1e300, "currency": "EUR"},
        {"price": "1e9999"}, {"gtin": "１２３４５６７０"}, {"sku": ""}, {"sku": "x" * 65}, {"name": None},
        {"state": "gone"}, {"description": "x" * 5_001},
    ],
)  # fmt: skip
def test_a_product_of_odd_values_is_refused(live_service, changes):
    body = json.dumps({"sku": f"ODD-{uuid4().hex[:8]}", "name": "Odd"} | changes).encode()
    status, problem = post(live_service, body, content_type="application/json", path="products")
    assert status == 400
    assert problem["errors"]


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b"7", b'"x"', b"{", b"\xff", b"[" * 100_000, b"1" * 100_000, b'{"price": NaN}', b""],
)
def test_json_that_is_no_object_is_refused(live_service, body):
    for path in ("products", "product-sets", f"recognitions/{uuid4()}/corrections"):
        status, problem = post(live_service, body, content_type="application/json", path=path)
        assert 400 <= status < 500
        assert problem["status"] == status
