"""The service keeps to its own OpenAPI document, whether schemathesis asks it or a client does."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import requests
import schemathesis

from tests.backend.factories import make_picture
from tests.live import LiveService

EMBEDDED_WITHIN_SECONDS = 120
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def document(live_service: LiveService) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{live_service.url}/api/schema", headers=live_service.headers)


@pytest.fixture(scope="module")
def catalogue_as_before(live_service: LiveService, demo_catalogue: Path) -> Iterator[None]:
    """What was made up goes again, and what was hit comes back: other tests use the same service."""

    def names(path: str, field: str) -> set[str]:
        answer = requests.get(
            f"{live_service.url}/api/v1/{path}?page_size=500", headers=live_service.headers, timeout=30
        )
        return {row[field] for row in answer.json()["results"]}

    def active() -> int:
        answer = requests.get(
            f"{live_service.url}/api/v1/generations", headers=live_service.headers, timeout=30
        )
        return next(row["id"] for row in answer.json() if row["state"] == "active")

    kinds = {"products": "sku", "product-sets": "slug"}
    answering = active()
    before = {path: names(path, field) for path, field in kinds.items()}
    yield
    if active() != answering:
        back = live_service.manage("switch_generation", str(answering), "--force", "--reason", "as before")
        assert back.returncode == 0, back.stderr
    for path, field in kinds.items():
        for name in names(path, field) - before[path]:
            requests.delete(
                f"{live_service.url}/api/v1/{path}/{name}", headers=live_service.headers, timeout=30
            )
    imported = live_service.manage("import_catalogue", str(demo_catalogue))
    assert imported.returncode == 0, imported.stderr
    deadline = time.monotonic() + EMBEDDED_WITHIN_SECONDS
    while "wait to be embedded" in live_service.manage("reconcile_gallery").stdout:
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("catalogue_as_before")
def test_whatever_is_made_up_is_answered_as_the_document_says(live_service, tmp_path):
    # As a program of its own: its pytest plugin does not know pytest 9.1 yet.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{live_service.url}/api/schema"]
    command += ["--header", f"Authorization: {live_service.headers['Authorization']}", "--checks", CHECKS]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "5", "--no-color"]
    # A switch waits up to 20 s until every worker has loaded what is about to answer.
    command += ["--request-timeout", "30"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout


def test_the_document_has_no_gaps(live_service):
    """drf-spectacular warns of what it had to guess."""
    checked = live_service.manage("spectacular", "--validate", "--fail-on-warn", "--file", "/dev/null")
    assert checked.returncode == 0, checked.stderr


def expire(service: LiveService, recognition_id: str) -> str:
    """Make it look as if nobody had been free for it."""
    connection = psycopg2.connect(service.environ["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE checkout_recognition SET state = 'expired', answer = NULL WHERE id = %s", [recognition_id]
        )
    connection.close()
    return recognition_id


def test_what_a_client_really_asks_is_answered_as_the_document_says(document, live_service, query_images):
    """Through real things, which made-up names never reach."""
    sku, slug = f"DOC-{uuid4().hex[:8]}", f"doc-{uuid4().hex[:8]}"

    def ask(method: str, template: str, wanted: int, names: dict[str, object] | None = None, **body: object):
        path = template.format(**(names or {}))
        answer = requests.request(
            method, f"{live_service.url}{path}", headers=live_service.headers, timeout=30, **body
        )
        assert answer.status_code == wanted, answer.text
        document[template][method].validate_response(answer)
        return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else None

    api = "/api/v1"
    product = {"sku": sku, "name": "Documented", "price": "1.20", "currency": "EUR", "attributes": {"a": [1]}}
    ask("POST", f"{api}/products", 201, json=product)
    ask("GET", f"{api}/products", 200)
    ask("GET", f"{api}/products/{{sku}}", 200, {"sku": sku})
    ask("PATCH", f"{api}/products/{{sku}}", 200, {"sku": sku}, json={"price": None, "currency": ""})
    images = f"{api}/products/{{sku}}/reference-images"
    image = {"sku": sku} | {
        "image_id": ask("POST", images, 201, {"sku": sku}, files={"image": make_picture()})["id"]
    }
    ask("GET", images, 200, image)
    ask("PATCH", images + "/{image_id}", 200, image, json={"box": [1, 2, 100, 90.5]})
    ask("GET", images + "/{image_id}", 200, image)
    ask("GET", images + "/{image_id}/file", 200, image)
    ask("GET", images + "/{image_id}/embedding", 200, image)
    ask("GET", images + "/{image_id}/findings", 200, image)
    ask("POST", f"{api}/product-sets", 201, json={"slug": slug, "name": "Documented"})
    ask("GET", f"{api}/product-sets", 200)
    members = f"{api}/product-sets/{{slug}}/products"
    ask("POST", members, 200, {"slug": slug}, json={"add": [sku]})
    ask("GET", members, 200, {"slug": slug})
    ask("PATCH", f"{api}/product-sets/{{slug}}", 200, {"slug": slug}, json={"name": "Renamed"})
    photo = {"image": query_images[0].read_bytes()}
    found = ask("POST", f"{api}/recognitions", 201, files=photo, data={"candidates": "3"})
    recognition = {"recognition_id": found["id"]}
    expired = expire(live_service, ask("POST", f"{api}/recognitions", 201, files=photo)["id"])
    corrections = f"{api}/recognitions/{{recognition_id}}/corrections"
    correction = {
        "correction_id": ask("POST", corrections, 201, recognition, json={"item": 1, "sku": sku})["id"]
    }
    review = f"{api}/corrections/{{correction_id}}"
    ask("GET", f"{api}/corrections", 200)
    ask("POST", f"{review}/check", 200, correction)
    ask("GET", review, 200, correction)
    ask("GET", f"{review}/crop", 200, correction)
    ask("POST", f"{review}/accept", 200, correction, json={"force": True, "note": "documented"})
    ask("POST", f"{review}/undo", 200, correction)
    ask("POST", f"{review}/reject", 200, correction, json={})
    ask("POST", f"{images}/check", 200, {"sku": sku}, files={"image": photo["image"]}, data={})
    ask("POST", corrections, 201, recognition, json={"sku": sku, "box": [0, 0, 9, 9]})
    ask("GET", f"{api}/recognitions/{{recognition_id}}", 200, recognition)
    ask("GET", f"{api}/recognitions/{{recognition_id}}", 200, {"recognition_id": expired})
    ask("POST", f"{api}/echo", 200)
    job = {"job_id": ask("POST", f"{api}/catalogue-imports", 202, files={"file": b"no zip"})["id"]}
    ask("GET", f"{api}/jobs/{{job_id}}", 200, job)
    [generation, *_] = ask("GET", f"{api}/generations", 200)
    ask("GET", f"{api}/generations/{{generation_id}}", 200, {"generation_id": generation["id"]})
    ask("DELETE", images + "/{image_id}", 204, image)
    ask("DELETE", f"{api}/product-sets/{{slug}}", 204, {"slug": slug})
    ask("DELETE", f"{api}/products/{{sku}}", 204, {"sku": sku})
