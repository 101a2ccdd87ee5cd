"""Two generations beside each other on the same queries, as a till would be answered, and the gate before a switch.

Unlike `evaluate`, which builds collections of its own, this asks the collections that answer, by the deployment's
strategy and settings: what is compared is what would be switched.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import numpy as np
from django.conf import settings
from django.db.models import Count, F, OuterRef, Subquery
from django.utils import timezone
from numpy.typing import NDArray

from backend.catalogue.models import Product, ProductState, ReferenceImage
from backend.common.problems import Problem
from backend.evaluation.embedding import Cropping, Over, embed_pictures
from backend.evaluation.pictures import LIVE_CATALOGUE, Picture, Refusal
from backend.evaluation.task import nothing_to_measure
from backend.gallery.loading import FETCHED_A_CALL, get_detector, get_embedder, get_gallery
from backend.gallery.models import EmbeddingState, Generation
from backend.gallery.selectors import count_embedded, get_active_detector
from backend.gallery.thresholds import has_changed, search_settings
from recognition.embedder import Embeddings
from recognition.gallery import embeddings_of
from recognition.metrics import mean_average_precision, nearest_products, recall_at_k

# Of the live catalogue: beyond them the figures hardly move, and a switch is not to wait for hours.
QUERIES = 2_000
DEPTH = 100  # pictures asked for: R of the protocol
WARM_UP = 10  # searches of each generation before the first that counts
PRODUCTS_LISTED = 20
# Points (of 100) by which recall@1 or mAP may fall, unless somebody says otherwise.
DROP_LIMIT = 1.0


@dataclass(frozen=True)
class Side:
    """What one generation scored.

    Attributes:
        generation: its id.
        name: of its embedder, with its index.
        recall_at_1, recall_at_5: share of queries whose product is the nearest, or among the five nearest.
        map_at_100: mean average precision over the 100 nearest pictures.
        p50_ms, p95_ms: latency of a search for one query.
    """

    generation: int
    name: str
    recall_at_1: float
    recall_at_5: float
    map_at_100: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class ProductChange:
    """A product that one generation finds more often than the other.

    Attributes:
        n_queries: that show it.
        active, candidate: of these, the share whose nearest product it is.
    """

    sku: str
    name: str
    n_queries: int
    active: float
    candidate: float


@dataclass(frozen=True)
class Comparison:
    """The candidate beside the active generation.

    Attributes:
        subject: LIVE_CATALOGUE, leaving each query out, or the folder.
        strategy: the deployment's.
        compared_at: ISO 8601.
        n_queries: that both were asked.
        n_left_out: queries that one of them could not be asked, or that show no product of the catalogue.
        n_gained, n_lost: queries that only the candidate, or only the active one, answers rightly.
        n_better, n_worse: products that the candidate finds more often, or less.
        better, worse: the first of them, the greatest change first.
        n_embedded: pictures that the active generation, and the candidate, had then.
    """

    active: Side
    candidate: Side
    subject: str
    strategy: str
    compared_at: str
    n_queries: int
    n_left_out: int
    n_gained: int
    n_lost: int
    n_better: int
    n_worse: int
    better: tuple[ProductChange, ...]
    worse: tuple[ProductChange, ...]
    n_embedded: tuple[int, int] = (0, 0)

    @property
    def drop(self) -> float:
        """Points (of 100) by which recall@1 or mAP, whichever is worse, falls; below 0 where both rise."""
        return 100 * max(
            self.active.recall_at_1 - self.candidate.recall_at_1,
            self.active.map_at_100 - self.candidate.map_at_100,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From `to_dict`'s values."""
        return cls(
            **values
            | {
                "active": Side(**values["active"]),
                "candidate": Side(**values["candidate"]),
                "better": tuple(ProductChange(**one) for one in values["better"]),
                "worse": tuple(ProductChange(**one) for one in values["worse"]),
                "n_embedded": tuple(values.get("n_embedded", (0, 0))),
            }
        )


