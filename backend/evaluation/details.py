"""What lies behind an evaluation's figures: which products are confused, which queries went wrong, what to photograph.

All by exact search, so that it says of the embedder and the pictures and not of an index.
"""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.catalogue.services import image_limits
from backend.evaluation.embedding import EmbeddedPictures
from backend.evaluation.pictures import Picture
from backend.evaluation.task import Task
from recognition import images
from recognition.calibration import Searched
from recognition.errors import ImageRefused
from recognition.ranking import LOWEST

CONFUSIONS_KEPT = 12
WORST_KEPT = 20
PRODUCTS_KEPT = 200
BINS = 40  # of a histogram over -1 to 1
THUMBNAIL_SIDE = 112
# A product of which fewer are found rightly, or that has fewer pictures, is advised on.
WELL_FOUND = 0.9
FEW_PICTURES = 3


@dataclass(frozen=True)
class Details:
    """What is behind the figures (docs/evaluation.md has the keys), and the pictures that it names, as data URIs."""

    histograms: dict[str, Any]
    confusions: tuple[dict[str, Any], ...]
    worst: tuple[dict[str, Any], ...]
    products: tuple[dict[str, Any], ...]
    pictures: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """A task's queries and what exact search found for them.

    Attributes:
        found: (Q, K), rows of the gallery from the nearest on.
        searched: of the same queries.
    """

    task: Task
    gallery: EmbeddedPictures
    query: EmbeddedPictures
    found: NDArray[np.intp]
    searched: Searched

    def query_picture(self, row: int) -> Picture:
        return self.query.pictures[self.task.query_rows[row]]

    def nearest_picture(self, row: int) -> Picture:
        """Of the product that is answered in place of the right one."""
        return self.gallery.pictures[self.task.gallery_rows[self._nearest_wrong(row)]]

    def answered(self, row: int) -> str:
        """SKU that is answered in place of the right one."""
        return self.task.skus[self.task.gallery_products[self._nearest_wrong(row)]]

    def _nearest_wrong(self, row: int) -> int:
        # Not always the first: a picture that two products share is the right one's too, and wrong all the same.
        found = self.found[row][self.found[row] >= 0]
        wrong = self.task.gallery_products[found] != self.task.query_products[row]
        return int(found[wrong.argmax()])

    def shown(self, row: int) -> str:
        """SKU of what the query shows."""
        return self.task.skus[self.task.query_products[row]]


def describe_details(asked: Asked) -> Details:
    """Look behind the figures."""
    searched = asked.searched
    best = np.maximum(searched.right, searched.wrong)
    is_right = searched.known & (searched.right > searched.wrong)
    wrong_rows = np.flatnonzero(searched.known & ~is_right)
    thumbnails = _Thumbnails()
    return Details(
        histograms=_histograms(best, is_right, searched.known),
        confusions=_confusions(asked, wrong_rows, thumbnails),
        worst=_worst(asked, best, wrong_rows, thumbnails),
        products=_products(asked, is_right),
        pictures=thumbnails.kept,
    )


def _histograms(
    best: NDArray[np.float64], is_right: NDArray[np.bool_], known: NDArray[np.bool_]
) -> dict[str, Any]:
    def counts(chosen: NDArray[np.bool_]) -> list[int]:
        found, _ = np.histogram(best[chosen], BINS, (-1, 1))
        return [int(n) for n in found]

    return {"right": counts(is_right), "wrong": counts(known & ~is_right), "strangers": counts(~known)}


def _confusions(
    asked: Asked, wrong_rows: NDArray[np.intp], thumbnails: "_Thumbnails"
) -> tuple[dict[str, Any], ...]:
    pairs = Counter((asked.shown(row), asked.answered(row)) for row in wrong_rows)
    asked_of = Counter(asked.shown(int(row)) for row in np.flatnonzero(asked.task.known))
    found = []
    for (shown, answered), n in pairs.most_common(CONFUSIONS_KEPT):
        row = next(row for row in wrong_rows if (asked.shown(row), asked.answered(row)) == (shown, answered))
        found.append(
            {
                "sku": shown,
                "answered": answered,
                "n": n,
                "n_query": asked_of[shown],
                "query": thumbnails.of(asked.query_picture(row)),
                "nearest": thumbnails.of(asked.nearest_picture(row)),
            }
        )
    return tuple(found)


