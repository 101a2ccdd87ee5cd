"""Threshold sets are fitted to what is enough for their rate; the sweep fits its own, never in place of a person's."""

import numpy as np
import pytest

from backend.catalogue.models import Product, ProductState
from backend.catalogue.services import add_reference_image
from backend.common.problems import Problem
from backend.gallery.enrolment import enrol
from backend.gallery.models import ThresholdSet
from backend.gallery.selectors import get_threshold_set
from backend.gallery.thresholds import (
    Wanted,
    fit_thresholds,
    get_confidence,
    get_thresholds,
    needs_fit,
    store_fit,
)
from backend.gallery.trials import Trial
from recognition.calibration import Searched
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
    assert (fitted.fit["n_queries"], fitted.fit["n_alone"], fitted.false_accepts) == (0, 1, None)


@pytest.mark.parametrize("strategy", ["float", "hash", "hash_rerank"])
def test_products_that_lie_apart_are_recognised(filled, strategy):
    fitted = fit_thresholds(filled, strategy, false_accepts=0.05)
    assert (fitted.strategy, fitted.version, fitted.false_accepts) == (strategy, 1, 0.05)
    assert [fitted.fit[key] for key in ("n_queries", "n_products", "n_strangers", "rank_1")] == [
        36,
        12,
        36,
        1.0,
    ]
    thresholds = get_thresholds(fitted)
    assert -1 <= thresholds.unknown <= thresholds.recognised <= 1
    assert decide([], thresholds) is Result.UNKNOWN
    known = fitted.fit["held_out"]["known"]
    assert known["recognised"][0] > 0.5
    assert all(low <= value <= high for value, low, high in known.values())


def test_too_few_pictures_for_the_rate_are_refused_with_how_many_are_missing(filled):
    add_reference_image(product=make_product("ALONE"), data=make_picture(500))
    make_product("BARE")
    enrol(filled)
    with pytest.raises(Problem) as refused:
        fit_thresholds(filled, "float")
    for said in (
        "found 36 known queries of 12 products and 37 strangers; a rate of 0.01 takes 99 of each",
        "63 more pictures of products that have another picture in the gallery",
        "62 more queries that meet another product than their own",
        "--false-accepts 0.027 and more can be told",
        "1 are the only picture of their product",
        "1 products have no picture in the gallery",
    ):
        assert said in refused.value.detail
    assert (refused.value.status, refused.value.code) == (400, "too-few-queries")
    assert not ThresholdSet.objects.exists()

    # Retired products are neither queries nor answers.
    Product.objects.filter(sku__in=["P0", "P1"]).update(state=ProductState.RETIRED)
    fitted = fit_thresholds(filled, "float", false_accepts=0.05)
    counts = [fitted.fit[key] for key in ("n_queries", "n_products", "n_strangers", "n_embedded")]
    assert counts == [30, 10, 31, 37]


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1])
def test_a_rate_that_is_none_is_refused(generation, wrong):
    with pytest.raises(Problem, match=r"false accepts is .*; wanted more than 0 and less than 1"):
        fit_thresholds(generation, "float", false_accepts=wrong)


def test_a_hundred_queries_give_a_confidence_and_the_enough_of_a_product_its_own_thresholds(generation):
    """Synthetic answers, stored: the products of the catalogue by name, others without thresholds."""
    cola = make_product("COLA")
    random = np.random.default_rng(0)
    n = 400
    product = np.where(np.arange(n) < 150, cola.pk, cola.pk + 1 + np.arange(n) % 20)
    searched = Searched(
        product=product,
        known=np.ones(n, bool),
        foreign=np.zeros(n, bool),
        right=random.normal(0.8, 0.05, n),
        wrong=random.normal(0.4, 0.05, n),
        wrong_product=np.where(random.random(n) < 0.4, cola.pk, cola.pk + 1),
        runner_up=np.full(n, 0.2),
    )
    trial = Trial(searched, n_embedded=n, n_without_pictures=0)
    fitted = store_fit(generation, "float", trial, Wanted(), method="by hand")
    assert [one["sku"] for one in fitted.products.values()] == ["COLA"]
    thresholds, confidence = get_thresholds(fitted), get_confidence(fitted)
    assert set(thresholds.products) == {cola.pk}
    assert confidence.unknown_share == 0.1
    assert (
        confidence.of(np.array(0.8), np.array(0.4)) > 0.9 > 0.2 > confidence.of(np.array(0.4), np.array(0.1))
    )
    error, low, high = fitted.fit["calibration"]["error"]
    assert 0 <= low <= error <= high < 0.1
    assert fitted.fit["held_out"]["strangers"]["wrong_accepts"][0] <= 0.02


def test_a_fit_is_due_again_when_the_gallery_has_grown(filled):
    first = fit_thresholds(filled, "float", automatic=True)
    assert first.false_accepts == pytest.approx(1 / 37)  # what 36 queries can tell
    assert get_confidence(first) is None
    assert not needs_fit(filled, "float")
    for number in range(10):
        add_reference_image(product=make_product(f"N{number}"), data=make_picture(100 + number))
    enrol(filled)
    assert needs_fit(filled, "float")
    second = fit_thresholds(filled, "float", automatic=True)
    assert (first.version, second.version) == (1, 2)
    assert get_threshold_set(filled, "float") == second


def test_a_persons_fit_is_left_alone(filled):
    fit_thresholds(filled, "float", automatic=True)
    ThresholdSet.objects.update(fit={"automatic": False, "n_embedded": 1})
    assert not needs_fit(filled, "float")
