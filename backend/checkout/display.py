"""A recognition as a person reads it: the stored answer, with its reasons in words and the pictures it rests on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.catalogue.models import ReferenceImage
from backend.checkout.models import Correction, Recognition
from backend.gallery.models import ThresholdSet
from recognition.ranking import Result

RESULT_WORDS = {
    Result.RECOGNISED: "recognised",
    Result.NEEDS_CONFIRMATION: "needs confirmation",
    Result.UNKNOWN: "unknown",
}
# Of one item, and of several.
BASKET_REASONS = {
    "unknown": ("an item is unknown", "items are unknown"),
    "needs-confirmation": ("an item needs confirmation", "items need confirmation"),
    "sold-by-weight": ("an item is sold by weight", "items are sold by weight"),
    "no-price": ("an item has no price", "items have no price"),
    "other-currency": ("an item's price is in another currency", "items' prices are in another currency"),
}

# What stands at the corner of a box, in per cent of the photo's width. checklane.css holds the words to it, and hides
# them where the photo is narrower than 480 pixels: (width, height) of two lines of words, of a number, of "missed".
WORDS, NUMBER, MISSED = (32.0, 8.0), (7.0, 4.8), (13.0, 4.8)


@dataclass(frozen=True)
class ShownCandidate:
    """A product that an item may be, and the reference image that speaks for it, unless it was deleted since."""

    product: Mapping[str, Any]
    similarity: float
    reference_image: ReferenceImage | None


@dataclass(frozen=True)
class ShownItem:
    """One box.

    Attributes:
        number: the item's id in the answer.
        box: x1, y1, width, height in pixels of the upright photo.
        place: left, top, width, height in per cent of it.
        side: "left" or "right": on which of its corners the words stand, so that they stay inside the photo.
        worded: whether they stand there at once; where they would cover others' they wait until it is chosen.
        why: why it is not recognised; empty when it is.
    """

    number: int
    box: tuple[float, float, float, float]
    place: tuple[float, float, float, float]
    side: str
    worded: bool
    result: str
    result_words: str
    product: Mapping[str, Any] | None
    similarity: float | None
    confidence: float | None
    detection_score: float | None
    why: str
    candidates: tuple[ShownCandidate, ...]
    correction: Correction | None


@dataclass(frozen=True)
class ShownMissed:
    """What a person found in the photo where no box had come; `box` to `worded` as of a ShownItem."""

    correction: Correction
    box: tuple[float, float, float, float]
    place: tuple[float, float, float, float]
    side: str
    worded: bool


@dataclass(frozen=True)
class ShownRecognition:
    recognition: Recognition
    width: int
    height: int
    items: tuple[ShownItem, ...]
    missed: tuple[ShownMissed, ...]
    notes: tuple[str, ...]
    basket: Mapping[str, Any]
    basket_reasons: tuple[str, ...]
    timings_ms: Mapping[str, float]


def show_recognition(recognition: Recognition) -> ShownRecognition:
    """Prepare a recognition that is done for its page."""
    answer = recognition.answer
    assert answer is not None
    reference_images = ReferenceImage.objects.in_bulk(
        {candidate["reference_image"] for item in answer["items"] for candidate in item["candidates"]}
    )
    corrections = list(recognition.corrections.select_related("item", "product"))
    # The newest correction of an item is the last that overwrites.
    newest = {one.item.number: one for one in corrections if one.item is not None}
    missed = [one for one in corrections if one.item is None]
    size = answer["image"]
    boxes = [item["box"] for item in answer["items"]] + [one.box for one in missed]
    places = [_in_per_cent(box, size["width"], size["height"]) for box in boxes]
    n_items = len(answer["items"])
    badges = [NUMBER] * n_items + [MISSED] * len(missed)
    words = _lay_out_words(places, badges, size["width"] / size["height"])
    items = tuple(
        ShownItem(
            number=item["id"],
            box=_with_extent(item["box"]),
            place=place,
            side=side,
            worded=worded,
            result=item["result"],
            result_words=RESULT_WORDS[Result(item["result"])],
            product=item["product"],
            similarity=item["similarity"],
            confidence=item["confidence"],
            detection_score=item["detection_score"],
            why=explain(item, recognition.threshold_set),
            candidates=tuple(
                ShownCandidate(
                    candidate["product"],
                    candidate["similarity"],
                    reference_images.get(candidate["reference_image"]),
                )
                for candidate in item["candidates"]
            ),
            correction=newest.get(item["id"]),
        )
        for item, place, (side, worded) in zip(
            answer["items"], places[:n_items], words[:n_items], strict=True
        )
    )
    reasons = Counter(item["basket_reason"] for item in answer["items"] if item["basket_reason"])
    return ShownRecognition(
        recognition=recognition,
        width=size["width"],
        height=size["height"],
        items=items,
        missed=tuple(
            ShownMissed(one, _with_extent(one.box), place, side, worded)
            for one, place, (side, worded) in zip(missed, places[n_items:], words[n_items:], strict=True)
        ),
        notes=_notes(answer),
        basket=answer["basket"],
        basket_reasons=tuple(_count_reason(reason, n) for reason, n in reasons.items()),
        timings_ms=answer["timings_ms"],
    )


def _count_reason(reason: str, n: int) -> str:
    one, several = BASKET_REASONS[reason]
    return one if n == 1 else f"{n} {several}"


def explain(item: Mapping[str, Any], threshold_set: ThresholdSet | None) -> str:
    """Why an item of an answer is not recognised, in the numbers that decided it."""
    result, similarity = Result(item["result"]), item["similarity"]
    if result is Result.RECOGNISED:
        return ""
    if similarity is None:
        return (
            "No product of the catalogue came near: it has no embedded pictures, or none in this product set."
        )
    if threshold_set is None:
        return (
            "No thresholds are fitted yet, so nothing is recognised by itself. They are fitted once enough"
            " pictures are embedded."
        )
    recognised, margin, unknown = _thresholds_of(threshold_set, item["candidates"][0]["product"]["sku"])
    if result is Result.UNKNOWN:
        return f"The nearest product has a similarity of {similarity:.2f}; below {unknown:.2f} an item is unknown."
    if recognised > 1:
        return "Nothing is recognised by itself: the fit of the thresholds found no similarity that is sure enough."
    if similarity < recognised:
        return f"Its similarity is {similarity:.2f}; from {recognised:.2f} on it would be recognised."
    runner_up = item["candidates"][1] if len(item["candidates"]) > 1 else None
    if runner_up is None:
        return "Another product is nearly as similar."
    return (
        f"{runner_up['product']['name']} is nearly as similar ({runner_up['similarity']:.2f});"
        f" a lead of {margin:.2f} is wanted."
    )


def _thresholds_of(threshold_set: ThresholdSet, sku: str) -> tuple[float, float, float]:
    """Recognised, margin and unknown: the product's own where it has some."""
    for own in threshold_set.products.values():
        if own["sku"] == sku:
            return own["recognised"], own["margin"], own["unknown"]
    return threshold_set.recognised, threshold_set.margin, threshold_set.unknown


