"""Prometheus metrics of our own, beside django-prometheus' of requests. All are the web process's to tell:
stages are measured in the worker and observed here from the answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from backend.checkout.admission import count_in_flight
from backend.common.problems import engine_of, problem_of
from backend.gallery.selectors import count_ledger, get_active_generation

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

RECOGNITIONS = Counter("checklane_recognitions_total", "Recognitions by how they ended.", ["outcome"])
ITEMS = Counter("checklane_items_total", "Recognised items by result.", ["result"])
STAGES = Histogram("checklane_stage_seconds", "Time of a recognition's stages.", ["stage"], buckets=SECONDS)
IN_FLIGHT = Gauge(
    "checklane_recognitions_in_flight", "Recognitions under way.", multiprocess_mode="mostrecent"
)
LEDGER = Gauge(
    "checklane_embeddings",
    "Rows of the active generation's ledger by state.",
    ["state"],
    multiprocess_mode="mostrecent",
)


def observe_answer(answer: dict[str, Any]) -> None:
    """Count a done recognition, its items and its stages."""
    RECOGNITIONS.labels("done").inc()
    for item in answer["items"]:
        ITEMS.labels(item["result"]).inc()
    for stage, milliseconds in answer["timings_ms"].items():
        STAGES.labels(stage).observe(milliseconds / 1000)


@contextmanager
def counted_refusals() -> Iterator[None]:
    """Count by its code a recognition that ends in a problem."""
    try:
        yield
    except Exception as error:
        problem = problem_of(error)
        RECOGNITIONS.labels("internal" if problem is None else problem.code).inc()
        raise


def refresh_gauges() -> None:
    """Read what is counted elsewhere; an engine that is away leaves the last value."""
    try:
        IN_FLIGHT.set(count_in_flight())
        generation = get_active_generation()
        if generation is not None:
            for state, rows in count_ledger(generation).items():
                LEDGER.labels(state).set(rows)
    except Exception as error:
        if engine_of(error) is None:
            raise
