"""From a photo to a basket over HTTP, through every engine."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import uuid4

import pytest
import requests
from PIL import Image

from backend.demo.management.commands.demo import SCENE
from tests.end_to_end.conftest import fills
from tests.live import LiveService


def new_device(live_service: LiveService, *arguments: str) -> dict[str, str]:
    made = live_service.manage("create_device", f"device {uuid4().hex[:8]}", *arguments)
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


def test_a_photo_becomes_a_basket(recognise, query_images, live_service):
    answer = recognise(query_images[0])
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["state"] == "done"
    assert body["image"]["width"] > 0
    assert body["main_body_found"] is True
    assert body["models"]["detector"].startswith("checklane-detector-int8 ")
    assert fills(body["items"][0]["box"], body["image"])  # the picture was cut out around its product
    assert 0 < body["items"][0]["confidence"] < 1
    candidates = body["items"][0]["candidates"]
    assert [one["similarity"] for one in candidates] == sorted(
        (one["similarity"] for one in candidates), reverse=True
    )
    assert set(body["timings_ms"]) >= {"decode", "detect", "embed", "search", "rank"}
    # The same is answered later, to the same device.
    again = requests.get(
        f"{live_service.url}/api/v1/recognitions/{body['id']}", headers=live_service.headers, timeout=10
    )
    assert again.json() == body | {"corrections": []}


def test_a_scene_of_five_products_is_answered_with_the_five(recognise, demo_catalogue):
    """That of the demo: each product once, in its place, its price the catalogue's."""
    written = json.loads((demo_catalogue / "scenes.json").read_text())
    scene = next(one for one in written["images"] if one["file_name"].endswith(f"/{SCENE.name}"))
    there = {one["sku"]: one["bbox"] for one in written["annotations"] if one["image_id"] == scene["id"]}
    with (demo_catalogue / "products.csv").open() as file:
        prices = {row["sku"]: row["price"] for row in csv.DictReader(file)}
    items = recognise(demo_catalogue / scene["file_name"]).json()["items"]
    assert len(there) == 5
    assert {item["product"]["sku"]: item["product"]["price"] for item in items} == {
        sku: prices[sku] for sku in there
    }
    for item in items:
        x, y, width, height = there[item["product"]["sku"]]
        x1, y1, x2, y2 = item["box"]
        assert abs((x1 + x2) / 2 - (x + width / 2)) < 0.1 * width
        assert abs((y1 + y2) / 2 - (y + height / 2)) < 0.1 * height


def test_most_query_images_have_their_product_first(recognise, demo_catalogue):
    """The embedder never saw these products; the first candidate is right for most of them all the same."""
    with (demo_catalogue / "query.csv").open() as file:
        rows = list(csv.DictReader(file))[::3]
    right = 0
    for row in rows:
        item = recognise(demo_catalogue / row["image"]).json()["items"][0]
        right += item["candidates"][0]["product"]["sku"] == row["sku"]
    assert right / len(rows) >= 0.75, f"{right} of {len(rows)}"


def test_a_picture_of_the_gallery_finds_itself(recognise, demo_catalogue):
    """The crop that was embedded, sent again, is as similar as can be."""
    with (demo_catalogue / "gallery.csv").open() as file:
        row = next(csv.DictReader(file))
    with Image.open(demo_catalogue / row["image"]) as picture:
        crop = picture.crop([round(float(row[side])) for side in ("x1", "y1", "x2", "y2")])
        buffer = io.BytesIO()
        crop.save(buffer, "PNG")
    body = recognise(buffer.getvalue()).json()
    item = body["items"][0]
    assert item["candidates"][0]["product"]["sku"] == row["sku"]
    assert item["similarity"] > 0.95
    if item["result"] == "recognised":
        assert Decimal(body["basket"]["total"]) == Decimal(item["product"]["price"])


def test_fifty_requests_with_one_key_are_one_recognition(recognise, query_images, live_service):
    key = {"Idempotency-Key": uuid4().hex}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: recognise(query_images[1], headers=key), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_key_with_another_body_is_refused(recognise, query_images):
    key = {"Idempotency-Key": uuid4().hex}
    assert recognise(query_images[0], headers=key).status_code == 201
    refused = recognise(query_images[1], headers=key)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
    assert recognise(query_images[0], headers=key, candidates=2).status_code == 422


