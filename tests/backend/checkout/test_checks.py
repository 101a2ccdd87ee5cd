"""Settings that would fail at a till fail at the start, by name."""

import pytest

from backend.checkout.checks import check_recognition_settings, check_search_settings


def test_the_defaults_are_fine():
    assert check_search_settings() == check_recognition_settings() == []


@pytest.mark.parametrize(
    ("changes", "check", "found"),
    [
        ({"SEARCH_STRATEGY": "magic"}, check_search_settings, "checkout.E001"),
        ({"SEARCH_MATCHES": 300, "SEARCH_RERANK": 200}, check_search_settings, "checkout.E001"),
        ({"RECOGNITION_MAX_IN_FLIGHT": 0}, check_recognition_settings, "checkout.E002"),
        ({"QUERY_IMAGE_DAYS": -1}, check_recognition_settings, "checkout.E003"),
        ({"HISTORY_DAYS": 0}, check_recognition_settings, "checkout.E004"),
        ({"MILVUS_TIMEOUT_SECONDS": 20.0}, check_recognition_settings, "checkout.W001"),
    ],
)
def test_each_bad_combination_is_named(settings, changes, check, found):
    for name, value in changes.items():
        setattr(settings, name, value)
    assert [message.id for message in check()] == [found]
