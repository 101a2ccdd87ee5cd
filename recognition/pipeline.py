"""ProductRecognizer: one query image -> its recognised items. Joins the steps, in the order a person would
tell them.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
    Confidence,
    Result,
    Thresholds,
    decide,
    gather_candidates,
    suppress_doubles,
)

Candidates = tuple[Candidate, ...]
# Given ids of reference images, each with its product's, the ids of those that may be answered.
Keep = Callable[[Mapping[int, int]], Collection[int]]
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
        confidence: 0..1, that the best candidate is what the box shows; None where it was not fitted, or there is no
            candidate.
    """

    box: Box
    detection_score: float | None
    result: Result
    candidates: Candidates
    confidence: float | None = None


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
        confidence: Confidence | None = None,
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
            confidence: fitted to this generation and search strategy; None answers without.
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
        self._confidence = confidence

    def recognize(
        self,
        data: bytes,
        *,
        keep: Keep,
        product_ids: Sequence[int] | None = None,
        candidates: int = 5,
    ) -> ImageRecognition:
        """Recognise the products of one query image.

        Args:
            data: JPEG, PNG or WebP.
            keep: given ids of reference images, each with its product's, returns those that may be answered; asked of
                the best match of the nearest products of all crops at once, and of further ones where it rejects some.
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
        gathered = self._search(embeddings, keep, product_ids, wanted, timings)
        with _timed(timings, "rank"):
            items = tuple(
                self._judge(
                    boxes[i],
                    float(detections.scores[i]) if len(detections) else None,
                    gathered[i],
                    candidates,
                )
                for i in _without_doubles(boxes, gathered)
            )
        return ImageRecognition(image.width, image.height, len(detections) > 0, items, timings)

    def recognize_boxes(
        self,
        data: bytes,
        boxes: NDArray[np.float32],
        *,
        keep: Keep,
        product_ids: Sequence[int] | None = None,
        candidates: int = 5,
    ) -> tuple[ItemRecognition, ...]:
        """Recognise what given boxes show: nothing is detected, and none is dropped as a double.

        Args:
            data: JPEG, PNG or WebP.
            boxes: (N, 4), in pixels of the full upright picture.
            keep: as of `recognize`.
            product_ids: likewise.
            candidates: likewise.
        Returns:
            N items, in the order of the boxes, without detection scores. A box that is too small to be embedded is
            unknown, for it would not have been taken.
        Raises:
            ImageRefused, ModelRefused, GalleryUnavailable, GalleryMismatch: as `recognize`.
        """
        image = decode(data, self._limits, longest_side=self._longest_side)
        crops = [self._crop(image, box) for box in boxes]
        large = [i for i, crop in enumerate(crops) if self._is_large(crop)]
        embeddings = self._embedder.embed([crops[i] for i in large])
        timings = dict.fromkeys(("search", "rank"), 0.0)
        found = self._search(embeddings, keep, product_ids, max(candidates, 2), timings)
        gathered = dict(zip(large, found, strict=True))
        return tuple(self._judge(box, None, gathered.get(i, ()), candidates) for i, box in enumerate(boxes))

    def _judge(
        self,
        box: NDArray[np.float32],
        detection_score: float | None,
        gathered: Candidates,
        candidates: int,
    ) -> ItemRecognition:
        return ItemRecognition(
            box=tuple(box.tolist()),
            detection_score=detection_score,
            result=decide(gathered, self._thresholds),
            candidates=gathered[:candidates],
            confidence=None if self._confidence is None else self._confidence.of_candidates(gathered),
        )

    def _detect(self, image: DecodedImage) -> Detections:
        """The main bodies that are large enough to be embedded; none without a detector."""
        if self._detector is None:
            return Detections(as_boxes([]), np.zeros(0, np.float32))
        found = self._detector.detect(image)
        large = [i for i, box in enumerate(found.boxes) if self._is_large(self._crop(image, box))]
        chosen = large[: self._max_items]
        return Detections(found.boxes[chosen], found.scores[chosen])

    def _is_large(self, crop: NDArray[np.uint8]) -> bool:
        large: bool = min(crop.shape[:2]) >= self._embedder.card.minimum_side_pixels
        return large

    def _crop(self, image: DecodedImage, box: NDArray[np.float32]) -> NDArray[np.uint8]:
        x1, y1, x2, y2 = box.tolist()
        return image.crop((x1, y1, x2, y2), self._crop_margin)

    def _search(
        self,
        embeddings: Embeddings,
        keep: Keep,
        product_ids: Sequence[int] | None,
        wanted: int,
        timings: Timings,
    ) -> list[Candidates]:
        """Each crop's nearest candidates that may be answered. Crops that `keep` leaves short of them are searched
        again.
        """
        candidates: list[Candidates] = [()] * len(embeddings)
        short = list(range(len(embeddings)))
        limit = self._search_settings.matches
        for _ in range(SEARCH_ROUNDS):
            with _timed(timings, "search"):
                found = self._gallery.search(
                    embeddings.take(short),
                    self._search_settings,
                    product_ids=product_ids,
                    limit=limit,
                )
            with _timed(timings, "rank"):
                gathered = [gather_candidates(matches) for matches in found]
                kept = _keep_nearest(gathered, keep, wanted)
            for crop, answerable in zip(short, kept, strict=True):
                candidates[crop] = answerable
            # Rejected products hide others beyond the limit, and one product with many pictures hides the runner-up.
            short = [
                crop
                for crop, matches, all_found, answerable in zip(short, found, gathered, kept, strict=True)
                if len(matches) >= limit and len(answerable) < max(2, min(len(all_found), wanted))
            ]
            if not short:
                break
            limit *= 2
        return candidates


def _keep_nearest(gathered: Sequence[Candidates], keep: Keep, wanted: int) -> list[Candidates]:
    """Of each crop's candidates the nearest `wanted` that may be answered, or all there are.

    No more is asked of `keep` than it takes: each question is a row to read. So a candidate's best match speaks for it;
    where that one may not be answered (its picture was deleted, say) the product stands by its others, if it has any.
    """
    may_be_answered: dict[int, bool] = {}

    def ask(matches: Iterable[Match]) -> None:
        new = {
            match.reference_image_id: match.product_id
            for match in matches
            if match.reference_image_id not in may_be_answered
        }
        if new:
            kept = keep(new)
            may_be_answered.update((image, image in kept) for image in new)

    rows, depth = list(gathered), wanted
    while True:
        nearest = [one for row in rows for one in row[:depth]]
        ask(one.matches[0] for one in nearest)
        fallen = [one for one in nearest if not may_be_answered[one.matches[0].reference_image_id]]
        if not fallen:
            return [row[:wanted] for row in rows]
        ask(match for one in fallen for match in one.matches)
        rows = [
            gather_candidates(
                match
                for one in row
                for match in one.matches
                if may_be_answered.get(match.reference_image_id, True)
            )
            for row in rows
        ]
        depth *= 2


def _without_doubles(boxes: NDArray[np.float32], gathered: Sequence[Candidates]) -> list[int]:
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
