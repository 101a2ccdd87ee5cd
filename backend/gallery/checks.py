"""What the gallery says of a picture before it is in it: quality, what it repeats, what it resembles, what it harms.

Runs where the models are loaded, and stores nothing. Nothing is refused here: who asks decides what a finding means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from django.conf import settings
from django.db.models import Count
from numpy.typing import NDArray

from backend.catalogue.models import BoxSource, Product, ReferenceImage
from backend.common.words import counted
from backend.gallery.enrolment import STORED, propose_box
from backend.gallery.loading import get_detector, get_embedder, get_gallery
from backend.gallery.models import Embedding, EmbeddingState, Generation
from backend.gallery.neighbours import Change, Effect, find_effect, find_nearest_of_product
from backend.gallery.selectors import get_active_detector, get_threshold_set
from backend.gallery.thresholds import get_thresholds, search_settings
from recognition import images
from recognition.duplicates import are_near_duplicates
from recognition.embedder import Embeddings
from recognition.gallery import Match, embeddings_of
from recognition.images import Box, DecodedImage, as_box

Pixels = NDArray[np.uint8]

NEAR_DUPLICATE = "near-duplicate"
CLOSER = "closer-to-another-product"
WORSENS = "worsens-neighbours"

# Of a picture's neighbours so many are compared with it pixel by pixel: whatever repeats it is among the nearest.
COMPARED = 5
COMPARED_FROM_SIDE = 512

# What recognition.images.quality_findings says, as a sentence.
QUALITY = {
    "small": "the main body has few pixels: go nearer, or send a larger picture",
    "dark": "the main body is dark: give it more light",
    "bright": "the main body is washed out: give it less light, or expose for it",
    "low-contrast": "the main body has hardly any contrast: it shows little that tells the product apart",
    "blurred": "the main body is blurred: hold the camera still, or focus anew",
}
FINDINGS = [*QUALITY, NEAR_DUPLICATE, CLOSER, WORSENS]


@dataclass(frozen=True)
class Finding:
    """One thing that speaks against a picture.

    Attributes:
        finding: a word of recognition.images.quality_findings, or NEAR_DUPLICATE, CLOSER, WORSENS.
        detail: a sentence for people.
        reference_image: of the gallery, that it is about; None where it is about the picture alone.
        sku: of that picture's product.
    """

    finding: str
    detail: str
    reference_image: int | None = None
    sku: str | None = None


@dataclass(frozen=True)
class Nearest:
    """A picture of the gallery that is near."""

    reference_image: int
    sku: str
    name: str
    similarity: float


@dataclass(frozen=True)
class Changed:
    """A picture of the gallery that would find the checked one first.

    Attributes:
        reference_image: of the gallery.
        sku: of the product that it shows.
        name: of that product.
        similarity_before: to what it finds first now; None where it finds nothing.
        similarity: to the checked picture.
    """

    reference_image: int
    sku: str
    name: str
    similarity_before: float | None
    similarity: float


@dataclass(frozen=True)
class PictureCheck:
    """What the active generation says of a picture for a product.

    Attributes:
        generation: that was asked.
        width: of the upright picture, in pixels.
        height: likewise.
        box: of the main body, in pixels of it: the one given, else the one that would be proposed.
        box_source: who says so.
        findings: what speaks against the picture; none is good.
        own: the nearest picture of the same product; None while the product has none that is embedded.
        other: the nearest picture of another product.
        finds_own_product: whether the picture, asked as a photo, finds its own product first; None as `own`.
        worse: pictures of other products that find their own product first now, and would find this picture.
        better: pictures of its own product that find another product first now, and would find this picture.
        exact_from: as neighbours.Effect has it.
        n_alone: of the pictures looked at, those that are their product's only one: without them nothing is right to
            find, so that nobody can say whether this picture would make them wrong.
    """

    generation: int
    width: int
    height: int
    box: tuple[float, float, float, float]
    box_source: str
    findings: tuple[Finding, ...]
    own: Nearest | None
    other: Nearest | None
    finds_own_product: bool | None
    worse: tuple[Changed, ...]
    better: tuple[Changed, ...]
    exact_from: float | None
    n_alone: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def check_picture(
    generation: Generation, product: Product, picture: bytes, box: Sequence[float] | None = None
) -> PictureCheck:
    """Judge a picture that may become one of the product's reference images.

    Args:
        picture: as it would be stored: upright JPEG, bounded.
        box: of the main body, in its pixels; None: the detector's proposal, else the whole picture.
    Raises:
        ImageRefused: too-small, the main body is smaller than the embedder takes: it could not be embedded.
        GalleryUnavailable: Milvus does not answer.
    """
    decoded = images.decode(picture, STORED)
    if box is None:
        model = get_active_detector()
        chosen, source = propose_box(decoded, None if model is None else get_detector(model))
    else:
        chosen, source = as_box(box), BoxSource.PERSON
    crop = decoded.crop(chosen, generation.crop_margin)
    embedding = get_embedder(generation.embedder).embed([crop])
    seen = _look(generation, product, decoded.pixels, crop, embedding)
    quality = (Finding(name, QUALITY[name]) for name in images.quality_findings(crop))
    return PictureCheck(
        generation=generation.pk,
        width=decoded.width,
        height=decoded.height,
        box=chosen,
        box_source=source.value,
        findings=(*quality, *_find_faults(generation, product, seen)),
        own=None if seen.own is None else seen.describe(seen.own),
        other=None if seen.other is None else seen.describe(seen.other),
        finds_own_product=seen.finds_own_product,
        worse=tuple(map(seen.describe_change, seen.effect.worse)),
        better=tuple(map(seen.describe_change, seen.effect.better)),
        exact_from=None if seen.effect.exact_from is None else round(seen.effect.exact_from, 4),
        n_alone=seen.n_alone,
    )


def check_embedded(generation: Generation, image: ReferenceImage) -> list[Finding] | None:
    """Judge a reference image that is embedded, as if it were not in the gallery yet. Needs no model.

    Returns:
        What speaks against it; None while this revision of it is not embedded.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    row = Embedding.objects.filter(
        generation=generation,
        reference_image_id=image.pk,
        state=EmbeddingState.EMBEDDED,
        revision=image.revision,
    )
    entries = get_gallery(generation).fetch([image.pk]) if row.exists() else []
    if not entries:
        return None
    embedding = embeddings_of(entries)
    seen = _look(generation, image.product, *_open(image, generation), embedding, without=image.pk)
    quality = [Finding(name, QUALITY[name]) for name in image.quality_findings if name in QUALITY]
    return [*quality, *_find_faults(generation, image.product, seen)]


