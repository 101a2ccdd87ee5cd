"""Fill the active gallery up with strangers, in PostgreSQL too: `python -m tests.bench.fill N`."""

import sys

from backend.bootstrap import prepare_environment

prepare_environment()

import django  # noqa: E402

django.setup()

from backend.catalogue.models import BoxSource, Product, ReferenceImage  # noqa: E402
from backend.gallery.loading import get_gallery  # noqa: E402
from backend.gallery.models import Embedding, EmbeddingState  # noqa: E402
from backend.gallery.selectors import get_active_generation  # noqa: E402
from tests.bench.strangers import add_strangers  # noqa: E402

PICTURES_PER_PRODUCT = 5
BATCH = 5_000
# Far above any id that the demo gives.
FIRST_ID = 10_000_000


def main(wanted: int) -> None:
    generation = get_active_generation()
    assert generation is not None
    gallery = get_gallery(generation)
    missing = wanted - gallery.count()
    products = Product.objects.bulk_create(
        [
            Product(sku=f"FILL-{number}", name=f"Filler {number}", price=1, currency="EUR")
            for number in range(missing // PICTURES_PER_PRODUCT + 1)
        ],
        batch_size=BATCH,
    )
    product_of = [products[row // PICTURES_PER_PRODUCT].pk for row in range(missing)]
    # Without files, which nobody reads: the ledger says that they are embedded. Without a row none would be answered.
    ReferenceImage.objects.bulk_create(
        [
            ReferenceImage(
                pk=FIRST_ID + row, product_id=product, image="none.jpg", width=300, height=300,
                sha256=str(FIRST_ID + row), box_source=BoxSource.WHOLE, revision=1,
            )
            for row, product in enumerate(product_of)
        ],
        batch_size=BATCH,
    )  # fmt: skip
    Embedding.objects.bulk_create(
        [
            Embedding(
                reference_image_id=FIRST_ID + row, generation=generation, state=EmbeddingState.EMBEDDED, revision=1
            )
            for row in range(missing)
        ],
        batch_size=BATCH,
    )  # fmt: skip
    add_strangers(gallery, product_of, first_id=FIRST_ID)


if __name__ == "__main__":
    main(int(sys.argv[1]))
