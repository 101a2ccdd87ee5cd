"""A search within a product set, against brute force over the set's embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from recognition.embedder import Embeddings
from recognition.gallery import EXACT_SET_ENTRIES, SearchSettings
from recognition.metrics import exact_search
from tests.bench.scale.embeddings import PICTURES, Catalogue, make_queries
from tests.bench.scale.filling import Filled
from tests.bench.scale.strategies import CROPS

# In products of three embeddings each: 3 embeddings, 12, 999, 3,000 and 19,998, then 50,001, 60,000, 90,000, 270,000.
PRODUCTS = (1, 4, 333, 1_000, 6_666, 16_667, 20_000, 30_000, 90_000)
SETTINGS = SearchSettings()
K = 10
SAME = 1e-5  # cosines by two libraries


@dataclass
class Within:
    """One set, searched in one gallery.

    Attributes:
        products: the members' ids.
        spread: "at random" over the catalogue, or "in a row": whole families, enrolled together.
        queries: CROPS for each call; of members, but for the last of each call, which shows a product outside.
        wanted: cosines of each query's nearest in the set by brute force, (Q, up to 100).
        differing: queries for which not all of them were found.
        found: of each query's K nearest, the share that was found.
    """

    filled: Filled
    spread: str
    products: NDArray[np.int64]
    queries: Embeddings
    wanted: NDArray[np.float32]
    seconds: list[float] = field(default_factory=list)
    differing: int = 0
    found: list[float] = field(default_factory=list)

    def search(self, call: int) -> None:
        """One call, timed and compared."""
        rows = slice(call * CROPS, (call + 1) * CROPS)
        photo = Embeddings(self.queries.vectors[rows], self.queries.hash_codes[rows])
        started = perf_counter()
        matches = self.filled.gallery.search(photo, SETTINGS, product_ids=self.products.tolist())
        self.seconds.append(perf_counter() - started)
        for near, wanted in zip(matches, self.wanted[rows], strict=True):
            cosines = np.array([match.similarity for match in near])
            k = min(K, len(wanted))
            # Equal ones are as good as each other.
            self.found.append(float((cosines[:k] >= wanted[k - 1] - SAME).sum()) / k)
            self.differing += len(cosines) != len(wanted) or not np.allclose(cosines, wanted, atol=SAME)

    def report(self) -> dict[str, Any]:
        """Its figures, as plain values."""
        p50, p95 = np.percentile(self.seconds, [50, 95])
        return {
            "index": self.filled.index,
            "spread": self.spread,
            "products": len(self.products),
            "embeddings": PICTURES * len(self.products),
            "queries": len(self.found),
            "exact_wanted": PICTURES * len(self.products) <= EXACT_SET_ENTRIES,
            "differing": self.differing,
            "recall_at_10": float(np.mean(self.found)),
            "p50_ms": 1_000 * float(p50),
            "p95_ms": 1_000 * float(p95),
        }


def measure_sets(galleries: Sequence[Filled], catalogue: Catalogue, calls: int) -> list[dict[str, Any]]:
    """Each call within every set in turn.

    Args:
        galleries: of one size, which is all of the catalogue's.
        calls: for each set, of CROPS queries.
    """
    searched = []
    n_products = len(catalogue.gallery) // PICTURES
    for n, spread in [
        (n, spread) for n in PRODUCTS if n < n_products for spread in ("at random", "in a row")
    ]:
        random = np.random.default_rng(n)
        members = random.permutation(n_products)[:n] + 1
        if spread == "in a row":
            members = np.arange(n) + n_products - n + 1
        queries = make_queries(_asked(members, n_products, calls, random))
        rows = ((np.sort(members) - 1)[:, None] * PICTURES + np.arange(PICTURES)).ravel()
        wanted = exact_search(queries.vectors, catalogue.gallery.vectors[rows], SETTINGS.matches)[1]
        searched += [Within(filled, spread, members, queries, wanted) for filled in galleries]
    for call in track(range(calls), description="searching within sets"):
        first = call % len(searched)
        for one in (*searched[first:], *searched[:first]):
            one.search(call)
    return [one.report() for one in searched]


def _asked(
    members: NDArray[np.int64], n_products: int, calls: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """The product that each query shows: a member's, and the last of each call one from outside."""
    outside = np.setdiff1d(np.arange(1, n_products + 1), members)
    asked = random.choice(members, (calls, CROPS))
    asked[:, -1] = random.choice(outside, calls)
    return asked.ravel()


def table_of(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each set and index."""
    table = Table(
        title=f"Search of {CROPS} crops within a product set, against brute force over its embeddings"
    )
    for column in (
        "embeddings",
        "products",
        "spread",
        "index",
        "queries",
        "differ",
        "recall@10",
        "p50 ms",
        "p95 ms",
    ):
        table.add_column(column, justify="left" if column in ("spread", "index") else "right")
    for one in found:
        table.add_row(
            f"{one['embeddings']:,}",
            f"{one['products']:,}",
            one["spread"],
            one["index"],
            str(one["queries"]),
            str(one["differing"]),
            f"{100 * one['recall_at_10']:.2f} %",
            f"{one['p50_ms']:.0f}",
            f"{one['p95_ms']:.0f}",
        )
    return table
