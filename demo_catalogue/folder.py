"""Writes the demo catalogue as a folder that the service imports: tables, pictures, and scenes with their truth."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from demo_catalogue.products import DemoProduct
from demo_catalogue.randomness import generator
from demo_catalogue.scenes import Box, Scene, SceneItem, render_reference, render_scene
from demo_catalogue.surroundings import Background

QUERIES_PER_PRODUCT = 2
SCENE_SIZE = (1280, 800)
PRODUCTS_PER_SCENE = 5
JPEG_QUALITY = 80

_PLACES: tuple[Background, ...] = ("conveyor", "wood", "scale", "shelf", "cloth")
_QUERY_SIDE = 320  # pixels of the longer side at most
_QUERY_MARGIN = 0.12  # of the box's sides, left around a query crop


def write_folder(
    out: Path,
    products: Sequence[DemoProduct],
    *,
    views: int,
    queries: int = QUERIES_PER_PRODUCT,
    scenes: int,
    seed: int,
) -> None:
    """Write a catalogue.

    products.csv, gallery.csv and query.csv are of the folder format that `manage.py import_catalogue` and
    `evaluate_recall` read (boxes x1, y1, x2, y2 in pixels); scenes.json is of the COCO format, its categories the
    products, named by SKU.

    Args:
        out: Folder, made where it is missing; files of the same names are replaced.
        products: The demo's (`list_products`), or invented ones (`more_products`); at least PRODUCTS_PER_SCENE.
        views: Reference pictures a product.
        queries: Query pictures a product.
        scenes: Checkout scenes.
        seed: Of all pictures.
    """
    out.mkdir(parents=True, exist_ok=True)
    columns = ("sku", "gtin", "name", "brand", "category", "price", "currency", "description")
    _write_table(
        out / "products.csv",
        columns,
        ([getattr(product, column) for column in columns] for product in products),
    )
    gallery_rows, query_rows = [], []
    for product in products:
        for view in range(views):
            name = f"images/gallery/{product.sku}-{view}.jpg"
            picture = render_reference(product, view=view, seed=seed)
            _save(picture.image, out / name)
            gallery_rows.append((name, product.sku, *_whole(picture.items[0].box)))
        for number in range(queries):
            name = f"images/query/{product.sku}-{number}.jpg"
            image, box = query_crop(product, products, number=number, seed=seed)
            _save(image, out / name)
            query_rows.append((name, product.sku, *_whole(box)))
    _write_table(out / "gallery.csv", ("image", "sku", "x1", "y1", "x2", "y2"), gallery_rows)
    _write_table(out / "query.csv", ("image", "sku", "x1", "y1", "x2", "y2"), query_rows)
    drawn = []
    for number in range(scenes):
        scene = checkout_scene(products, number=number, seed=seed)
        name = f"images/scenes/{number:02d}.jpg"
        _save(scene.image, out / name)
        drawn.append((name, scene))
    truth = _coco(drawn, products)
    (out / "scenes.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def checkout_scene(products: Sequence[DemoProduct], *, number: int, seed: int) -> Scene:
    """Draw one of a catalogue's checkout scenes: five products chosen by the seed, each scene elsewhere."""
    chosen = generator("demo scene", number, seed).choice(len(products), PRODUCTS_PER_SCENE, replace=False)
    return render_scene(
        [products[index] for index in chosen.tolist()],
        seed=seed * 1000 + number,
        size=SCENE_SIZE,
        background=_PLACES[number % len(_PLACES)],
    )


def query_crop(
    product: DemoProduct, products: Sequence[DemoProduct], *, number: int, seed: int
) -> tuple[Image.Image, Box]:
    """Cut a product out of a checkout scene in which two others lie beside it.

    Args:
        product: Of which.
        products: Of which the others are two.
        number: Which of its query pictures.
        seed: Another seed, other pictures.
    Returns:
        The picture, and the product's box in it.
    """
    random = generator("query", product.sku, number, seed)
    others = [other for other in products if other.sku != product.sku]
    item = None
    while item is None:  # another scene where the others hide it
        beside = [others[index] for index in random.choice(len(others), 2, replace=False).tolist()]
        scene = render_scene([product, *beside], seed=int(random.integers(2**31)), size=(800, 600))
        item = next((item for item in scene.items if item.sku == product.sku), None)
    x1, y1, x2, y2 = item.box
    along, down = _QUERY_MARGIN * (x2 - x1), _QUERY_MARGIN * (y2 - y1)
    left, top = max(0, round(x1 - along)), max(0, round(y1 - down))
    right, bottom = min(scene.image.width, round(x2 + along)), min(scene.image.height, round(y2 + down))
    crop = scene.image.crop((left, top, right, bottom))
    scale = min(1.0, _QUERY_SIDE / max(crop.size))
    size = (round(crop.width * scale), round(crop.height * scale))
    across, along = size[0] / crop.width, size[1] / crop.height
    box = ((x1 - left) * across, (y1 - top) * along, (x2 - left) * across, (y2 - top) * along)
    return crop.resize(size, Image.Resampling.LANCZOS), box


def _coco(drawn: Sequence[tuple[str, Scene]], products: Sequence[DemoProduct]) -> dict[str, object]:
    """The truth of scenes in the COCO format, each annotation with its SKU and visible share besides."""
    category = {product.sku: number for number, product in enumerate(products, start=1)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []

    def annotated(image_id: int, item: SceneItem) -> dict[str, object]:
        x1, y1, x2, y2 = item.box
        return {
            "id": len(annotations) + 1,
            "image_id": image_id,
            "category_id": category[item.sku],
            "sku": item.sku,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "visible_share": round(item.visible_share, 4),
        }

    for image_id, (name, scene) in enumerate(drawn, start=1):
        images.append(
            {"id": image_id, "file_name": name, "width": scene.image.width, "height": scene.image.height}
        )
        for item in scene.items:
            annotations.append(annotated(image_id, item))
    categories = [{"id": number, "name": sku} for sku, number in category.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _whole(box: Box) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (round(value) for value in box)
    return x1, y1, x2, y2


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=JPEG_QUALITY, optimize=True)
