"""Write the demo catalogue, or one of invented products: python -m demo_catalogue --out DIR."""

from __future__ import annotations

import argparse
from pathlib import Path

from demo_catalogue.assortment import list_products
from demo_catalogue.folder import PRODUCTS_PER_SCENE, QUERIES_PER_PRODUCT, write_folder
from demo_catalogue.invention import more_products


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo_catalogue", description="Draw a catalogue and write it as a folder."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; made where it is missing")
    parser.add_argument(
        "--products", type=int, help="so many invented products, none of the demo's; else the demo's own"
    )
    parser.add_argument("--views", type=int, default=5, help="reference pictures a product (5)")
    parser.add_argument(
        "--queries",
        type=int,
        default=QUERIES_PER_PRODUCT,
        help=f"query pictures a product ({QUERIES_PER_PRODUCT})",
    )
    parser.add_argument("--scenes", type=int, default=6, help="checkout scenes (6)")
    parser.add_argument("--seed", type=int, default=1, help="of all pictures, and of invented products (1)")
    asked = parser.parse_args()
    for name, least in (("products", PRODUCTS_PER_SCENE), ("views", 1), ("queries", 0), ("scenes", 0)):
        found = getattr(asked, name)
        if found is not None and found < least:
            parser.error(f"--{name}: found {found}, want at least {least}")
    try:
        products = list_products() if asked.products is None else more_products(asked.products, asked.seed)
    except ValueError as error:
        parser.error(str(error))
    write_folder(
        asked.out,
        products,
        views=asked.views,
        queries=asked.queries,
        scenes=asked.scenes,
        seed=asked.seed,
    )


if __name__ == "__main__":
    main()