def _worst(
    asked: Asked, best: NDArray[np.float64], wrong_rows: NDArray[np.intp], thumbnails: "_Thumbnails"
) -> tuple[dict[str, Any], ...]:
    right = asked.searched.right
    order = wrong_rows[np.argsort(-(best - right)[wrong_rows], kind="stable")][:WORST_KEPT]
    return tuple(
        {
            "picture": asked.query_picture(row).name,
            "sku": asked.shown(row),
            "answered": asked.answered(row),
            "similarity": round(float(best[row]), 4),
            "right_similarity": None if right[row] <= LOWEST else round(float(right[row]), 4),
            "query": thumbnails.of(asked.query_picture(row)),
            "nearest": thumbnails.of(asked.nearest_picture(row)),
        }
        for row in order
    )


def _products(asked: Asked, is_right: NDArray[np.bool_]) -> tuple[dict[str, Any], ...]:
    """The gallery's products, those that most want a picture first."""
    task = asked.task
    n_pictures = np.bincount(task.gallery_products)
    found = []
    rows_of: dict[int, list[int]] = {}
    for row in np.flatnonzero(task.known):
        rows_of.setdefault(int(task.query_products[row]), []).append(int(row))
    for product, n in enumerate(n_pictures.tolist()):
        rows = rows_of.get(product, [])
        share = float(is_right[rows].mean()) if rows else None
        wrongly = Counter(asked.answered(row) for row in rows if not is_right[row])
        taken_for = wrongly.most_common(1)[0][0] if wrongly else None
        found.append(
            {
                "sku": task.skus[product],
                "n_pictures": n,
                "n_query": len(rows),
                "right": None if share is None else round(share, 4),
                "taken_for": taken_for,
                "advice": _advise(n, share, taken_for),
            }
        )
    # Those that were found worst; then those that nobody asked for and that want a picture.
    found.sort(
        key=lambda one: (one["right"] is None, one["right"] or 0.0, not one["advice"], one["n_pictures"])
    )
    return tuple(found[:PRODUCTS_KEPT])


def _advise(n_pictures: int, right: float | None, taken_for: str | None) -> str:
    """What to photograph next."""
    if right is None and n_pictures == 1:
        return "a second picture: with one it cannot be checked"
    if n_pictures < FEW_PICTURES:
        return "more sides of it, and the light it will be seen in"
    if right is not None and right < WELL_FOUND and taken_for is not None:
        return f"what tells it from {taken_for}, close and straight on"
    return ""


class _Thumbnails:
    """Small pictures as data URIs, each made once."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def of(self, picture: Picture) -> str | None:
        """The key of the picture's thumbnail; None where it cannot be read any more."""
        key = f"{picture.file}:{picture.row}"
        if key not in self.kept:
            try:
                image = images.decode(picture.read(), image_limits(), longest_side=4 * THUMBNAIL_SIDE)
            except (OSError, ImageRefused):
                return None
            pixels = image.pixels if picture.box is None else image.crop(picture.box, 0.0)
            height, width = pixels.shape[:2]
            scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
            small = images.resize(
                pixels,
                max(1, round(width * scale)),
                max(1, round(height * scale)),
                interpolation="bilinear",
                antialias=True,
            )
            jpeg = base64.b64encode(images.encode_jpeg(small, quality=75)).decode()
            self.kept[key] = f"data:image/jpeg;base64,{jpeg}"
        return key


def with_pictures(rows: Sequence[dict[str, Any]], pictures: dict[str, str]) -> list[dict[str, Any]]:
    """The rows with their pictures in place of the keys."""
    return [
        row | {"query": pictures.get(row["query"] or ""), "nearest": pictures.get(row["nearest"] or "")}
        for row in rows
    ]
