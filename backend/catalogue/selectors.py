"""Reading the catalogue."""

from collections.abc import Collection
from decimal import Decimal
from typing import NamedTuple

from django.db import connection
from django.db.models import QuerySet

from backend.catalogue.models import Product, ProductSet, ProductState, ReferenceImage


def list_products(*, product_set_id: int | None = None) -> QuerySet[Product]:
    """All products, or those of one product set."""
    products = Product.objects.all()
    return products if product_set_id is None else products.filter(product_sets=product_set_id)


def list_reference_images(product: Product) -> QuerySet[ReferenceImage]:
    return product.reference_images.order_by("id")


class ActiveProduct(NamedTuple):
    """What an answer says of a product."""

    id: int
    sku: str
    gtin: str
    name: str
    price: Decimal | None
    currency: str
    sold_by: str


# By hand, as each recognition asks it: Django takes longer to write hundreds of ids than PostgreSQL to find them.
_ANSWERABLE = f"""
    SELECT i.id, p.id, p.sku, p.gtin, p.name, p.price, p.currency, p.sold_by FROM {ReferenceImage._meta.db_table} i
    JOIN {Product._meta.db_table} p ON p.id = i.product_id
    WHERE i.id = ANY(%s) AND p.state = 'active'
"""  # noqa: S608  table names of our own models
_IN_SET = f"""
    AND EXISTS (SELECT 1 FROM {ProductSet.products.through._meta.db_table} m
                WHERE m.productset_id = %s AND m.product_id = p.id)
"""  # noqa: S608


def get_answerable_products(
    reference_image_ids: Collection[int], product_set_id: int | None = None
) -> dict[int, ActiveProduct]:
    """By reference image, of those that are there now, the product; if it is active, and in the product set where one
    is given."""
    with connection.cursor() as cursor:
        if product_set_id is None:
            cursor.execute(_ANSWERABLE, [list(reference_image_ids)])
        else:
            cursor.execute(_ANSWERABLE + _IN_SET, [list(reference_image_ids), product_set_id])
        return {row[0]: ActiveProduct(*row[1:]) for row in cursor.fetchall()}


def list_product_ids_of_set(product_set: ProductSet) -> list[int]:
    """Ids of the set's active products."""
    return list(product_set.products.filter(state=ProductState.ACTIVE).values_list("pk", flat=True))
