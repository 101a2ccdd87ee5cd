"""Whether catalogue, ledger and Milvus hold the same set, and what is done where they do not.

Four streams by ascending picture id (the pictures, the ledger's rows, the entries of both collections) are walked side
by side, a page of each at a time, so that memory does not grow with the gallery. What differs is looked at once more,
since all four go on changing meanwhile. Mending is the ledger's: a row is written that says what is to be done, and
enrolment does it, under its lease.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import groupby, islice
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from backend.catalogue.models import ReferenceImage
from backend.gallery.loading import get_gallery
from backend.gallery.models import Embedding, EmbeddingState, Generation
from recognition.index import CollectionKind

PAGE = 10_000
LOOKED_AT_AGAIN_TOGETHER = 1_000
NAMED = 20

PictureColumns = tuple[int, int, int]  # picture id, product id, revision
RowColumns = tuple[int, str, int, datetime | None]  # picture id, state, revision, lease


class Drift(StrEnum):
    """How one picture's entry differs from what it should be."""

    MISSING = "missing"  # from Milvus or the ledger, though the picture is there
    ORPHANED = (
        "orphaned"  # in Milvus or the ledger, though the picture is not, or though it never was embedded
    )
    STALE = "stale"  # of an older revision, or of another product


@dataclass
class Agreement:
    """What was found.

    Attributes:
        n_pictures: in the catalogue.
        n_entries: in the float and in the hash collection.
        counts: how many differ, by how.
        named: the first picture ids of each.
    """

    n_pictures: int = 0
    n_entries: dict[CollectionKind, int] = field(default_factory=lambda: {"float": 0, "hash": 0})
    counts: dict[Drift, int] = field(default_factory=lambda: dict.fromkeys(Drift, 0))
    named: dict[Drift, list[int]] = field(default_factory=lambda: {drift: [] for drift in Drift})

    @property
    def n_drift(self) -> int:
        return sum(self.counts.values())

    def describe(self) -> str:
        """One sentence, such as "12 missing (pictures 1, 2, ...), 0 orphaned, 0 stale"."""
        parts = []
        for drift in Drift:
            ids = self.named[drift]
            more = ", ..." if self.counts[drift] > len(ids) else ""
            names = f" (pictures {', '.join(map(str, ids))}{more})" if ids else ""
            parts.append(f"{self.counts[drift]:,} {drift}{names}")
        return ", ".join(parts)


@dataclass(frozen=True)
class _Seen:
    """All that is known of one picture id; None where a store does not have it.

    Attributes:
        picture: product id and revision.
        row: of the ledger: state, revision, lease.
        float_entry, hash_entry: product id and revision.
    """

    picture: tuple[int, int] | None = None
    row: tuple[str, int, datetime | None] | None = None
    float_entry: tuple[int, int] | None = None
    hash_entry: tuple[int, int] | None = None

    def drift(self) -> Drift | None:
        """How it differs; None also while somebody works on it, or is going to."""
        entries = (self.float_entry, self.hash_entry)
        if self.picture is None:
            going = self.row is not None and self.row[0] == EmbeddingState.REMOVING
            return None if going or (self.row is None and entries == (None, None)) else Drift.ORPHANED
        if self.row is None:
            return Drift.MISSING
        state, revision, lease = self.row
        held = lease is not None and lease > timezone.now()
        if held or state in (EmbeddingState.PENDING, EmbeddingState.REMOVING):
            return None
        if state == EmbeddingState.FAILED:
            # An older revision may still be found; what the ledger never said to be there may not.
            unknown = any(entry is not None and entry[1] != revision for entry in entries)
            return Drift.ORPHANED if unknown else None
        if None in entries:
            return Drift.MISSING
        right = revision == self.picture[1] and entries == (self.picture, self.picture)
        return None if right else Drift.STALE