@dataclass(frozen=True)
class Queries:
    """Q queries as one generation embeds them.

    Attributes:
        embeddings: of length Q.
        own: (Q,), the reference image that the query is, or -1.
        products: (Q,), the product that each shows.
        n_right: (Q,), pictures of it in this generation, itself not counted.
    """

    embeddings: Embeddings
    own: NDArray[np.int64]
    products: NDArray[np.int64]
    n_right: NDArray[np.int64]


class FolderQueries(NamedTuple):
    """Queries of a folder in the folder format.

    Attributes:
        name: of the folder.
        pictures: that can be asked.
        n_refused: rows of its list that name none.
    """

    name: str
    pictures: list[Picture]
    n_refused: int


def compare(
    candidate: Generation,
    active: Generation,
    over: Over[Any],
    *,
    folder: FolderQueries | None = None,
) -> Comparison:
    """Ask both generations the same.

    Args:
        over: walks over the steps of a stage, and may show how far it is.
        folder: its queries; None for the live catalogue, each picture in turn the query and
            left out, a sample of QUERIES where there are more.
    Raises:
        Problem: 400, there is nothing to ask.
        GalleryUnavailable: Milvus does not answer.
    """
    pair = (active, candidate)
    if folder is None:
        subject, n_left_out = LIVE_CATALOGUE, 0
        ids, n_left_out = _live_ids(pair)
        asked = [_live_queries(one, ids, over) for one in pair]
    else:
        subject = folder.name
        asked, n_left_out = _folder_queries(pair, folder.pictures, over)
        n_left_out += folder.n_refused
    found, seconds = _search_in_turns(pair, asked, over)
    sides = [_score(*one) for one in zip(pair, asked, found, seconds, strict=True)]
    products = asked[0].products
    hits = [nearest_products(rows, 1)[:, 0] == products for rows in found]
    better, worse = _changes(products, *hits)
    return Comparison(
        active=sides[0],
        candidate=sides[1],
        subject=subject,
        strategy=settings.SEARCH_STRATEGY,
        compared_at=timezone.now().isoformat(timespec="seconds"),
        n_queries=len(products),
        n_left_out=n_left_out,
        n_gained=int((hits[1] & ~hits[0]).sum()),
        n_lost=int((hits[0] & ~hits[1]).sum()),
        n_better=len(better),
        n_worse=len(worse),
        better=tuple(better[:PRODUCTS_LISTED]),
        worse=tuple(worse[:PRODUCTS_LISTED]),
        n_embedded=(count_embedded(active), count_embedded(candidate)),
    )


def compare_and_keep(candidate: Generation, active: Generation, over: Over[Any], **how: Any) -> Comparison:
    """As `compare`; the candidate keeps it, for whoever decides on the switch."""
    comparison = compare(candidate, active, over, **how)
    candidate.evaluation = comparison.to_dict()
    # Past the audit log, which would repeat all of it; the switch itself is in there.
    Generation.objects.filter(pk=candidate.pk).update(evaluation=candidate.evaluation)
    return comparison


def get_comparison(candidate: Generation, active: Generation | None) -> Comparison | None:
    """The last one with what is active now, by the strategy that tills are answered by; None where there is none, or
    where one of the two has grown or shrunk since by more than REFIT_AT, so that it tells of another gallery."""
    if active is None or not candidate.evaluation:
        return None
    comparison = Comparison.from_dict(candidate.evaluation)
    fits = comparison.active.generation == active.pk and comparison.strategy == settings.SEARCH_STRATEGY
    if not fits or any(
        has_changed(count_embedded(one), n_then)
        for one, n_then in zip((active, candidate), comparison.n_embedded, strict=True)
    ):
        return None
    return comparison


def refuse_drop(comparison: Comparison, limit: float = DROP_LIMIT) -> None:
    """The gate.

    Args:
        limit: points (of 100) by which recall@1 or mAP may fall.
    Raises:
        Problem: 409, the candidate falls by more.
    """
    if comparison.drop <= limit:
        return
    active, candidate = comparison.active, comparison.candidate
    raise Problem(
        HTTPStatus.CONFLICT,
        "accuracy-drop",
        f"generation {candidate.generation} falls by {comparison.drop:.2f} points, and at most {limit:g} are let"
        f" through: recall@1 {active.recall_at_1:.2%} -> {candidate.recall_at_1:.2%}, mAP@100"
        f" {active.map_at_100:.2%} -> {candidate.map_at_100:.2%} on {comparison.n_queries:,} queries."
        " Look at the products that get worse; to switch all the same, force it with a reason",
    )


