"""Django system checks: combinations of settings that would fail later, at a till."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from backend.gallery.thresholds import search_settings


@register
def check_search_settings(**_: Any) -> list[CheckMessage]:
    """The SEARCH_* settings make sense together."""
    try:
        search_settings()
    except ValueError as error:
        return [
            Error(
                str(error),
                hint="Set SEARCH_STRATEGY, SEARCH_MATCHES, SEARCH_RERANK to fit.",
                id="checkout.E001",
            )
        ]
    return []


@register
def check_recognition_settings(**_: Any) -> list[CheckMessage]:
    """Counts and times of recognition are above nothing."""
    names = (
        "RECOGNITION_PATIENCE_SECONDS",
        "RECOGNITION_MAX_IN_FLIGHT",
        "RECOGNITION_WORKERS",
        "THREADS_PER_WORKER",
        "BULK_THREADS",
        "DECODE_LONGEST_SIDE",
        "MAX_ITEMS",
        "MILVUS_TIMEOUT_SECONDS",
    )
    found: list[CheckMessage] = [
        Error(f"{name} is {getattr(settings, name)}, wanted more than 0", id="checkout.E002")
        for name in names
        if getattr(settings, name) <= 0
    ]
    if settings.QUERY_IMAGE_DAYS < 0:
        found.append(
            Error(f"QUERY_IMAGE_DAYS is {settings.QUERY_IMAGE_DAYS}, wanted 0 or more", id="checkout.E003")
        )
    if settings.HISTORY_DAYS is not None and settings.HISTORY_DAYS < 1:
        found.append(
            Error(
                f"HISTORY_DAYS is {settings.HISTORY_DAYS}, wanted 1 or more, or none to keep all",
                id="checkout.E004",
            )
        )
    if settings.MILVUS_TIMEOUT_SECONDS >= settings.RECOGNITION_PATIENCE_SECONDS > 0:
        found.append(
            Warning(
                f"MILVUS_TIMEOUT_SECONDS ({settings.MILVUS_TIMEOUT_SECONDS:g}) is not below"
                f" RECOGNITION_PATIENCE_SECONDS ({settings.RECOGNITION_PATIENCE_SECONDS:g})",
                hint="A caller would give up before it learns that Milvus does not answer.",
                id="checkout.W001",
            )
        )
    return found
