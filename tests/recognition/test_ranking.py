"""Matches become candidates, candidates results with a confidence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.boxes import as_boxes
from recognition.gallery import Match
from recognition.ranking import (
    LOWEST,
    Candidate,
    Confidence,
    Result,
    Thresholds,
    decide,
    gather_candidates,
    lead_of,
    suppress_doubles,
)

MATCHES = st.lists(
    st.builds(Match, st.integers(1, 50), st.integers(1, 6), st.sampled_from([0.1, 0.5, 0.7, 0.9])),
    max_size=20,
)


class TestGatheringCandidates:
    def test_a_product_is_as_similar_as_its_best_picture(self) -> None:
        found = [Match(1, 7, 0.6), Match(2, 8, 0.8), Match(3, 7, 0.9), Match(4, 8, 0.7)]
        candidates = gather_candidates(found)
        assert [(one.product_id, one.similarity) for one in candidates] == [(7, 0.9), (8, 0.8)]
        assert [match.reference_image_id for match in candidates[0].matches] == [3, 1]

    def test_of_equal_products_the_order_is_always_the_same(self) -> None:
        found = [Match(1, 9, 0.5), Match(2, 3, 0.5)]
        assert [one.product_id for one in gather_candidates(found)] == [3, 9]
        assert [one.product_id for one in gather_candidates(reversed(found))] == [3, 9]

    def test_no_matches_are_no_candidates(self) -> None:
        assert gather_candidates([]) == ()

    @given(MATCHES)
    def test_every_match_is_in_its_candidate_and_the_best_come_first(self, found: list[Match]) -> None:
        candidates = gather_candidates(found)
        assert {one.product_id for one in candidates} == {match.product_id for match in found}
        similarities = [one.similarity for one in candidates]
        assert similarities == sorted(similarities, reverse=True)
        for one in candidates:
            own = [match for match in found if match.product_id == one.product_id]
            assert sorted(one.matches, key=hash) == sorted(own, key=hash)
            assert one.similarity == max(match.similarity for match in own)


def candidates(*similarities: float) -> list[Candidate]:
    return [Candidate(number, similarity, ()) for number, similarity in enumerate(similarities)]


class TestDeciding:
    thresholds = Thresholds(recognised=0.8, margin=0.1, unknown=0.4)

    @pytest.mark.parametrize(
        ("similarities", "result"),
        [
            ((), Result.UNKNOWN),
            ((0.39,), Result.UNKNOWN),
            ((0.4,), Result.NEEDS_CONFIRMATION),
            ((0.79,), Result.NEEDS_CONFIRMATION),
            ((0.8,), Result.RECOGNISED),
            ((0.9, 0.75), Result.RECOGNISED),
            ((0.9, 0.85), Result.NEEDS_CONFIRMATION),
            ((0.9, 0.9), Result.NEEDS_CONFIRMATION),
        ],
    )
    def test_by_similarity_and_lead(self, similarities: tuple[float, ...], result: Result) -> None:
        assert decide(candidates(*similarities), self.thresholds) is result

    @given(st.lists(st.floats(-1, 1), min_size=1).map(lambda found: sorted(found, reverse=True)))
    def test_the_cautious_recognise_nothing_and_ask_about_everything(self, found: list[float]) -> None:
        assert decide(candidates(*found), Thresholds.cautious()) is Result.NEEDS_CONFIRMATION

    @pytest.mark.parametrize("wrong", [(0.4, 0.1, 0.8), (0.8, -0.1, 0.4), (float("nan"), 0.1, 0.4)])
    def test_thresholds_that_make_no_sense_are_refused(self, wrong: tuple[float, float, float]) -> None:
        with pytest.raises(ValueError, match="thresholds: found"):
            Thresholds(*wrong)

    @pytest.mark.parametrize(
        ("product", "similarity", "result"),
        [
            (7, 0.65, Result.RECOGNISED),  # its own thresholds are lower
            (7, 0.45, Result.NEEDS_CONFIRMATION),
            (7, 0.35, Result.NEEDS_CONFIRMATION),
            (7, 0.25, Result.UNKNOWN),
            (8, 0.65, Result.NEEDS_CONFIRMATION),
            (8, 0.35, Result.UNKNOWN),
        ],
    )
    def test_a_products_own_thresholds_hold_where_it_is_the_best_candidate(
        self, product: int, similarity: float, result: Result
    ) -> None:
        own = Thresholds(0.8, 0.1, 0.4, {7: Thresholds(0.6, 0.0, 0.3)})
        found = [Candidate(product, similarity, ()), Candidate(7 + 8 - product, similarity - 0.15, ())]
        assert decide(found, own) is result


class TestConfidence:
    model = Confidence(intercept=-4.0, similarity=5.0, lead=3.0, unknown_share=0.1)

    def test_it_is_the_logistic_function_of_similarity_and_the_root_of_the_lead(self) -> None:
        wanted = 1 / (1 + math.exp(-(-4.0 + 5.0 * 0.8 + 3.0 * math.sqrt(0.2))))
        assert self.model.of_candidates(candidates(0.8, 0.6)) == pytest.approx(wanted)

    def test_without_a_runner_up_it_says_nothing(self) -> None:
        assert lead_of(candidates(0.8)) == pytest.approx(0.8 - LOWEST)
        assert self.model.of_candidates(candidates(0.8)) is None
        assert self.model.of_candidates([]) is None

    @given(st.floats(-1, 1), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1))
    def test_nearer_or_further_ahead_is_never_less_sure(
        self, similarity: float, lead: float, nearer: float, ahead: float
    ) -> None:
        steep = Confidence(intercept=-300.0, similarity=900.0, lead=500.0, unknown_share=0.1)
        less = steep.of(np.array(similarity), np.array(lead))
        more = steep.of(np.array(similarity + nearer), np.array(lead + ahead))
        assert 0 <= less <= more <= 1

    @pytest.mark.parametrize(
        "wrong", [(math.nan, 1, 1, 0.1), (0, -1, 1, 0.1), (0, 1, math.inf, 0.1), (0, 1, 1, 2)]
    )
    def test_numbers_that_make_no_sense_are_refused(self, wrong: tuple[float, float, float, float]) -> None:
        with pytest.raises(ValueError, match="confidence: found"):
            Confidence(*wrong)


class TestSuppressingDoubles:
    boxes = as_boxes([(0, 0, 100, 100), (10, 0, 110, 100), (20, 20, 60, 60), (300, 0, 400, 100)])

    def test_of_overlapping_and_nested_boxes_of_one_product_the_most_similar_stays(self) -> None:
        assert suppress_doubles(self.boxes, [1, 1, 1, 1], [0.7, 0.9, 0.8, 0.6]) == [1, 3]

    def test_boxes_of_other_products_stay(self) -> None:
        assert suppress_doubles(self.boxes, [1, 2, 3, 1], [0.7, 0.9, 0.8, 0.6]) == [0, 1, 2, 3]

    def test_boxes_without_a_product_double_nothing(self) -> None:
        assert suppress_doubles(self.boxes, [None, None, None, None], [-1] * 4) == [0, 1, 2, 3]

    def test_the_same_product_side_by_side_is_two_items(self) -> None:
        side_by_side = as_boxes([(0, 0, 100, 100), (85, 0, 185, 100)])
        assert suppress_doubles(side_by_side, [1, 1], [0.9, 0.9]) == [0, 1]

    def test_a_dropped_box_drops_no_other(self) -> None:
        chain = as_boxes([(0, 0, 100, 100), (50, 0, 150, 100), (100, 0, 200, 100)])
        assert suppress_doubles(chain, [1, 1, 1], [0.7, 0.8, 0.9], iou=0.3) == [0, 2]

    def test_no_boxes(self) -> None:
        assert suppress_doubles(as_boxes([]), [], []) == []