def test_keys_scopes_and_another_devices_recognition(recognise, query_images, live_service):
    url = f"{live_service.url}/api/v1/recognitions"
    picture = {"image": query_images[0].read_bytes()}
    assert requests.post(url, files=picture, timeout=10).status_code == 401
    wrong = {"Authorization": "Bearer ck_00000000_wrong"}
    assert requests.post(url, files=picture, headers=wrong, timeout=10).status_code == 401
    catalogue_only = new_device(live_service, "--scope", "catalogue")
    assert requests.post(url, files=picture, headers=catalogue_only, timeout=10).status_code == 403
    mine = recognise(query_images[0]).json()["id"]
    other = new_device(live_service)
    found = requests.get(f"{url}/{mine}", headers=other, timeout=10)
    assert (found.status_code, found.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_product_set_bounds_the_search(recognise, query_images, live_service):
    api, headers = f"{live_service.url}/api/v1", live_service.headers
    skus = [
        product["sku"]
        for product in requests.get(f"{api}/products", headers=headers, timeout=10).json()["results"]
    ]
    slug = f"set-{uuid4().hex[:8]}"
    made = requests.post(
        f"{api}/product-sets", json={"slug": slug, "name": slug}, headers=headers, timeout=10
    )
    assert made.status_code == 201
    members = {"add": skus[:2]}
    requests.post(
        f"{api}/product-sets/{slug}/products", json=members, headers=headers, timeout=10
    ).raise_for_status()
    body = recognise(query_images[5], product_set=slug, candidates=20).json()
    assert body["product_set"] == slug
    assert {one["product"]["sku"] for one in body["items"][0]["candidates"]} == set(skus[:2])
    bound = new_device(live_service, "--product-set", slug)
    own = recognise(query_images[5], headers=bound).json()
    assert {one["product"]["sku"] for one in own["items"][0]["candidates"]} <= set(skus[:2])
    assert recognise(query_images[5], headers=bound, product_set="demo").status_code == 404
    assert recognise(query_images[5], product_set="no-such-set").status_code == 404


def test_what_a_person_says_is_stored(recognise, query_images, live_service):
    body = recognise(query_images[2]).json()
    url = f"{live_service.url}/api/v1/recognitions/{body['id']}"

    def correct(**said):
        return requests.post(f"{url}/corrections", json=said, headers=live_service.headers, timeout=10)

    sku = body["items"][0]["candidates"][0]["product"]["sku"]
    assert correct(item=1, sku=sku).status_code == 201
    assert correct(item=1, sku=None).status_code == 201
    assert correct(sku=sku, box=[0, 0, 20, 20]).status_code == 201
    for wrong, message in [
        ({"item": 1, "sku": "NOPE"}, "no product 'NOPE'"),
        ({"item": 9, "sku": sku}, "no item 9"),
        ({"sku": sku}, "box and SKU"),
        ({"sku": sku, "box": [0, 0, 9999, 20]}, "no box inside"),
        ({"item": 1}, "sku"),
    ]:
        refused = correct(**wrong)
        assert refused.status_code == 400
        assert message in json.dumps(refused.json())
    shown = requests.get(url, headers=live_service.headers, timeout=10).json()
    assert [one["sku"] for one in shown["corrections"]] == [sku, "", sku]


def test_a_retired_product_is_never_answered_whatever_milvus_returns(recognise, query_images, live_service):
    before = recognise(query_images[3]).json()["items"][0]["candidates"][0]["product"]["sku"]
    product = f"{live_service.url}/api/v1/products/{before}"
    requests.patch(
        product, json={"state": "retired"}, headers=live_service.headers, timeout=10
    ).raise_for_status()
    try:
        after = recognise(query_images[3], candidates=20).json()["items"][0]["candidates"]
        assert before not in {one["product"]["sku"] for one in after}
    finally:
        requests.patch(
            product, json={"state": "active"}, headers=live_service.headers, timeout=10
        ).raise_for_status()


@pytest.mark.parametrize("candidates", ["0", "21", "many"])
def test_a_number_of_candidates_out_of_range_is_named(recognise, query_images, candidates):
    refused = recognise(query_images[0], candidates=candidates)
    assert refused.status_code == 400
    assert "candidates" in refused.json()["errors"]


def test_health_readiness_metrics_and_schema(live_service):
    def get(path: str) -> requests.Response:
        return requests.get(f"{live_service.url}{path}", timeout=10)

    assert get("/healthz").json() == {"status": "ok"}
    ready = get("/readyz")
    assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"})
    assert "checklane_recognitions_total" in get("/metrics").text
    assert "openapi: 3" in get("/api/schema").text


def test_one_request_id_goes_through_to_the_worker(recognise, query_images, live_service):
    request_id = uuid4().hex
    assert recognise(query_images[0], headers={"X-Request-ID": request_id}).status_code == 201
    logs = live_service.data_dir / "logs"
    assert request_id in (logs / "web.log").read_text()
    assert request_id in (logs / "worker-recognition.log").read_text()