def _open(image: ReferenceImage, generation: Generation) -> tuple[Pixels, Pixels]:
    """A stored picture and its crop, small."""
    with image.image.open("rb") as file:
        small = images.decode(file.read(), STORED, longest_side=COMPARED_FROM_SIDE)
    whole: Box = (0.0, 0.0, float(image.width), float(image.height))
    box = whole if image.box is None else as_box(image.box)
    full = DecodedImage(small.pixels, image.width, image.height, small.format)
    return small.pixels, full.crop(box, generation.crop_margin)


@dataclass(frozen=True)
class _Seen:
    """What is in the gallery round a picture.

    Attributes:
        effect: of the picture on its neighbours.
        own: the nearest picture of its own product.
        other: the nearest picture of another.
        repeated: of its neighbours those that are the same shot.
        names: SKU and name by product id.
        n_alone: as of PictureCheck.
    """

    effect: Effect
    own: Match | None
    other: Match | None
    repeated: tuple[Match, ...]
    names: Mapping[int, tuple[str, str]]
    n_alone: int

    @property
    def finds_own_product(self) -> bool | None:
        if self.own is None:
            return None
        own, other = self.own, self.other
        return other is None or (-own.similarity, own.product_id) < (-other.similarity, other.product_id)

    def describe(self, match: Match) -> Nearest:
        sku, name = self.names[match.product_id]
        return Nearest(match.reference_image_id, sku, name, round(match.similarity, 4))

    def describe_change(self, change: Change) -> Changed:
        sku, name = self.names[change.product_id]
        before = None if change.similarity_before is None else round(change.similarity_before, 4)
        return Changed(change.reference_image_id, sku, name, before, round(change.similarity, 4))


