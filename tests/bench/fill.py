"""Fill the active gallery up with products that look like nothing on earth: `python -m tests.bench.fill N`."""

import sys

from backend.bootstrap import prepare_environment

prepare_environment()

import django  # noqa: E402

django.setup()

import numpy as np  # noqa: E402

from backend.catalogue.models import Product  # noqa: E402
from backend.gallery.loading import get_gallery  # noqa: E402
from backend.gallery.selectors import get_active_generation  # noqa: E402
from recognition.gallery import Entry  # noqa: E402

PICTURES_PER_PRODUCT = 5
BATCH = 1_000
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
    random = np.random.default_rng(0)
    for start in range(0, missing, BATCH):
        n = min(BATCH, missing - start)
        vectors = random.standard_normal((n, gallery.dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        codes = np.packbits(vectors > 0, axis=1)[:, : gallery.hash_bits // 8]
        gallery.upsert(
            [
                Entry(
                    FIRST_ID + start + row,
                    products[(start + row) // PICTURES_PER_PRODUCT].pk,
                    1,
                    vectors[row],
                    codes[row],
                )
                for row in range(n)
            ]
        )
    gallery.flush()
    print(gallery.wait_indexed(600).describe())


if __name__ == "__main__":
    main(int(sys.argv[1]))
