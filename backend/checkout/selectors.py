"""Reading recognitions and their corrections."""

from datetime import datetime
from typing import NamedTuple

from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, QuerySet, When

from backend.checkout.models import Correction, ReviewState
from backend.gallery.selectors import get_active_generation


def list_corrections() -> QuerySet[Correction]:
    """Corrections with what their review shows of them."""
    return Correction.objects.select_related("recognition", "item", "product", "reference_image")


# 1 where a person said that the answer was right, which teaches the gallery least; 0 for all others.
_CONFIRMS = Case(When(~Q(sku="") & Q(sku=F("item__sku")), then=1), default=0)


def list_waiting() -> QuerySet[Correction]:
    """Open corrections in the order of their review: first those of wrong answers, the oldest first; last what
    confirms an answer.
    """
    return (
        Correction.objects.filter(state=ReviewState.OPEN).alias(confirms=_CONFIRMS).order_by("confirms", "pk")
    )


def list_waiting_after(pk: int) -> QuerySet[Correction]:
    """Those of `list_waiting` behind a correction, which need not wait itself; all where there is no such."""
    confirms = Correction.objects.filter(pk=pk).values_list(_CONFIRMS, flat=True).first() or 0
    return list_waiting().filter(Q(confirms__gt=confirms) | Q(confirms=confirms, pk__gt=pk))


def list_clean_corrections() -> QuerySet[Correction]:
    """Open corrections to a product that the active generation was asked about, and nothing speaks against."""
    generation = get_active_generation()
    if generation is None:
        return Correction.objects.none()
    return (
        Correction.objects.filter(
            state=ReviewState.OPEN, last_check__generation=generation.pk, last_check__findings=[]
        )
        .exclude(sku="")
        .order_by("pk")
    )


class Confusion(NamedTuple):
    """One product taken for another, and how often.

    Attributes:
        answered_sku: "" for an unknown item, None for an item that was missed.
        answered_name: as it was then.
        answered_id: of the product, unless it was deleted since.
        sku: what it really was; "" for no product.
        name: as it is now.
        product_id: of the product, unless it was deleted since.
        n: corrections that say so, the last of each item.
        last: when that was last said.
    """

    answered_sku: str | None
    answered_name: str | None
    answered_id: int | None
    sku: str
    name: str | None
    product_id: int | None
    n: int
    last: datetime


def list_confusions(limit: int) -> list[Confusion]:
    """What is taken for what, by people's corrections that nobody rejected; the most frequent first."""
    corrections = Correction.objects.exclude(state=ReviewState.REJECTED)
    later = corrections.filter(item=OuterRef("item"), pk__gt=OuterRef("pk"))
    pairs = (
        # One that says what was answered is no confusion.
        corrections.filter(Q(item=None) | ~Q(sku=F("item__sku")), ~Exists(later))
        .order_by()
        .values("item__sku", "sku")
        .annotate(
            answered_name=Max("item__name"),
            answered_id=Max("item__product"),
            really_name=Max("product__name"),
            really_id=Max("product"),
            n=Count("pk"),
            last=Max("created_at"),
        )
        .order_by("-n", "-last")
    )
    return [
        Confusion(
            row["item__sku"],
            row["answered_name"],
            row["answered_id"],
            row["sku"],
            row["really_name"],
            row["really_id"],
            row["n"],
            row["last"],
        )
        for row in pairs[:limit]
    ]