# --- the live catalogue -----------------------------------------------------------------------------------
def _live_ids(pair: Sequence[Generation]) -> tuple[list[int], int]:
    """Pictures that both can be asked with, and how many only the active one could."""
    revision = Subquery(
        ReferenceImage.objects.filter(
            pk=OuterRef("reference_image_id"), product__state=ProductState.ACTIVE
        ).values("revision")
    )
    active, candidate = (
        set(
            one.embeddings.filter(state=EmbeddingState.EMBEDDED)
            .annotate(now_at=revision)
            .filter(revision=F("now_at"))
            .values_list("reference_image_id", flat=True)
        )
        for one in pair
    )
    # One picture of its product, left out, has no right answer.
    several = set(
        Product.objects.annotate(n=Count("reference_images")).filter(n__gt=1).values_list("pk", flat=True)
    )
    both = dict(ReferenceImage.objects.filter(pk__in=active & candidate).values_list("pk", "product_id"))
    ids = sorted(pk for pk, product in both.items() if product in several)
    if not ids:
        raise nothing_to_measure("no product has two pictures that both generations have embedded")
    if len(ids) > QUERIES:
        ids = sorted(int(pk) for pk in np.random.default_rng(0).choice(ids, QUERIES, replace=False))
    return ids, len(active - candidate)


def _live_queries(generation: Generation, ids: list[int], over: Over[Any]) -> Queries:
    gallery = get_gallery(generation)
    starts = range(0, len(ids), FETCHED_A_CALL)
    entries = [
        entry
        for start in over(f"reading {generation}", starts)
        for entry in gallery.fetch(ids[start : start + FETCHED_A_CALL])
    ]
    if len(entries) < len(ids):
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-behind",
            f"{generation} lacks {len(ids) - len(entries):,} entries that the ledger said it has: pictures were removed"
            " meanwhile, then try again; else run `manage.py reconcile_gallery --fix`",
        )
    products = np.array([entry.product_id for entry in entries], np.int64)
    return Queries(
        embeddings_of(entries),
        own=np.array(ids, np.int64),
        products=products,
        n_right=_count_pictures(generation, products) - 1,
    )


def _count_pictures(generation: Generation, products: NDArray[np.int64]) -> NDArray[np.int64]:
    """(Q,): pictures of each query's product that the generation has embedded."""
    embedded = generation.embeddings.filter(state=EmbeddingState.EMBEDDED).values("reference_image_id")
    shown = ReferenceImage.objects.filter(product__in=set(products.tolist()), pk__in=embedded)
    counts = Counter(shown.values_list("product_id", flat=True))
    return np.array([counts[product] for product in products.tolist()], np.int64)


# --- a folder ---------------------------------------------------------------------------------------------
def _folder_queries(
    pair: Sequence[Generation], pictures: list[Picture], over: Over[Any]
) -> tuple[list[Queries], int]:
    """As a till's photos are embedded: the given box, else what the active detector finds, else the whole."""
    known = dict(Product.objects.filter(state=ProductState.ACTIVE).values_list("sku", "pk"))
    shown = [picture for picture in pictures if picture.sku in known]
    detector = get_active_detector()
    refused: list[Refusal] = []
    embedded = []
    for generation in pair:
        embedder = get_embedder(generation.embedder)
        cropping = Cropping(
            mode="box",
            detector=None if detector is None else get_detector(detector),
            margin=generation.crop_margin,
            minimum_side=embedder.card.minimum_side_pixels,
        )
        embedded.append(
            embed_pictures(f"embedding for {generation}", shown, embedder, cropping, refused, over)
        )
    keys = [key for key in embedded[0].keys if key in set(embedded[1].keys)]
    if not keys:
        named = [f"{one.picture}: {one.reason}" for one in refused[:3]]
        raise nothing_to_measure(
            f"of {len(pictures):,} queries none shows an active product and can be embedded"
            f" {'; '.join(named)}".rstrip()
        )
    queries = []
    for generation, one in zip(pair, embedded, strict=True):
        row_of = {key: row for row, key in enumerate(one.keys)}
        rows = [row_of[key] for key in keys]
        products = np.array([known[one.pictures[row].sku] for row in rows], np.int64)
        queries.append(
            Queries(
                one.embeddings.take(rows),
                own=np.full(len(rows), -1, np.int64),
                products=products,
                n_right=_count_pictures(generation, products),
            )
        )
    return queries, len(pictures) - len(keys)


