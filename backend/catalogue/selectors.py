"""Reading the catalogue."""

from collections.abc import Collection

from django.db.models import QuerySet

from backend.catalogue.models import Product, ProductSet, ProductState, ReferenceImage


def list_products(*, product_set_id: int | None = None) -> QuerySet[Product]:
    """All products, or those of one product set."""
    products = Product.objects.all()
    return products if product_set_id is None else products.filter(product_sets=product_set_id)


def list_reference_images(product: Product) -> QuerySet[ReferenceImage]:
    return product.reference_images.order_by("id")


def get_active_product_ids(product_ids: Collection[int], product_set_id: int | None = None) -> set[int]:
    """Those of `product_ids` that are active now, and in the product set where one is given."""
    products = list_products(product_set_id=product_set_id).filter(
        pk__in=product_ids, state=ProductState.ACTIVE
    )
    return set(products.values_list("pk", flat=True))


def list_product_ids_of_set(product_set: ProductSet) -> list[int]:
    """Ids of the set's active products."""
    return list(product_set.products.filter(state=ProductState.ACTIVE).values_list("pk", flat=True))
