"""How soon a changed product set shows in what is answered, with the whole catalogue in PostgreSQL and in Milvus."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from backend.catalogue.models import Product, ProductSet
from backend.catalogue.selectors import get_answerable_products, list_product_ids_of_set
from backend.catalogue.services import change_product_set
from recognition.embedder import Embeddings
from tests.bench.scale.embeddings import PICTURES, make_queries
from tests.bench.scale.filling import Filled, fill_catalogue
from tests.bench.scale.sets import SETTINGS

# Of the sets that are changed, in products of three embeddings: looked for one by one, and by looking deeper.
PRODUCTS = (333, 6_666, 30_000)
PATIENCE_SECONDS = 60.0


def measure_changes(filled: Filled, changes: int) -> list[dict[str, Any]]:
    """One product at a time joins a set, is searched for within it until it is found, leaves, and is searched for
    until it is not. What is asked is what a recognition asks: the members of PostgreSQL, Milvus, PostgreSQL again.

    Args:
        changes: for each set, half of them joining and half leaving.
    """
    fill_catalogue(filled.rows)
    n_products = filled.rows // PICTURES
    found = []
    for n in (n for n in PRODUCTS if n < n_products):
        shuffled = np.random.default_rng(n).permutation(n_products) + 1
        product_set = ProductSet.objects.create(slug=f"changed-{n}", name=f"changed {n}")
        product_set.products.add(*shuffled[:n].tolist())
        waited: list[tuple[float, int]] = []
        for product in track(shuffled[n : n + changes // 2], description=f"changing a set of {n:,}"):
            query = make_queries(np.array([product]))
            sku = Product.objects.get(pk=product).sku
            change_product_set(product_set, add=[sku])
            waited.append(_until_seen(filled, product_set, query, int(product), there=True))
            change_product_set(product_set, remove=[sku])
            waited.append(_until_seen(filled, product_set, query, int(product), there=False))
        seconds = [one for one, _ in waited]
        found.append(
            {
                "embeddings": filled.rows,
                "index": filled.index,
                "products": n,
                "changes": len(waited),
                "shown_at_once": sum(searches == 1 for _, searches in waited),
                "p50_ms": 1_000 * float(np.median(seconds)),
                "longest_ms": 1_000 * max(seconds),
            }
        )
        product_set.delete()
    return found


def _until_seen(
    filled: Filled, product_set: ProductSet, query: Embeddings, product: int, *, there: bool
) -> tuple[float, int]:
    """Search until the product is found, or is not: the seconds since the change, and the searches that it took."""
    changed, searches = perf_counter(), 0
    while perf_counter() - changed < PATIENCE_SECONDS:
        searches += 1
        [matches] = filled.gallery.search(query, SETTINGS, product_ids=list_product_ids_of_set(product_set))
        answerable = get_answerable_products([match.reference_image_id for match in matches], product_set.pk)
        if (product in {one.id for one in answerable.values()}) == there:
            return perf_counter() - changed, searches
    raise AssertionError(
        f"product {product} is {'not ' * there}found within {product_set.slug} {PATIENCE_SECONDS:.0f} s after"
        f" it {'joined' if there else 'left'}"
    )


def table_of(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each set."""
    table = Table(title="From a change of a product set to the first answer that shows it, ms")
    for column in ("embeddings", "products", "index", "changes", "in the first answer", "median", "longest"):
        table.add_column(column, justify="left" if column == "index" else "right")
    for one in found:
        table.add_row(
            f"{one['embeddings']:,}",
            f"{one['products']:,}",
            one["index"],
            str(one["changes"]),
            str(one["shown_at_once"]),
            f"{one['p50_ms']:.0f}",
            f"{one['longest_ms']:.0f}",
        )
    return table