def _look(
    generation: Generation,
    product: Product,
    whole: Pixels,
    crop: Pixels,
    embedding: Embeddings,
    without: int | None = None,
) -> _Seen:
    gallery, how = get_gallery(generation), search_settings()
    effect = find_effect(gallery, embedding, product.pk, how, without=without)
    own = next((match for match in effect.matches if match.product_id == product.pk), None)
    if own is None and effect.exact_from is not None:
        # Farther than all that was looked at, which is worth knowing.
        own = find_nearest_of_product(gallery, embedding, product.pk, how, without=without)
    other = next((match for match in effect.matches if match.product_id != product.pk), None)
    shown = {match.product_id for match in effect.matches} | {product.pk}
    rows = list(
        Product.objects.filter(pk__in=shown)
        .annotate(n=Count("reference_images"))
        .values_list("pk", "sku", "name", "n")
    )
    alone = {pk for pk, _, _, n in rows if n == 1 and pk != product.pk}
    return _Seen(
        effect,
        own,
        other,
        tuple(match for match in effect.matches[:COMPARED] if _repeats(match, whole, crop, generation)),
        {pk: (sku, name) for pk, sku, name, _ in rows},
        sum(match.product_id in alone for match in effect.matches),
    )


def _repeats(match: Match, whole: Pixels, crop: Pixels, generation: Generation) -> bool:
    """Whether a picture of the gallery is the same shot: as a whole, for its box may be another, or in its crop."""
    image = ReferenceImage.objects.filter(pk=match.reference_image_id).first()
    if image is None:
        return False
    try:
        stored, stored_crop = _open(image, generation)
    except FileNotFoundError:
        return False  # deleted this moment
    return are_near_duplicates(whole, stored) or are_near_duplicates(crop, stored_crop)


def _find_faults(generation: Generation, product: Product, seen: _Seen) -> list[Finding]:
    """What speaks against a picture, by what is round it."""
    faults = []
    for match in seen.repeated:
        sku, name = seen.names[match.product_id]
        whose = "this product has" if match.product_id == product.pk else f"{sku} {name} has"
        detail = f"{whose} the same shot already, as picture {match.reference_image_id}"
        faults.append(Finding(NEAR_DUPLICATE, detail, match.reference_image_id, sku))
    if seen.other is not None and not seen.finds_own_product:
        faults += _tell_closer(generation, seen.own, seen.other, seen)
    if seen.effect.worse:
        first = seen.effect.worse[0]
        harmed = sorted({" ".join(seen.names[one.product_id]) for one in seen.effect.worse})
        detail = (
            f"{counted(len(seen.effect.worse), 'picture')} of {', '.join(harmed)} would find this one first,"
            f" and so be taken for {product.sku}"
        )
        faults.append(Finding(WORSENS, detail, first.reference_image_id, seen.names[first.product_id][0]))
    return faults


def _tell_closer(generation: Generation, own: Match | None, other: Match, seen: _Seen) -> list[Finding]:
    """A product's first picture is always nearest to another's: that is told only where it would be taken for it."""
    sku, name = seen.names[other.product_id]
    if own is not None:
        detail = (
            f"{sku} {name} is nearer ({other.similarity:.3f}) than this product's own nearest picture"
            f" ({own.similarity:.3f}), by {other.similarity - own.similarity:.3f}"
        )
    else:
        thresholds = get_thresholds(get_threshold_set(generation, settings.SEARCH_STRATEGY))
        recognised = thresholds.of(other.product_id).recognised
        if other.similarity < recognised:
            return []
        detail = (
            f"{sku} {name} is so near ({other.similarity:.3f}) that this picture would be taken for it:"
            f" from {recognised:.3f} on an item may be recognised"
        )
    return [Finding(CLOSER, detail, other.reference_image_id, sku)]
