"""The sweep's own fit: made when there is enough, made again when the gallery grew, never in place of a person's."""

import pytest

from backend.catalogue.services import add_reference_image
from backend.gallery.enrolment import enrol
from backend.gallery.models import ThresholdSet
from backend.gallery.selectors import get_threshold_set
from backend.gallery.thresholds import fit_thresholds, get_thresholds, needs_fit
from recognition.ranking import Result, Thresholds, decide
from tests.backend.factories import make_picture, make_product


@pytest.fixture
def filled(generation):
    """Twelve products with three pictures each: one picture and two close relatives of it."""
    for product_number in range(12):
        product = make_product(f"P{product_number}")
        for quality in (95, 80, 60):
            add_reference_image(product=product, data=make_picture(product_number, quality=quality))
    enrol(generation)
    return generation


def test_without_a_set_nothing_is_recognised():
    assert get_thresholds(None) == Thresholds.cautious()


def test_with_few_pictures_the_fit_is_cautious(generation):
    add_reference_image(product=make_product(), data=make_picture())
    assert not needs_fit(generation, "float")
    enrol(generation)
    assert needs_fit(generation, "float")
    fitted = fit_thresholds(generation, "float", automatic=True)
    assert get_thresholds(fitted) == Thresholds.cautious()
    assert fitted.fit["n_queries"] == 1


@pytest.mark.parametrize("strategy", ["float", "hash", "hash_rerank"])
def test_products_that_lie_apart_are_recognised(filled, strategy):
    fitted = fit_thresholds(filled, strategy)
    assert (fitted.strategy, fitted.version, fitted.fit["n_queries"]) == (strategy, 1, 36)
    assert fitted.fit["rank_1"] == 1.0
    thresholds = get_thresholds(fitted)
    assert -1 <= thresholds.unknown <= thresholds.recognised <= 1
    assert decide([], thresholds) is Result.UNKNOWN


def test_a_fit_is_due_again_when_the_gallery_has_grown(filled):
    first = fit_thresholds(filled, "float", automatic=True)
    assert not needs_fit(filled, "float")
    for number in range(10):
        add_reference_image(product=make_product(f"N{number}"), data=make_picture(100 + number))
    enrol(filled)
    assert needs_fit(filled, "float")
    second = fit_thresholds(filled, "float", automatic=True)
    assert (first.version, second.version) == (1, 2)
    assert get_threshold_set(filled, "float") == second


def test_a_persons_fit_is_left_alone(filled):
    fit_thresholds(filled, "float")
    ThresholdSet.objects.update(fit={"automatic": False, "n_embedded": 1})
    assert not needs_fit(filled, "float")
