"""The scene that benchmarks send, as a till would, and what the times of many answers come to."""

import statistics
import time
from typing import Any

import requests

from tests.live import REPOSITORY, LiveService

SCENE = REPOSITORY / "fixtures" / "demo_catalogue" / "images" / "scenes" / "01.jpg"


def recognise(
    service: LiveService, session: requests.Session | None = None
) -> tuple[int, float, dict[str, Any]]:
    """Send the scene: status, milliseconds, answer."""
    started = time.perf_counter()
    answer = (session or requests).post(
        f"{service.url}/api/v1/recognitions",
        headers=service.headers,
        files={"image": ("scene.jpg", SCENE.read_bytes())},
        timeout=30,
    )
    return answer.status_code, 1000 * (time.perf_counter() - started), answer.json()


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "n": len(ordered),
    }