# --- asking and scoring -----------------------------------------------------------------------------------
def _search_in_turns(
    pair: Sequence[Generation], asked: Sequence[Queries], over: Over[Any]
) -> tuple[list[NDArray[np.intp]], list[list[float]]]:
    """Each query through both, one at a time, who is first taking turns, so that noise hits both alike.

    Returns:
        For each generation (Q, DEPTH), the products of the nearest pictures, -1 where there is none; and the seconds
        that each search took.
    """
    may_answer = set(Product.objects.filter(state=ProductState.ACTIVE).values_list("pk", flat=True))
    searches = [
        _search(generation, queries, may_answer) for generation, queries in zip(pair, asked, strict=True)
    ]
    n_queries = len(asked[0].products)
    found = [np.full((n_queries, DEPTH), -1, np.intp) for _ in pair]
    seconds: list[list[float]] = [[], []]
    for row in range(min(WARM_UP, n_queries)):
        for search in searches:
            search(row)
    for row in over("searching", range(n_queries)):
        for side in (0, 1) if row % 2 else (1, 0):
            started = time.perf_counter()
            products = searches[side](row)
            seconds[side].append(time.perf_counter() - started)
            found[side][row, : len(products)] = products
    return found, seconds


def _search(generation: Generation, queries: Queries, may_answer: set[int]) -> Callable[[int], list[int]]:
    """What the query of a row finds: products of the nearest pictures, itself and retired products left out."""
    gallery = get_gallery(generation)
    how = search_settings()
    how = replace(how, matches=DEPTH, rerank=max(how.rerank, DEPTH + 1))

    def search(row: int) -> list[int]:
        [matches] = gallery.search(
            queries.embeddings.take([row]), how, limit=DEPTH + int(queries.own[row] >= 0)
        )
        return [
            match.product_id
            for match in matches
            if match.reference_image_id != queries.own[row] and match.product_id in may_answer
        ][:DEPTH]

    return search


def _score(generation: Generation, queries: Queries, found: NDArray[np.intp], seconds: list[float]) -> Side:
    wanted = queries.products[:, None]
    right_products = nearest_products(found, 5) == wanted
    p50, p95 = np.percentile(seconds, [50, 95])
    return Side(
        generation=generation.pk,
        name=f"{generation.embedder}, {generation.index['type']}",
        recall_at_1=recall_at_k(right_products, 1),
        recall_at_5=recall_at_k(right_products, 5),
        map_at_100=mean_average_precision(found == wanted, queries.n_right.astype(np.intp)),
        p50_ms=round(1_000 * float(p50), 2),
        p95_ms=round(1_000 * float(p95), 2),
    )


def _changes(
    products: NDArray[np.int64], active: NDArray[np.bool_], candidate: NDArray[np.bool_]
) -> tuple[list[ProductChange], list[ProductChange]]:
    """Products that get better and worse, the greatest change first."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, product in enumerate(products.tolist()):
        rows_of[product].append(row)
    changed = {
        product: rows for product, rows in rows_of.items() if active[rows].sum() != candidate[rows].sum()
    }
    known = {one.pk: one for one in Product.objects.filter(pk__in=changed)}
    changes = [
        ProductChange(
            known[product].sku if product in known else "",
            known[product].name if product in known else "deleted",
            len(rows),
            float(active[rows].mean()),
            float(candidate[rows].mean()),
        )
        for product, rows in changed.items()
    ]
    changes.sort(key=lambda one: (-abs(one.candidate - one.active), -one.n_queries, one.sku))
    return (
        [one for one in changes if one.candidate > one.active],
        [one for one in changes if one.candidate < one.active],
    )