def find_drift(
    generation: Generation, *, mend: bool = False, each: Callable[[], None] = lambda: None
) -> Agreement:
    """Compare both stores, in both directions.

    Args:
        mend: also write into the ledger what is to be done; enrolment does it.
        each: called after each picture that was compared; what it raises ends the comparison.
    Raises:
        GalleryUnavailable: Milvus does not answer.
    """
    found = Agreement()
    differing = (pk for pk, seen in _side_by_side(generation, found, each) if seen.drift() is not None)
    while some := list(islice(differing, LOOKED_AT_AGAIN_TOGETHER)):
        ids_of: dict[Drift, list[int]] = {drift: [] for drift in Drift}
        for pk, seen in _look_again(generation, some):
            if drift := seen.drift():
                ids_of[drift].append(pk)
        for drift, ids in ids_of.items():
            found.counts[drift] += len(ids)
            found.named[drift] += ids[: NAMED - len(found.named[drift])]
        if mend:
            _mend(generation, ids_of)
    return found


def _side_by_side(
    generation: Generation, found: Agreement, each: Callable[[], None]
) -> Iterator[tuple[int, _Seen]]:
    """Each picture id that any store knows, ascending; counts into `found` on the way."""
    gallery = get_gallery(generation)
    streams = [
        _stream("picture", _in_pages(_pictures(), "pk")),
        _stream("row", _in_pages(_rows(generation), "reference_image_id")),
        _stream("float_entry", gallery.entries("float")),
        _stream("hash_entry", gallery.entries("hash")),
    ]
    merged = heapq.merge(*streams, key=lambda one: one[0])
    for pk, together in groupby(merged, key=lambda one: one[0]):
        values = {name: value for _, name, value in together}
        found.n_pictures += "picture" in values
        found.n_entries["float"] += "float_entry" in values
        found.n_entries["hash"] += "hash_entry" in values
        each()
        yield pk, _Seen(**values)


def _look_again(generation: Generation, ids: Sequence[int]) -> Iterator[tuple[int, _Seen]]:
    """What the stores say of these now: Milvus first, for a row is written after its entry."""
    gallery = get_gallery(generation)
    found: dict[str, Iterable[tuple[Any, ...]]] = {
        "float_entry": gallery.find(ids, "float"),
        "hash_entry": gallery.find(ids, "hash"),
        "row": _rows(generation).filter(reference_image_id__in=ids),
        "picture": _pictures().filter(pk__in=ids),
    }
    values: dict[int, dict[str, Any]] = {pk: {} for pk in ids}
    for store, columns in found.items():
        for pk, name, value in _stream(store, columns):
            values[pk][name] = value
    return ((pk, _Seen(**known)) for pk, known in values.items())


def _stream(store: str, columns: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
    """(picture id, name of the store, what it says of it)."""
    return ((pk, store, tuple(rest)) for pk, *rest in columns)


def _pictures() -> QuerySet[Any, PictureColumns]:
    return ReferenceImage.objects.values_list("pk", "product_id", "revision")


def _rows(generation: Generation) -> QuerySet[Any, RowColumns]:
    return generation.embeddings.values_list("reference_image_id", "state", "revision", "lease_until")


def _in_pages(columns: QuerySet[Any, Any], key: str) -> Iterator[tuple[Any, ...]]:
    """By ascending `key`, which is the first column."""
    last = 0
    while page := list(columns.filter(**{f"{key}__gt": last}).order_by(key)[:PAGE]):
        yield from page
        last = page[-1][0]


def _mend(generation: Generation, ids_of: dict[Drift, list[int]]) -> None:
    """Write what is to be done: embed again, or remove."""
    for ids, state in (
        (ids_of[Drift.MISSING] + ids_of[Drift.STALE], EmbeddingState.PENDING),
        (ids_of[Drift.ORPHANED], EmbeddingState.REMOVING),
    ):
        Embedding.objects.bulk_create(
            [Embedding(generation=generation, reference_image_id=pk, state=state) for pk in ids],
            update_conflicts=True,
            unique_fields=["generation", "reference_image_id"],
            update_fields=["state", "attempts", "error"],
        )
