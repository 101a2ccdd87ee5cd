"""What a generation in the shadow said, counted and listed: how often it agrees with what was answered, in what it
differs, for which products, and who was right where a person corrected the answer."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from django.db.models import (
    Case,
    CharField,
    Count,
    F,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextChoices,
    Value,
    When,
)

from backend.checkout.models import Correction, Difference, ReviewState, ShadowedItem
from backend.gallery.models import Shadow
from recognition.metrics import wilson_interval
from recognition.ranking import Result

PRODUCTS_LISTED = 50


class Right(TextChoices):
    """Who answered what a person then said: the product, or that it is none."""

    BOTH = "both"
    ACTIVE = "active", "only what was answered"
    CANDIDATE = "candidate", "only the shadow"
    NEITHER = "neither"


def list_shadowed_items(shadow: Shadow | None = None) -> QuerySet[Any]:
    """The newest first, each with `corrected`, `corrected_sku` ("" for not a product) and `right`.

    Of several corrections of an item the last that nobody rejected counts.
    """
    said = Correction.objects.filter(item=OuterRef("item")).exclude(state=ReviewState.REJECTED)
    items = ShadowedItem.objects.select_related("item__recognition", "shadow", "threshold_set")
    if shadow is not None:
        items = items.filter(shadow=shadow)
    # An unknown item names no product, and so agrees with "not a product": both SKUs are empty.
    active, candidate = Q(item__sku=F("corrected_sku")), Q(sku=F("corrected_sku"))
    return items.annotate(corrected_sku=Subquery(said.order_by("-pk").values("sku")[:1])).annotate(
        corrected=Q(corrected_sku__isnull=False),
        right=Case(
            When(corrected_sku=None, then=Value(None)),
            When(active & candidate, then=Value(Right.BOTH.value)),
            When(active, then=Value(Right.ACTIVE.value)),
            When(candidate, then=Value(Right.CANDIDATE.value)),
            default=Value(Right.NEITHER.value),
            output_field=CharField(null=True),
        ),
    )


class Share(NamedTuple):
    """Of how many, how many, and the share of them with its 95 % interval (Wilson); None of none."""

    n: int
    n_same: int

    @property
    def agreement(self) -> tuple[float, float, float] | None:
        if not self.n:
            return None
        return self.n_same / self.n, *wilson_interval(self.n_same, self.n)


@dataclass(frozen=True)
class ProductShift:
    """A product that one of the two names for more items than the other.

    Attributes:
        name: as it was then.
        recognised_active, recognised_candidate: items that each recognises as it.
        named_active, named_candidate: items that each names it for, recognised or to be confirmed.
    """

    sku: str
    name: str
    recognised_active: int
    recognised_candidate: int
    named_active: int
    named_candidate: int

    @property
    def change(self) -> tuple[int, int]:
        """By how many items the candidate recognises and names it more, or less."""
        return self.recognised_candidate - self.recognised_active, self.named_candidate - self.named_active


@dataclass(frozen=True)
class ShadowSummary:
    """What is known of one shadow.

    Attributes:
        recognitions: that ran, and those of them of which every item is the same.
        items: likewise. Items of one photo are counted as if they were independent.
        differences: how many items of each kind of difference, all kinds but the same.
        products: the greatest shifts first, PRODUCTS_LISTED at most.
        n_products: with a shift.
        right: corrected items by who was right.
    """

    recognitions: Share
    items: Share
    differences: dict[str, int]
    products: tuple[ProductShift, ...]
    n_products: int
    right: dict[str, int]

    @property
    def n_corrected(self) -> int:
        return sum(self.right.values())

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "recognitions": _plain(self.recognitions),
            "items": _plain(self.items),
            "differences": self.differences,
            "products": [asdict(one) for one in self.products],
            "n_products": self.n_products,
            "right": self.right,
        }


def _plain(share: Share) -> dict[str, Any]:
    agreement = share.agreement
    return {
        "n": share.n,
        "n_same": share.n_same,
        "agreement": None if agreement is None else [round(one, 4) for one in agreement],
    }


def summarise_shadow(shadow: Shadow) -> ShadowSummary:
    """Count what is stored: of recognitions that were deleted nothing is left."""
    items = shadow.items.order_by()
    by_difference = dict(items.values_list("difference").annotate(n=Count("pk")))
    differs = items.exclude(difference=Difference.SAME)
    n_recognitions, n_differing = (
        of.aggregate(n=Count("item__recognition", distinct=True))["n"] for of in (items, differs)
    )
    shifts = _list_shifts(items)
    corrected = list_shadowed_items(shadow).exclude(right=None).order_by()
    by_right = dict(corrected.values_list("right").annotate(n=Count("pk")))
    return ShadowSummary(
        recognitions=Share(n_recognitions, n_recognitions - n_differing),
        items=Share(sum(by_difference.values()), by_difference.get(Difference.SAME, 0)),
        differences={
            kind.value: by_difference.get(kind, 0) for kind in Difference if kind != Difference.SAME
        },
        products=tuple(shifts[:PRODUCTS_LISTED]),
        n_products=len(shifts),
        right={one.value: by_right.get(one, 0) for one in Right},
    )


def _list_shifts(items: QuerySet[ShadowedItem]) -> list[ProductShift]:
    """Products whose counts differ, the greatest difference first."""
    counts: dict[str, dict[str, int]] = {}
    names: dict[str, str] = {}
    for side, prefix in (("active", "item__"), ("candidate", "")):
        sku, result, name = f"{prefix}sku", f"{prefix}result", f"{prefix}name"
        rows = (
            items.exclude(**{sku: ""})
            .values_list(sku)
            .annotate(
                n=Count("pk"),
                n_recognised=Count("pk", filter=Q(**{result: Result.RECOGNISED.value})),
                last_name=Max(name),
            )
        )
        for key, n, n_recognised, last_name in rows:
            own = counts.setdefault(key, {})
            own[f"named_{side}"], own[f"recognised_{side}"] = n, n_recognised
            names[key] = last_name
    nothing = {f"{what}_{side}": 0 for what in ("recognised", "named") for side in ("active", "candidate")}
    shifts = [ProductShift(sku, names[sku], **nothing | own) for sku, own in counts.items()]
    shifts = [one for one in shifts if any(one.change)]
    return sorted(shifts, key=lambda one: ([-abs(by) for by in one.change], one.sku))


def describe_summary(shadow: Shadow, summary: ShadowSummary) -> str:
    """In a sentence or two, for a terminal or beside a comparison."""
    counts = f"{shadow.n_dropped:,} dropped, {shadow.n_failed:,} failed"
    if not summary.items.n:
        return f"In the shadow of generation {shadow.active_id} nothing was run yet; {counts}."
    share, low, high = summary.items.agreement or (0.0, 0.0, 0.0)
    said = (
        f"In the shadow of generation {shadow.active_id}: {summary.items.n:,} items of {summary.recognitions.n:,}"
        f" recognitions ({counts}), {share:.2%} answered the same (95 %: {low:.2%} to {high:.2%})."
    )
    if summary.n_corrected:
        right = summary.right
        said += (
            f" Of {summary.n_corrected:,} that people corrected, {right[Right.BOTH]:,} both had right,"
            f" {right[Right.ACTIVE]:,} only the active one, {right[Right.CANDIDATE]:,} only this one."
        )
    return said
