"""The folder that is written: its tables, its scenes, and that the repository's fixture is what the generator draws."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_catalogue import list_products, more_products, render_reference
from demo_catalogue.folder import PRODUCTS_PER_SCENE, SCENE_SIZE, checkout_scene, query_crop

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "demo_catalogue"
SEED = 1  # of the fixture
PRODUCTS = {product.sku: product for product in list_products()}


def read_table(name: str) -> list[dict[str, str]]:
    with (FIXTURE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_picture(path: Path, drawn: Image.Image) -> None:
    """Equal but for JPEG's losses (averaged away in 4 x 4 pixels) and small changes between versions of Pillow."""
    with Image.open(path) as stored:
        assert stored.format == "JPEG"
        assert stored.size == drawn.size
        pixels = [np.asarray(image.convert("RGB").reduce(4), np.float32) for image in (stored, drawn)]
    difference = np.abs(pixels[0] - pixels[1])
    assert difference.mean() < 2, path.name
    assert np.percentile(difference, 99) < 12, path.name


def test_products_table_is_the_catalogue() -> None:
    rows = read_table("products.csv")
    assert list(rows[0]) == ["sku", "gtin", "name", "brand", "category", "price", "currency", "description"]
    assert len(rows) == len(PRODUCTS)
    for row in rows:
        assert row == {column: str(getattr(PRODUCTS[row["sku"]], column)) for column in row}


@pytest.mark.parametrize(("name", "pictures_a_product"), [("gallery.csv", 5), ("query.csv", 2)])
def test_picture_tables_name_pictures_and_boxes_that_fit(name: str, pictures_a_product: int) -> None:
    rows = read_table(name)
    assert list(rows[0]) == ["image", "sku", "x1", "y1", "x2", "y2"]
    assert len({row["image"] for row in rows}) == len(rows) == pictures_a_product * len(PRODUCTS)
    for row in rows:
        assert row["sku"] in PRODUCTS
        with Image.open(FIXTURE / row["image"]) as image:
            assert max(image.size) <= 320
            assert 0 <= int(row["x1"]) < int(row["x2"]) <= image.width
            assert 0 <= int(row["y1"]) < int(row["y2"]) <= image.height
            assert min(int(row["x2"]) - int(row["x1"]), int(row["y2"]) - int(row["y1"])) >= 30


def test_scenes_are_in_the_coco_format() -> None:
    truth = json.loads((FIXTURE / "scenes.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    assert list(names.values()) == list(PRODUCTS)
    assert len(truth["images"]) >= 6
    for image in truth["images"]:
        assert (image["width"], image["height"]) == SCENE_SIZE
        with Image.open(FIXTURE / image["file_name"]) as stored:
            assert stored.size == SCENE_SIZE
        annotations = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        assert len(annotations) == PRODUCTS_PER_SCENE
        for annotation in annotations:
            x, y, width, height = annotation["bbox"]
            assert 0 <= x < x + width <= SCENE_SIZE[0]
            assert 0 <= y < y + height <= SCENE_SIZE[1]
            assert annotation["area"] == width * height
            assert annotation["sku"] == names[annotation["category_id"]]
    assert len({annotation["id"] for annotation in truth["annotations"]}) == len(truth["annotations"])


def test_the_fixture_is_small_enough_to_clone() -> None:
    assert sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()) < 6_000_000


@pytest.mark.parametrize(
    "sku", ["SODA-LIME-CAN", "WATER-STILL", "CRISPS-PAPRIKA", "MILK-WHOLE-500", "TIN-BEANS"]
)
def test_fixture_pictures_are_what_the_generator_draws(sku: str) -> None:
    boxes = {
        row["image"]: [float(row[key]) for key in ("x1", "y1", "x2", "y2")]
        for row in read_table("gallery.csv")
    }
    for view in (0, 3):
        name = f"images/gallery/{sku}-{view}.jpg"
        scene = render_reference(PRODUCTS[sku], view=view, seed=SEED)
        assert_same_picture(FIXTURE / name, scene.image)
        assert scene.items[0].box == pytest.approx(boxes[name], abs=1.5)
    image, _ = query_crop(PRODUCTS[sku], list_products(), number=1, seed=SEED)
    assert_same_picture(FIXTURE / f"images/query/{sku}-1.jpg", image)


def test_fixture_scenes_are_what_the_generator_draws() -> None:
    truth = json.loads((FIXTURE / "scenes.json").read_text(encoding="utf-8"))
    for number in (0, 3):
        scene = checkout_scene(list_products(), number=number, seed=SEED)
        assert_same_picture(FIXTURE / f"images/scenes/{number:02d}.jpg", scene.image)
        stored = [one for one in truth["annotations"] if one["image_id"] == number + 1]
        for item, annotation in zip(scene.items, stored, strict=True):
            x, y, width, height = annotation["bbox"]
            assert annotation["sku"] == item.sku
            assert item.box == pytest.approx((x, y, x + width, y + height), abs=1.5)


def draw(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo_catalogue", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=FIXTURE.parents[1])


def test_the_command_draws_products_that_it_invents(tmp_path: Path) -> None:
    done = draw(
        *(
            "--out",
            str(tmp_path),
            "--products",
            "5",
            "--views",
            "1",
            "--queries",
            "3",
            "--scenes",
            "1",
            "--seed",
            "4",
        )
    )
    assert done.returncode == 0, done.stderr
    tables = {}
    for name in ("products", "gallery", "query"):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            tables[name] = list(csv.DictReader(file))
    assert {name: len(rows) for name, rows in tables.items()} == {"products": 5, "gallery": 5, "query": 15}
    invented = {product.sku for product in more_products(5, 4)}
    assert {row["sku"] for row in tables["products"]} == invented
    assert not invented & set(PRODUCTS)
    truth = json.loads((tmp_path / "scenes.json").read_text(encoding="utf-8"))
    assert {one["sku"] for one in truth["annotations"]} == invented
    for row in (*tables["gallery"], *tables["query"]):
        with Image.open(tmp_path / row["image"]) as image:
            assert 0 <= int(row["x1"]) < int(row["x2"]) <= image.width


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--views", "0"], "--views: found 0, want at least 1"),
        (["--products", "4"], "--products: found 4, want at least 5"),
        (["--products", "100000"], "n is 100000; want 0 to 99999"),
    ],
)
def test_the_command_refuses_what_makes_no_catalogue(tmp_path: Path, options: list[str], told: str) -> None:
    done = draw("--out", str(tmp_path / "out"), *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_package_needs_neither_torch_nor_django() -> None:
    code = "import sys, demo_catalogue; assert not {'torch', 'django', 'recognition'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FIXTURE.parents[1])
