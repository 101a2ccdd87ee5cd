"""From pictures to embeddings, as the service makes them; what cannot be embedded is named and left out."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from django.conf import settings
from django.core.exceptions import ValidationError
from numpy.typing import NDArray

from backend.catalogue.models import check_box
from backend.catalogue.services import image_limits
from backend.evaluation.pictures import Picture, Refusal
from recognition import images
from recognition.detector import MainBodyDetector, main_body
from recognition.embedder import Embeddings, ProductEmbedder
from recognition.errors import ImageRefused
from recognition.images import Box, DecodedImage

Crop = Literal["none", "box", "detect"]

BATCH = 8
# Decoding runs this far ahead of the embedder, in threads of its own.
THREADS = 2
AHEAD = 4 * BATCH

Step = TypeVar("Step")
# Walks over the steps of a stage, whose name comes first, and may show how far it is.
Over = Callable[[str, Sequence[Step]], Iterable[Step]]


@dataclass(frozen=True)
class Cropping:
    """What of a picture is embedded.

    Attributes:
        mode: none: the whole picture; box: the box that is given with it, else the whole; detect: the main body
            that the detector finds, else the whole.
        detector: where the mode is detect.
        margin: share of the box's side that is added on each side.
        minimum_side: of a crop, in pixels.
    """

    mode: Crop
    detector: MainBodyDetector | None
    margin: float
    minimum_side: int

    def cut(self, image: DecodedImage, given: Box | None) -> NDArray[np.uint8]:
        """The crop, (h, w, 3) RGB.

        Raises:
            ValidationError: the given box is not inside the picture.
            ImageRefused: too small for the embedder.
        """
        box = self._box(image, given)
        crop = image.pixels if box is None else image.crop(box, self.margin)
        height, width = crop.shape[:2]
        if min(height, width) < self.minimum_side:
            raise ImageRefused(
                "too-small",
                f"Found a crop of {width} x {height} pixels, wanted at least {self.minimum_side} a side.",
            )
        return crop

    def _box(self, image: DecodedImage, given: Box | None) -> Box | None:
        if self.mode == "box" and given is not None:
            check_box(given, image.width, image.height)
            return given
        if self.detector is not None:
            return main_body(self.detector.detect(image), image.width, image.height)
        return None


@dataclass(frozen=True)
class EmbeddedPictures:
    """Pictures and, row by row, their embeddings.

    Attributes:
        keys: tell which are one and the same: product, content and, where boxes are cut out, box.
        sha256: of each picture's bytes.
    """

    pictures: tuple[Picture, ...]
    keys: tuple[str, ...]
    sha256: tuple[str, ...]
    embeddings: Embeddings

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class _Prepared:
    picture: Picture
    key: str
    sha256: str
    crop: NDArray[np.uint8]


def embed_pictures(
    stage: str,
    pictures: Sequence[Picture],
    embedder: ProductEmbedder,
    cropping: Cropping,
    refused: list[Refusal],
    over: Over[Picture],
) -> EmbeddedPictures:
    """Embed what can be embedded; the rest is added to `refused`, as is a picture that comes twice for a product."""
    kept: dict[str, tuple[Picture, str]] = {}  # and its SHA-256
    parts = [embedder.embed([])]
    batch: list[_Prepared] = []
    for prepared in _prepared_ahead(over(stage, pictures), cropping):
        if isinstance(prepared, Refusal):
            refused.append(prepared)
        elif prepared.key in kept:
            first = kept[prepared.key][0]
            refused.append(Refusal.of(prepared.picture, f"the same picture as in row {first.row}"))
        else:
            kept[prepared.key] = (prepared.picture, prepared.sha256)
            batch.append(prepared)
        if len(batch) == BATCH:
            parts.append(embedder.embed([one.crop for one in batch]))
            batch.clear()
    parts.append(embedder.embed([one.crop for one in batch]))
    return EmbeddedPictures(
        tuple(picture for picture, _ in kept.values()),
        tuple(kept),
        tuple(sha256 for _, sha256 in kept.values()),
        Embeddings.concatenate(parts),
    )


def _prepared_ahead(pictures: Iterable[Picture], cropping: Cropping) -> Iterator[_Prepared | Refusal]:
    waiting: deque[Future[_Prepared | Refusal]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for picture in pictures:
            waiting.append(pool.submit(_prepare, picture, cropping))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _prepare(picture: Picture, cropping: Cropping) -> _Prepared | Refusal:
    try:
        data = picture.read()
        image = images.decode(data, image_limits(), longest_side=settings.DECODE_LONGEST_SIDE)
        crop = cropping.cut(image, picture.box)
    except OSError as error:
        return Refusal.of(picture, f"cannot be read: {error.strerror or error}")
    except ImageRefused as error:
        return Refusal.of(picture, error.detail)
    except ValidationError as error:
        return Refusal.of(picture, " ".join(error.messages))
    box = picture.box if cropping.mode == "box" else None
    sha256 = hashlib.sha256(data).hexdigest()
    return _Prepared(picture, f"{picture.sku} {sha256} {box}", sha256, crop)
