"""Write the demo catalogue: python -m demo_catalogue --out DIR."""

from __future__ import annotations

import argparse
from pathlib import Path

from demo_catalogue.folder import write_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo_catalogue", description="Draw the demo catalogue and write it as a folder."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; made where it is missing")
    parser.add_argument("--views", type=int, default=5, help="reference pictures a product (5)")
    parser.add_argument("--scenes", type=int, default=6, help="checkout scenes (6)")
    parser.add_argument("--seed", type=int, default=1, help="of all pictures (1)")
    settings = parser.parse_args()
    if settings.views < 1 or settings.scenes < 0:
        found = f"--views {settings.views} --scenes {settings.scenes}"
        parser.error(f"found {found}; want at least 1 view and 0 scenes")
    write_folder(settings.out, views=settings.views, scenes=settings.scenes, seed=settings.seed)


if __name__ == "__main__":
    main()
