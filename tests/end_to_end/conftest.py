"""What the end-to-end tests ask a running service with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.live import LiveService

Ask = Callable[..., requests.Response]


@pytest.fixture(scope="session")
def query_images(demo_catalogue: Path) -> list[Path]:
    """Pictures of single products that are not in the gallery."""
    return sorted((demo_catalogue / "images" / "query").glob("*.jpg"))


@pytest.fixture
def recognise(live_service: LiveService) -> Ask:
    """POST a picture, given as bytes or a path."""

    def ask(
        picture: Path | bytes, *, headers: dict[str, str] | None = None, name: str = "p.jpg", **form: Any
    ):
        data = picture if isinstance(picture, bytes) else picture.read_bytes()
        return requests.post(
            f"{live_service.url}/api/v1/recognitions",
            headers=live_service.headers | (headers or {}),
            files={"image": (name, data)},
            data=form,
            timeout=30,
        )

    return ask


def fills(box: list[float], image: dict[str, int]) -> bool:
    """Whether a box is that of a picture's one product, which fills it: most of the picture, and inside of it."""
    x1, y1, x2, y2 = box
    inside = 0 <= x1 < x2 <= image["width"] and 0 <= y1 < y2 <= image["height"]
    return inside and (x2 - x1) * (y2 - y1) > 0.7 * image["width"] * image["height"]
