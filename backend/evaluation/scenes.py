"""Whole checkout scenes through the whole pipeline: are the baskets right?

A folder of scenes holds `scenes.json` of the COCO format, as the demo catalogue's: images with their file names, and
annotations with `bbox` (x, y, width, height in pixels) and `sku`, or a category that is named by it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings

from backend.catalogue.services import image_limits
from backend.common.problems import Problem
from backend.evaluation.embedding import Over
from backend.evaluation.pictures import Refusal
from backend.evaluation.task import Task, nothing_to_measure
from backend.gallery.loading import get_detector
from backend.gallery.selectors import get_active_detector
from backend.gallery.thresholds import Figure
from recognition.boxes import as_boxes, pairwise_iou
from recognition.detector import MainBodyDetector
from recognition.embedder import ProductEmbedder
from recognition.errors import ImageRefused
from recognition.gallery import Gallery, SearchSettings
from recognition.images import Box
from recognition.metrics import basket_figures, bootstrap_interval
from recognition.pipeline import ImageRecognition, ItemRecognition, ProductRecognizer
from recognition.ranking import Confidence, Result, Thresholds

SCENES_FILE = "scenes.json"
FOUND_FROM_IOU = 0.5

Basket = Mapping[str, int]


@dataclass(frozen=True)
class Scene:
    """A picture of several products.

    Attributes:
        items: SKU and box of each.
    """

    name: str
    read: Callable[[], bytes]
    items: tuple[tuple[str, Box], ...]


@dataclass(frozen=True)
class Scenes:
    """Scenes to evaluate, and the detector that finds their items.

    Attributes:
        refused: annotations that could not be used.
    """

    folder: str
    scenes: tuple[Scene, ...]
    refused: tuple[Refusal, ...]
    detector: MainBodyDetector
    detector_name: str


def open_scenes(folder: Path) -> Scenes:
    """The folder's scenes, with the active detector.

    Raises:
        Problem: 400, the file is missing or holds no scene; 409, no detector is active.
        ModelRefused: the detector does not run as its card says.
    """
    detector = get_active_detector()
    if detector is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "no-detector",
            "--scenes needs a detector; install one with `install_model DIR --activate`",
        )
    refused: list[Refusal] = []
    scenes = list_scenes(folder, refused)
    return Scenes(folder.resolve().name, tuple(scenes), tuple(refused), get_detector(detector), str(detector))


def list_scenes(folder: Path, refused: list[Refusal]) -> list[Scene]:
    """The scenes of a folder; annotations that cannot be used are added to `refused`, and their scenes left out: of
    what lies in one without them nobody knows.

    Raises:
        Problem: 400, the file is missing, cannot be read as a whole, or holds nothing that can be used.
    """
    path = folder / SCENES_FILE
    if not path.is_file():
        raise Problem(
            HTTPStatus.BAD_REQUEST, "file-missing", f"there is no {path}; docs/evaluation.md has its format"
        )
    try:
        scenes = list(_read(folder, json.loads(path.read_text(encoding="utf-8")), refused))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise nothing_to_measure(f"{path} is not of the COCO format: {error!r}") from error
    if not any(scene.items for scene in scenes):
        raise nothing_to_measure(f"{path} holds no annotation that can be used", refused)
    return scenes


def _read(folder: Path, coco: Mapping[str, Any], refused: list[Refusal]) -> Iterator[Scene]:
    names = {category["id"]: str(category["name"]) for category in coco.get("categories", [])}
    items: dict[Any, list[tuple[str, Box]]] = {image["id"]: [] for image in coco["images"]}
    unsure = set()
    for number, one in enumerate(coco["annotations"], start=1):
        try:
            sku = one.get("sku") or names.get(one.get("category_id"))
            if not sku:
                raise ValueError("it names no SKU: sku, or a category that is in categories")
            if one.get("image_id") not in items:
                raise ValueError(f"there is no image {one.get('image_id')!r}")
            x, y, width, height = (float(side) for side in one["bbox"])
            if not (width > 0 and height > 0):
                raise ValueError(f"bbox is {one['bbox']}; wanted x, y, width, height, the last two above 0")
            items[one["image_id"]].append((str(sku), (x, y, x + width, y + height)))
        except (ValueError, TypeError, KeyError) as error:
            refused.append(Refusal(SCENES_FILE, number, str(one.get("image_id")), f"annotation: {error}"))
            unsure.add(one.get("image_id"))
    for image in coco["images"]:
        name = str(image["file_name"])
        if image["id"] in unsure:
            refused.append(Refusal(SCENES_FILE, 0, name, "left out with its annotation that cannot be used"))
            continue
        yield Scene(name, (folder / name).read_bytes, tuple(items[image["id"]]))


@dataclass(frozen=True)
class SearchedBy:
    """What a scene's crops are searched with.

    Attributes:
        name: of the thresholds, for people.
    """

    index: str
    gallery: Gallery
    search: SearchSettings
    thresholds: Thresholds
    confidence: Confidence | None
    name: str


def measure_scenes(
    scenes: Scenes,
    task: Task,
    embedder: ProductEmbedder,
    margin: float,
    by: SearchedBy,
    refused: list[Refusal],
    over: Over[Any],
) -> dict[str, Any]:
    """Recognise each scene and compare its basket with the truth (docs/evaluation.md has the keys).

    Pieces of SKUs that the gallery lacks are no part of the true basket: whatever is recognised in their place is one
    too many. A scene whose picture cannot be read joins `refused`, as what `scenes` refused does.

    Raises:
        Problem: 400, no scene shows a product of the gallery.
        GalleryUnavailable: Milvus does not answer.
    """
    recogniser = ProductRecognizer(
        scenes.detector,
        embedder,
        by.gallery,
        by.thresholds,
        by.search,
        crop_margin=margin,
        max_items=settings.MAX_ITEMS,
        longest_side=settings.DECODE_LONGEST_SIDE,
        limits=image_limits(),
        confidence=by.confidence,
    )
    refused.extend(scenes.refused)
    inside = {task.skus[number] for number in np.unique(task.gallery_products)}
    seen: list[tuple[Scene, ImageRecognition]] = []
    for scene in over("recognising scenes", scenes.scenes):
        try:
            seen.append((scene, recogniser.recognize(scene.read(), keep=lambda product_of: product_of)))
        except OSError as error:
            refused.append(Refusal(SCENES_FILE, 0, scene.name, f"cannot be read: {error.strerror or error}"))
        except ImageRefused as error:
            refused.append(Refusal(SCENES_FILE, 0, scene.name, error.detail))
    truth: list[Basket] = [Counter(sku for sku, _ in scene.items if sku in inside) for scene, _ in seen]
    if not any(truth):
        raise nothing_to_measure("no scene shows a product of the gallery", refused)
    items = [item for _, found in seen for item in found.items]
    return {
        "folder": scenes.folder,
        "detector": scenes.detector_name,
        "index": by.index,
        "strategy": by.search.strategy,
        "thresholds": by.name,
        "n_scenes": len(seen),
        "n_pieces": sum(len(scene.items) for scene, _ in seen),
        "n_pieces_unknown_sku": sum(sku not in inside for scene, _ in seen for sku, _ in scene.items),
        "n_items": len(items),
        "found": _share_found(seen),
        "results": {one.value: _share([item.result is one for item in items]) for one in Result},
        "recognised": _figures(truth, [_basket(found, task, {Result.RECOGNISED}) for _, found in seen]),
        "proposed": _figures(
            truth,
            [_basket(found, task, {Result.RECOGNISED, Result.NEEDS_CONFIRMATION}) for _, found in seen],
        ),
    }


def _share(events: Sequence[bool]) -> float | None:
    return round(float(np.mean(events)), 5) if len(events) else None


def _share_found(seen: Sequence[tuple[Scene, ImageRecognition]]) -> float | None:
    """Of the true boxes, those that an item's box overlaps by FOUND_FROM_IOU."""
    found: list[bool] = []
    for scene, recognition in seen:
        overlap = pairwise_iou(
            as_boxes([box for _, box in scene.items]), as_boxes([item.box for item in recognition.items])
        )
        found += (overlap.max(axis=1, initial=0) >= FOUND_FROM_IOU).tolist()
    return _share(found)


def _basket(found: ImageRecognition, task: Task, counted: set[Result]) -> Basket:
    def sku(item: ItemRecognition) -> str:
        return task.skus[item.candidates[0].product_id]

    return Counter(sku(item) for item in found.items if item.result in counted and item.candidates)


def _figures(truth: Sequence[Basket], answered: Sequence[Basket]) -> dict[str, Figure]:
    """RPC's figures, each with the interval of drawing scenes anew."""
    whole = asdict(basket_figures(truth, answered))
    scenes = np.arange(len(truth))

    def drawn(name: str) -> Callable[[Any], float]:
        def figure(rows: Any) -> float:
            some = [truth[row] for row in rows]
            if not any(some):
                return float("nan")
            value: float = asdict(basket_figures(some, [answered[row] for row in rows]))[name]
            return value

        return figure

    return {
        name: [round(one, 5) for one in (value, *bootstrap_interval(drawn(name), scenes, resamples=300))]
        for name, value in whole.items()
    }