def _notes(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader must know of the answer as a whole."""
    if answer["main_body_found"]:
        return ()
    if answer["models"]["detector"] is None:
        return ("No detector is installed: the whole photo was taken as one product.",)
    return (
        "No main body was found: the whole photo was taken as one product. Come nearer, or give more light.",
    )


def _with_extent(box: list[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1


def _in_per_cent(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    x1, y1, across, down = _with_extent(box)
    return 100 * x1 / width, 100 * y1 / height, 100 * across / width, 100 * down / height


def _lay_out_words(
    places: Sequence[tuple[float, float, float, float]], badges: Sequence[tuple[float, float]], ratio: float
) -> list[tuple[str, bool]]:
    """For each box the side of its words, and whether they cover neither another box's badge nor words before them.

    Args:
        places: left, top, width, height in per cent of the photo's width and height.
        badges: of each box its number, or "missed", which always stands there; as WORDS.
        ratio: the photo's width by its height.
    """

    def at_corner(number: int, side: str, extent: tuple[float, float]) -> tuple[float, float, float, float]:
        left, top, width, _ = places[number]
        start = left + width - extent[0] if side == "right" else left
        return start, top, start + extent[0], top + extent[1] * ratio

    # Where they stay inside the photo, from the left; where others are in the way, perhaps from the right.
    preferred = ["right" if left + WORDS[0] > 100 else "left" for left, *_ in places]
    taken = [at_corner(number, preferred[number], badge) for number, badge in enumerate(badges)]
    laid_out = []
    for number, first in enumerate(preferred):
        for side in (first, "left" if first == "right" else "right"):
            words = at_corner(number, side, WORDS)
            inside = words[0] >= 0 and words[2] <= 100
            if inside and not any(_overlap(words, one) for one in (*taken[:number], *taken[number + 1 :])):
                taken[number] = words
                laid_out.append((side, True))
                break
        else:
            laid_out.append((first, False))
    return laid_out


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
