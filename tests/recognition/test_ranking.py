"""Matches become candidates, candidates results; thresholds lean to asking."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.boxes import as_boxes
from recognition.gallery import Match
from recognition.ranking import (
    MINIMUM_QUERIES,
    Candidate,
    Result,
    Thresholds,
    decide,
    fit_leave_one_out,
    gather_candidates,
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


class TestLeaveOneOutFit:
    rng = np.random.default_rng(0)

    def test_products_that_lie_apart_are_recognised_and_strangers_are_not(self) -> None:
        right, wrong = self.rng.normal(0.9, 0.02, 500), self.rng.normal(0.5, 0.05, 500)
        runner_up = wrong - 0.05
        fitted = fit_leave_one_out(right, wrong, runner_up)
        known = [decide(candidates(r, w), fitted) for r, w in zip(right, wrong, strict=True)]
        strangers = [decide(candidates(w, u), fitted) for w, u in zip(wrong, runner_up, strict=True)]
        assert known.count(Result.RECOGNISED) >= 495
        assert strangers.count(Result.RECOGNISED) <= 5
        assert known.count(Result.UNKNOWN) <= 5
        assert fitted.unknown <= fitted.recognised

    def test_of_what_is_recognised_hardly_any_is_wrong_even_where_flavours_look_alike(self) -> None:
        right = self.rng.normal(0.8, 0.05, 2000)
        wrong = right - self.rng.normal(0.02, 0.03, 2000)
        fitted = fit_leave_one_out(right, wrong, wrong - 0.3)
        answers = [
            (decide(candidates(max(r, w), min(r, w)), fitted), w >= r)
            for r, w in zip(right, wrong, strict=True)
        ]
        recognised = [is_wrong for result, is_wrong in answers if result is Result.RECOGNISED]
        assert fitted.margin > 0
        assert sum(recognised) <= 0.01 * len(recognised)

    def test_a_missing_product_is_not_taken_for_another(self) -> None:
        """Strangers as near as the known, and alone in it: only a similarity that hardly any of them reach is left."""
        right, wrong = self.rng.normal(0.8, 0.05, 1000), self.rng.normal(0.7, 0.05, 1000)
        fitted = fit_leave_one_out(right, wrong, np.full(1000, 0.1))
        strangers = [decide(candidates(w, 0.1), fitted) for w in wrong]
        assert strangers.count(Result.RECOGNISED) <= 10

    def test_siblings_of_a_missing_product_are_told_by_their_lead(self) -> None:
        """Two siblings always near each other cost no similarity: the margin keeps them out."""
        right, wrong = self.rng.normal(0.8, 0.03, 1000), self.rng.normal(0.3, 0.03, 1000)
        wrong[:200], runner_up = 0.79, wrong - 0.2
        runner_up[:200] = 0.78
        right[:200] = 0.95
        fitted = fit_leave_one_out(right, wrong, runner_up)
        known = [decide(candidates(r, w), fitted) for r, w in zip(right, wrong, strict=True)]
        assert known.count(Result.RECOGNISED) >= 950

    def test_where_wrong_always_beats_right_nothing_is_recognised(self) -> None:
        wrong = self.rng.uniform(0.5, 0.9, 200)
        fitted = fit_leave_one_out(wrong - 0.2, wrong, wrong - 0.3)
        everything = [decide(candidates(w, w - 0.2), fitted) for w in wrong]
        assert Result.RECOGNISED not in everything

    def test_with_too_few_pictures_nothing_is_recognised(self) -> None:
        few = np.linspace(0.5, 0.9, MINIMUM_QUERIES - 1)
        assert fit_leave_one_out(few, few - 0.4, few - 0.5) == Thresholds.cautious()

    def test_a_query_without_company_of_its_own_or_without_strangers_does_not_count(self) -> None:
        right, wrong = np.linspace(0.7, 0.9, 100), np.linspace(0.2, 0.4, 100)
        lonely = fit_leave_one_out(
            np.concatenate([right, np.full(50, -1.0), np.full(50, 0.1)]),
            np.concatenate([wrong, np.full(50, 0.9), np.full(50, -1.0)]),
            np.concatenate([wrong - 0.1, np.full(50, 0.9), np.full(50, -1.0)]),
        )
        assert lonely == fit_leave_one_out(right, wrong, wrong - 0.1)
