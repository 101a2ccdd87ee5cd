"""Learning rates at the steps where they turn."""

import math

import pytest

from training.schedule import learning_rate_factor, scaled_learning_rate
from training.settings import CosineSchedule, PiecewiseSchedule


def test_the_rate_is_in_proportion_to_the_batch() -> None:
    # PP-ShiTuV2: 0.06 for 8 GPUs of 256; one GPU of 256 takes an eighth.
    assert scaled_learning_rate(0.06, total_batch=256, reference_batch=2048) == pytest.approx(0.0075)


def test_cosine_with_warm_up() -> None:
    schedule = CosineSchedule(kind="cosine", warmup_epochs=2)
    factors = [learning_rate_factor(schedule, step, steps_per_epoch=10, epochs=12) for step in range(120)]
    assert factors[0] == 0
    assert factors[10] == pytest.approx(0.5)
    assert factors[20] == 1
    assert factors[70] == pytest.approx(0.5)
    assert factors[119] == pytest.approx((1 + math.cos(math.pi * 99 / 100)) / 2)
    assert factors[20:] == sorted(factors[20:], reverse=True)


def test_picodets_warm_up_counts_steps_and_starts_at_a_tenth() -> None:
    schedule = CosineSchedule(kind="cosine", warmup_steps=300, warmup_start=0.1)
    assert learning_rate_factor(schedule, 0, steps_per_epoch=1000, epochs=100) == pytest.approx(0.1)
    assert learning_rate_factor(schedule, 150, steps_per_epoch=1000, epochs=100) == pytest.approx(0.55)
    assert learning_rate_factor(schedule, 300, steps_per_epoch=1000, epochs=100) == 1


def test_steps() -> None:
    schedule = PiecewiseSchedule(kind="piecewise", epochs=(2.0, 3.0), factors=(0.1, 0.01))
    factors = [learning_rate_factor(schedule, step, steps_per_epoch=2, epochs=5) for step in range(10)]
    assert factors == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]


def test_one_epoch_of_nothing_but_warm_up_never_divides_by_zero() -> None:
    schedule = CosineSchedule(kind="cosine", warmup_epochs=1)
    assert learning_rate_factor(schedule, 1, steps_per_epoch=2, epochs=1) == 0.5
