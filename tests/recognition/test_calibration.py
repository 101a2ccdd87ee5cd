"""Thresholds keep their rate on queries that they have not seen; the confidence means what it says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.calibration import (
    FOLDS,
    LOST_SHARE,
    RESULTS,
    RIDGE,
    Answers,
    Searched,
    allowed_false_accepts,
    cross_fit,
    fewest_queries,
    fit_as_told,
    fit_confidence,
    fit_thresholds,
    gather_searched,
    judge,
    weigh,
)
from recognition.gallery import Match
from recognition.metrics import reliability
from recognition.ranking import (
    LOWEST,
    UNREACHABLE,
    Candidate,
    Confidence,
    Result,
    Thresholds,
    decide,
    gather_candidates,
)

RECOGNISED = RESULTS.index(Result.RECOGNISED)
UNKNOWN = RESULTS.index(Result.UNKNOWN)


def answers(
    similarity: np.ndarray, lead: np.ndarray | float, right: np.ndarray | bool, answered: np.ndarray | int = 1
) -> Answers:
    n = len(similarity)
    return Answers(
        similarity=np.asarray(similarity, np.float64),
        lead=np.broadcast_to(np.asarray(lead, np.float64), n).copy(),
        answered=np.broadcast_to(np.asarray(answered, np.int64), n).copy(),
        right=np.broadcast_to(np.asarray(right, np.bool_), n).copy(),
        product=np.arange(n, dtype=np.int64) // 5,
    )


class TestGathering:
    def test_own_nearest_other_and_third(self) -> None:
        products = np.array([[7, 8, 7, 9, -1], [8, 8, 9, 9, -1]])
        similarities = np.array([[0.9, 0.8, 0.7, 0.6, -np.inf], [0.5, 0.4, 0.3, 0.2, -np.inf]])
        found = gather_searched(
            products, similarities, np.array([7, 7]), np.array([True, True]), np.array([False, False])
        )
        assert found.right.tolist() == [0.9, LOWEST]
        assert found.wrong.tolist() == [0.8, 0.5]
        assert found.wrong_product.tolist() == [8, 8]
        assert found.runner_up.tolist() == [0.6, 0.3]

    def test_what_lies_beyond_the_last_match_is_taken_to_be_as_near_as_it(self) -> None:
        """Three pictures of the own product fill the matches: the next product may be right behind them."""
        products, similarities = (
            np.array([[7, 7, 7], [7, 8, 8]]),
            np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.6]]),
        )
        found = gather_searched(
            products, similarities, np.array([7, 7]), np.array([True, True]), np.array([False, False])
        )
        assert found.wrong.tolist() == [0.7, 0.8]
        assert found.wrong_product.tolist() == [-1, 8]
        assert found.runner_up.tolist() == [0.7, 0.6]

    @given(
        st.lists(
            st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.1, 0.3, 0.5, 0.9])), max_size=8),
            min_size=1,
            max_size=4,
        )
    )
    def test_answers_are_those_of_the_gathered_candidates(self, found: list[list[tuple[int, float]]]) -> None:
        """Known queries as they are, strangers with their own product left out; a tie with a wrong one is wrong."""
        wide = max(map(len, found)) + 1
        products, similarities = np.full((len(found), wide), -1), np.full((len(found), wide), -np.inf)
        for row, matches in enumerate(found):
            for place, (product, similarity) in enumerate(sorted(matches, key=lambda one: -one[1])):
                products[row, place], similarities[row, place] = product, similarity
        shown = np.ones(len(found), np.int64)
        searched = gather_searched(products, similarities, shown, shown > 0, shown < 0)
        met = [row for row, matches in enumerate(found) if any(product != 1 for product, _ in matches)]
        known, strangers = searched.answers_of_known(), searched.answers_of_strangers()
        assert len(known) == len(strangers) == len(met)
        for place, row in enumerate(met):
            matches = [Match(number, *one) for number, one in enumerate(found[row])]
            everything = gather_candidates(matches)
            others = gather_candidates(one for one in matches if one.product_id != 1)
            for answer, gathered in ((known, everything), (strangers, others)):
                assert answer.similarity[place] == gathered[0].similarity
                runner_up = gathered[1].similarity if len(gathered) > 1 else LOWEST
                assert answer.lead[place] == pytest.approx(gathered[0].similarity - runner_up)
            own = [one.similarity for one in everything if one.product_id == 1]
            assert known.right[place] == (bool(own) and own[0] > others[0].similarity)
            assert not strangers.right[place]

    def test_unknown_skus_and_products_left_out_are_told_apart(self) -> None:
        three = Searched(
            product=np.array([1, 2, -5]),
            known=np.array([True, False, False]),
            foreign=np.array([False, False, True]),
            right=np.array([0.9, LOWEST, LOWEST]),
            wrong=np.array([0.5, 0.6, 0.7]),
            wrong_product=np.array([2, 1, 1]),
            runner_up=np.array([0.1, 0.2, 0.3]),
        )
        assert three.answers_of_known().similarity.tolist() == [0.9]
        assert three.answers_of_strangers(foreign=True).similarity.tolist() == [0.7]
        assert three.answers_of_strangers(foreign=False).similarity.tolist() == [0.5, 0.6]
        assert len(three.answers_of_strangers()) == 3

    def test_who_met_no_other_product_tells_nothing(self) -> None:
        alone = gather_searched(
            np.array([[1, -1]]),
            np.array([[0.9, -np.inf]]),
            np.array([1]),
            np.array([True]),
            np.array([False]),
        )
        assert len(alone.answers_of_known()) == len(alone.answers_of_strangers()) == 0

    def test_whose_matches_all_show_its_product_is_no_stranger(self) -> None:
        """The next product is at most as near as the last match; without its own, who knows what it would meet."""
        crowded = gather_searched(
            np.array([[1, 1]]), np.array([[0.9, 0.8]]), np.array([1]), np.array([True]), np.array([False])
        )
        assert len(crowded.answers_of_strangers()) == 0
        assert crowded.answers_of_known().lead.tolist() == pytest.approx([0.1])


class TestHowManyQueriesARateTakes:
    @pytest.mark.parametrize(("rate", "fewest"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999)])
    def test_the_fewest(self, rate: float, fewest: int) -> None:
        assert fewest_queries(rate) == fewest
        assert allowed_false_accepts(fewest, rate) == 0
        assert allowed_false_accepts(fewest - 1, rate) == -1

    @given(st.integers(1, 5000), st.sampled_from([0.1, 0.05, 0.01, 0.001]))
    def test_as_many_are_allowed_as_the_rate_bears(self, n: int, rate: float) -> None:
        allowed = allowed_false_accepts(n, rate)
        assert (allowed + 1) / (n + 1) <= rate + 1e-12 or allowed == -1
        assert (allowed + 2) / (n + 1) > rate - 1e-12

    @pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
    def test_no_rate(self, rate: float) -> None:
        with pytest.raises(ValueError, match="wanted more than 0 and less than 1"):
            fewest_queries(rate)


class TestFittingThresholds:
    random = np.random.default_rng(0)

    def test_a_new_stranger_is_accepted_as_often_as_was_promised(self) -> None:
        """Over 400 galleries of 120 strangers each: the rate for the next one is 1 %, not 1 % of those fitted on."""
        accepted = []
        for _ in range(400):
            strangers = answers(self.random.normal(0.5, 0.1, 120), 0.2, False)
            known = answers(self.random.normal(0.8, 0.1, 120), 0.2, True)
            fitted = fit_thresholds(known, strangers, 0.01)
            unseen = answers(self.random.normal(0.5, 0.1, 500), 0.2, False)
            accepted.append((judge(unseen, fitted) == RECOGNISED).mean())
        assert 0.006 < np.mean(accepted) < 0.0105  # (0 + 1) / (120 + 1) is 0.0083

    def test_products_that_lie_apart_are_recognised(self) -> None:
        known = answers(self.random.normal(0.9, 0.02, 500), 0.3, True)
        strangers = answers(self.random.normal(0.5, 0.05, 500), 0.05, False)
        fitted = fit_thresholds(known, strangers, 0.01)
        assert (judge(known, fitted) == RECOGNISED).mean() >= 0.99
        assert (judge(strangers, fitted) == RECOGNISED).mean() <= 0.01
        assert (judge(known, fitted) == UNKNOWN).mean() <= LOST_SHARE

    def test_of_what_is_recognised_hardly_any_is_wrong_even_where_flavours_look_alike(self) -> None:
        ahead = self.random.normal(0.05, 0.03, 2000)
        known = answers(self.random.normal(0.8, 0.05, 2000), abs(ahead), ahead > 0)
        strangers = answers(self.random.normal(0.4, 0.05, 2000), 0.3, False)
        fitted = fit_thresholds(known, strangers, 0.01)
        recognised = judge(known, fitted) == RECOGNISED
        assert fitted.margin > 0
        assert recognised.sum() > 100
        assert (recognised & ~known.right).sum() <= 0.01 * recognised.sum()

    def test_siblings_of_a_missing_product_are_told_by_their_lead(self) -> None:
        """Siblings always near each other cost no similarity: the margin keeps them out."""
        known = answers(self.random.normal(0.8, 0.03, 1000), 0.4, True)
        strangers = answers(np.where(np.arange(1000) < 200, 0.95, 0.3), 0.01, False)
        assert (judge(known, fit_thresholds(known, strangers, 0.01)) == RECOGNISED).mean() >= 0.95

    def test_strangers_as_near_as_the_known_and_as_far_ahead_leave_little_to_recognise(self) -> None:
        known = answers(self.random.normal(0.7, 0.05, 1000), 0.3, True)
        strangers = answers(self.random.normal(0.7, 0.05, 1000), 0.3, False)
        fitted = fit_thresholds(known, strangers, 0.01)
        assert (judge(strangers, fitted) == RECOGNISED).sum() <= 9
        assert (judge(known, fitted) == RECOGNISED).mean() < 0.05

    def test_where_the_best_is_always_wrong_nothing_is_recognised(self) -> None:
        wrong = answers(self.random.uniform(0.5, 0.9, 200), 0.2, False)
        fitted = fit_thresholds(wrong, wrong, 0.01)
        assert fitted.recognised == UNREACHABLE
        assert RECOGNISED not in judge(wrong, fitted)

    @pytest.mark.parametrize(("n_known", "n_strangers"), [(98, 500), (500, 98)])
    def test_too_few_are_refused(self, n_known: int, n_strangers: int) -> None:
        few = (
            answers(np.linspace(0.5, 0.9, n_known), 0.2, True),
            answers(np.linspace(0, 0.4, n_strangers), 0, False),
        )
        with pytest.raises(ValueError, match=r"a rate of 0\.01 takes 99 of each"):
            fit_thresholds(*few, 0.01)

    def test_what_few_can_tell_is_fitted_where_it_is_asked_for(self) -> None:
        known, strangers = (
            answers(np.linspace(0.7, 0.9, 30), 0.2, True),
            answers(np.linspace(0, 0.4, 30), 0, False),
        )
        fitted = fit_as_told(known, strangers, 0.01)
        assert (judge(known, fitted) == RECOGNISED).all()
        assert fit_as_told(known.take(np.zeros(30, bool)), strangers, 0.01) == Thresholds.cautious()


class TestOwnThresholdsOfProducts:
    """Product 1 attracts near strangers, product 2 only far ones, product 3 hardly any."""

    random = np.random.default_rng(1)

    def queries(self, n_third: int = 20) -> tuple[Answers, Answers]:
        centres = {1: 0.75, 2: 0.3, 3: 0.5}
        counts = {1: 400, 2: 400, 3: n_third}
        known, strangers = [], []
        for product, n in counts.items():
            known.append((self.random.normal(0.8, 0.05, n), product))
            strangers.append((self.random.normal(centres[product], 0.05, n), product))
        return tuple(
            answers(
                np.concatenate([similarity for similarity, _ in parts]),
                0.2,
                right,
                np.concatenate([np.full(len(similarity), product) for similarity, product in parts]),
            )
            for parts, right in ((known, True), (strangers, False))
        )

    def test_only_where_the_data_suffices(self) -> None:
        fitted = fit_thresholds(*self.queries(), 0.01)
        assert sorted(fitted.products) == [1, 2]
        assert fitted.of(2).recognised < 0.7 < 0.8 < fitted.of(1).recognised
        assert fitted.of(3) is fitted
        assert sorted(fit_thresholds(*self.queries(n_third=99), 0.01).products) == [1, 2, 3]

    def test_the_rate_holds_of_each_product_and_more_is_recognised(self) -> None:
        known, strangers = self.queries(n_third=300)
        fitted = fit_thresholds(known, strangers, 0.02)
        for product in (1, 2, 3):
            of = strangers.answered == product
            assert (judge(strangers, fitted) == RECOGNISED)[of].mean() <= 0.02
        one_for_all = replace(fitted, products={})
        assert fit_thresholds(known, strangers, 0.02).products
        pooled = fit_thresholds(replace(known, answered=np.arange(len(known))), strangers, 0.02)
        assert not pooled.products
        recognised = [(judge(known, one) == RECOGNISED).mean() for one in (fitted, pooled)]
        assert recognised[0] > recognised[1] + 0.3
        assert one_for_all.of(1) is one_for_all


def test_judging_all_at_once_is_deciding_one_by_one() -> None:
    random = np.random.default_rng(2)
    some = answers(
        random.choice([0.3, 0.5, 0.7, 0.9], 300),
        random.choice([0.0, 0.1, 0.2], 300),
        True,
        random.integers(1, 5, 300),
    )
    thresholds = Thresholds(
        0.7, 0.1, 0.4, {2: Thresholds(0.5, 0.2, 0.3), 3: Thresholds(UNREACHABLE, 0, LOWEST)}
    )
    for similarity, lead, product, found in zip(
        some.similarity, some.lead, some.answered, judge(some, thresholds), strict=True
    ):
        candidates = [Candidate(int(product), similarity, ()), Candidate(99, similarity - lead, ())]
        exact = replace(thresholds)
        if math.isclose(similarity - candidates[1].similarity, exact.of(int(product)).margin):
            continue  # a float's last place
        assert RESULTS[found] is decide(candidates, exact)
    nothing = answers(np.array([LOWEST]), 0.0, False, -1)
    assert judge(nothing, thresholds).tolist() == [UNKNOWN]


class TestFittingTheConfidence:
    random = np.random.default_rng(3)

    def draw(self, n: int) -> tuple[Answers, Answers]:
        """Known queries that are right by a known logistic law; strangers nearer to LOWEST, never right."""
        similarity, lead = self.random.uniform(0.2, 1, n), self.random.uniform(0, 0.4, n)
        law = Confidence(-3, 5, 4, 0.1)
        right = self.random.random(n) < law.of(similarity, lead)
        strangers = answers(self.random.uniform(0, 0.6, n), self.random.uniform(0, 0.1, n), False)
        return answers(similarity, lead, right), strangers

    def test_it_is_the_minimum_of_the_stated_sum(self) -> None:
        known, strangers = self.draw(400)
        fitted = fit_confidence(known, strangers, 0.2)
        weight = np.concatenate(weigh(400, 400, 0.2))
        assert weight[400:].sum() / weight.sum() == pytest.approx(0.2)
        similarity = np.concatenate([known.similarity, strangers.similarity])
        root = np.sqrt(np.concatenate([known.lead, strangers.lead]))
        right = np.concatenate([known.right, strangers.right])

        def total(intercept: float, b: float, c: float) -> float:
            z = intercept + b * similarity + c * root
            loss = sum(
                w * (np.logaddexp(0, one) - y * one) for w, one, y in zip(weight, z, right, strict=True)
            )
            return float(loss + RIDGE / 2 * ((b * similarity.std()) ** 2 + (c * root.std()) ** 2))

        here = fitted.intercept, fitted.similarity, fitted.lead
        least = total(*here)
        for change in np.eye(3) * 0.02:
            assert least < total(*(np.array(here) + change))
            assert least < total(*(np.array(here) - change))

    def test_what_it_says_of_unseen_queries_is_so(self) -> None:
        fitted = fit_confidence(*self.draw(3000), 0.1)
        known, strangers = self.draw(3000)
        said = np.concatenate([fitted.of(one.similarity, one.lead) for one in (known, strangers)])
        curve = reliability(
            said, np.concatenate([known.right, strangers.right]), np.concatenate(weigh(3000, 3000, 0.1))
        )
        assert curve.error < 0.03

    def test_a_greater_share_of_unknown_makes_it_less_sure(self) -> None:
        known, strangers = self.draw(500)
        rare, common = (fit_confidence(known, strangers, share) for share in (0.02, 0.5))
        at = np.array(0.6), np.array(0.1)
        assert common.of(*at) < rare.of(*at)

    def test_similarity_that_speaks_against_itself_gets_no_weight(self) -> None:
        similarity = self.random.uniform(0.2, 1, 500)
        known = answers(similarity, self.random.uniform(0, 0.4, 500), self.random.random(500) > similarity)
        strangers = answers(self.random.uniform(0.8, 1, 500), 0.0, False)
        fitted = fit_confidence(known, strangers, 0.3)
        assert fitted.similarity == 0
        assert fitted.lead > 0

    def test_wholly_apart_it_stays_finite(self) -> None:
        fitted = fit_confidence(
            answers(np.full(100, 0.9), 0.5, True), answers(np.full(100, 0.1), 0.0, False), 0.1
        )
        assert 0.9 < fitted.of(np.array(0.9), np.array(0.5)) < 1
        assert fitted.of(np.array(0.1), np.array(0.0)) < 0.2

    @pytest.mark.parametrize(("n", "share"), [(0, 0.1), (5, 0.0), (5, 1.0)])
    def test_nothing_to_fit_on(self, n: int, share: float) -> None:
        with pytest.raises(ValueError, match="wanted some of each"):
            fit_confidence(answers(np.ones(5), 0, True), answers(np.ones(n), 0, False), share)


class TestCrossFitting:
    random = np.random.default_rng(4)

    def test_a_query_is_judged_without_its_product(self) -> None:
        """One product alone is answered wrongly with great similarity. Fitted on, its ten queries would raise the
        threshold above themselves; held out, they are accepted."""
        known = answers(self.random.normal(0.8, 0.05, 400), 0.2, True)
        strangers = answers(self.random.normal(0.4, 0.05, 400), 0.2, False)
        strangers.similarity[:10] = 0.99
        strangers.product[:] = np.arange(400) // 10
        fitted = fit_thresholds(known, strangers, 0.02)
        assert (judge(strangers.take(np.arange(10)), fitted) == RECOGNISED).sum() == 0
        _, held_out = cross_fit(known, strangers, 0.02, 0.1)
        assert (held_out.result[:10] == RECOGNISED).all()

    def test_every_query_is_judged_once_by_a_fit_of_the_others(self) -> None:
        known = answers(self.random.normal(0.8, 0.05, 300), 0.2, True)
        strangers = answers(self.random.normal(0.5, 0.05, 300), 0.2, False)
        judged_known, judged_strangers = cross_fit(known, strangers, 0.01, 0.1)
        assert (judged_known.confidence > judged_strangers.confidence.max()).mean() > 0.9
        assert (judged_strangers.result == RECOGNISED).mean() <= 0.02
        assert (judged_known.result == RECOGNISED).mean() > 0.9
        again = cross_fit(known, strangers, 0.01, 0.1)[0]
        assert (again.result == judged_known.result).all()

    def test_a_products_own_thresholds_are_judged_by_what_they_do_to_further_queries(self) -> None:
        """Products that attract strangers of differing nearness: a fit without a product knows none of its own
        thresholds, and would say a good deal less than what the whole fit does to new queries."""

        def draw(n_each: int) -> tuple[Answers, Answers]:
            product = np.repeat(np.arange(20), n_each)
            attracts = np.linspace(0.3, 0.75, 20)[product]
            known = answers(self.random.normal(attracts + 0.2, 0.04), 0.2, True, product)
            strangers = answers(self.random.normal(attracts, 0.04), 0.2, False, product)
            siblings = (product + 1 + np.arange(len(product)) % 19) % 20
            return replace(known, product=product), replace(strangers, product=siblings)

        known, strangers = draw(100)
        fitted = fit_thresholds(known, strangers, 0.02)
        assert len(fitted.products) == 20
        further = [(judge(one, fitted) == RECOGNISED).mean() for one in draw(1000)]
        said = [(one.result == RECOGNISED).mean() for one in cross_fit(known, strangers, 0.02, 0.1)]
        general = (judge(draw(1000)[0], replace(fitted, products={})) == RECOGNISED).mean()
        assert said == pytest.approx(further, abs=0.03)
        assert general < said[0] - 0.3

    def test_two_products_suffice_one_does_not(self) -> None:
        known, strangers = answers(np.full(10, 0.8), 0.2, True), answers(np.full(10, 0.3), 0.2, False)
        assert FOLDS > 2
        cross_fit(known, strangers, 0.01, 0.1)
        one = np.arange(10) < 5
        with pytest.raises(ValueError, match="1 products; to hold one out takes two"):
            cross_fit(known.take(one), strangers.take(one), 0.01, 0.1)
