"""ProductRecognizer: one query image -> its recognised items. Joins the steps, in the order a person would
tell them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recognition.boxes import as_boxes
from recognition.detector import Detections, MainBodyDetector
from recognition.embedder import Embeddings, ProductEmbedder
from recognition.gallery import Gallery, Match, SearchSettings
from recognition.images import DEFAULT_LIMITS, Box, DecodedImage, ImageLimits, decode
from recognition.ranking import (
    Candidate,
    Result,
    Thresholds,
    decide,
    gather_candidates,
    suppress_doubles,
)

Matches = list[list[Match]]
Timings = dict[str, float]

# Where too many of a crop's matches are rejected, the search is repeated with twice the matches, so many times.
SEARCH_ROUNDS = 5


@dataclass(frozen=True)
class ItemRecognition:
    """One box of a query image and what it may be.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the full upright picture.
        detection_score: the detector's, 0..1; None where the box is the whole picture for want of another.
        result: what may be said of it.
        candidates: best first; none where the gallery holds nothing.
    """

    box: Box
    detection_score: float | None
    result: Result
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class ImageRecognition:
    """What is in one query image.

    Attributes:
        width: of the full upright picture.
        height: likewise.
        main_body_found: False where the whole picture is the only box.
        items: best detection first.
        timings_ms: milliseconds of decode, detect, embed, search and rank.
    """

    width: int
    height: int
    main_body_found: bool
    items: tuple[ItemRecognition, ...]
    timings_ms: Timings


class ProductRecognizer:
    """Recognises the products of query images with one generation and one threshold set. Threads may share
    it.
    """

    def __init__(
        self,
        detector: MainBodyDetector | None,
        embedder: ProductEmbedder,
        gallery: Gallery,
        thresholds: Thresholds,
        search_settings: SearchSettings,
        *,
        crop_margin: float,
        max_items: int,
        longest_side: int = 1920,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        """
        Args:
            detector: None takes the whole picture as the one box.
            embedder: the one that built the gallery.
            gallery: of the generation.
            thresholds: fitted to this generation and search strategy.
            search_settings: how to search.
            crop_margin: share of a box's side added on each side, as when the gallery was built.
            max_items: at most so many boxes, the best detections first.
            longest_side: pictures are decoded to at most this many pixels a side; more keeps small products
                readable and costs time.
            limits: for query images.
        """
        self._detector = detector
        self._embedder = embedder
        self._gallery = gallery
        self._thresholds = thresholds
        self._search_settings = search_settings
        self._crop_margin = crop_margin
        self._max_items = max_items
        self._longest_side = longest_side
        self._limits = limits

    def recognize(
        self,
        data: bytes,
        *,
        keep: Callable[[Matches], Matches],
        product_ids: Sequence[int] | None = None,
        candidates: int = 5,
    ) -> ImageRecognition:
        """Recognise the products of one query image.

        Args:
            data: JPEG, PNG or WebP.
            keep: given each crop's matches, returns those whose product may be answered; called once a search
                round.
            product_ids: search among these products only.
            candidates: at most so many for each item.
        Raises:
            ImageRefused: the picture cannot be used.
            ModelRefused: a model does not give what its card says.
            GalleryUnavailable: Milvus does not answer.
            GalleryMismatch: the generation's collections are not there.
        """
        timings = dict.fromkeys(("decode", "detect", "embed", "search", "rank"), 0.0)
        with _timed(timings, "decode"):
            image = decode(data, self._limits, longest_side=self._longest_side)
        with _timed(timings, "detect"):
            detections = self._detect(image)
        with _timed(timings, "embed"):
            boxes = detections.boxes if len(detections) else as_boxes([(0, 0, image.width, image.height)])
            embeddings = self._embedder.embed([self._crop(image, box) for box in boxes])
        # The runner-up decides too, even when only the best is asked for.
        wanted = max(candidates, 2)
        matches = self._search(embeddings, keep, product_ids, wanted, timings)
        with _timed(timings, "rank"):
            gathered = [gather_candidates(found, wanted) for found in matches]
            items = tuple(
                ItemRecognition(
                    box=tuple(boxes[i].tolist()),
                    detection_score=float(detections.scores[i]) if len(detections) else None,
                    result=decide(gathered[i], self._thresholds),
                    candidates=gathered[i][:candidates],
                )
                for i in _without_doubles(boxes, gathered)
            )
        return ImageRecognition(image.width, image.height, len(detections) > 0, items, timings)

    def _detect(self, image: DecodedImage) -> Detections:
        """The main bodies that are large enough to be embedded; none without a detector."""
        if self._detector is None:
            return Detections(as_boxes([]), np.zeros(0, np.float32))
        found = self._detector.detect(image)
        minimum = self._embedder.card.minimum_side_pixels
        large = [i for i, box in enumerate(found.boxes) if min(self._crop(image, box).shape[:2]) >= minimum]
        chosen = large[: self._max_items]
        return Detections(found.boxes[chosen], found.scores[chosen])

    def _crop(self, image: DecodedImage, box: NDArray[np.float32]) -> NDArray[np.uint8]:
        x1, y1, x2, y2 = box.tolist()
        return image.crop((x1, y1, x2, y2), self._crop_margin)

    def _search(
        self,
        embeddings: Embeddings,
        keep: Callable[[Matches], Matches],
        product_ids: Sequence[int] | None,
        wanted: int,
        timings: Timings,
    ) -> Matches:
        """Each crop's matches that may be answered. Crops that `keep` leaves short of products are searched
        again.
        """
        matches: Matches = [[] for _ in range(len(embeddings))]
        short = list(range(len(embeddings)))
        limit = self._search_settings.matches
        for _ in range(SEARCH_ROUNDS):
            with _timed(timings, "search"):
                found = self._gallery.search(
                    Embeddings(embeddings.vectors[short], embeddings.hash_codes[short]),
                    self._search_settings,
                    product_ids=product_ids,
                    limit=limit,
                )
            with _timed(timings, "rank"):
                kept = keep(found)
            for crop, answerable in zip(short, kept, strict=True):
                matches[crop] = answerable
            short = [
                crop
                for crop, all_found, answerable in zip(short, found, kept, strict=True)
                if len(all_found) >= limit and _is_short(all_found, answerable, wanted)
            ]
            if not short:
                break
            limit *= 2
        return matches


def _is_short(found: list[Match], kept: list[Match], wanted: int) -> bool:
    """Whether rejected matches hide products, or one product with many pictures hides the runner-up."""
    n_products = len({match.product_id for match in kept})
    return n_products < 2 or (len(kept) < len(found) and n_products < wanted)


def _without_doubles(boxes: NDArray[np.float32], gathered: Sequence[tuple[Candidate, ...]]) -> list[int]:
    best = [candidates[0] if candidates else None for candidates in gathered]
    return suppress_doubles(
        boxes,
        [None if candidate is None else candidate.product_id for candidate in best],
        [-1.0 if candidate is None else candidate.similarity for candidate in best],
    )


@contextmanager
def _timed(timings: Timings, step: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[step] += (time.perf_counter() - started) * 1000
