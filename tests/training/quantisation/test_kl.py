"""KL calibration against the talk's algorithm in plain loops."""

import math

import numpy as np
import pytest

from training.quantisation import kl
from training.quantisation.kl import histogram, kl_cut


def plain_divergence(counts: list[int], kept: int, levels: int) -> float:
    """The slides' loop body, with runs of bins as equal as whole numbers allow."""
    true = [float(count) for count in counts[:kept]]
    true[-1] += sum(counts[kept:])
    rounded = [0.0] * kept
    for level in range(levels):
        run = range(level * kept // levels, (level + 1) * kept // levels)
        holding = [place for place in run if counts[place]]
        for place in holding:
            rounded[place] = sum(counts[other] for other in run) / len(holding)
    if any(t > 0 and r == 0 for t, r in zip(true, rounded, strict=True)):
        return math.inf
    p = [value / sum(true) for value in true]
    q = [value / sum(rounded) for value in rounded]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("levels", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_cut_is_that_of_the_plain_algorithm(
    levels: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kl, "CUT_STEP", 1)
    random = np.random.default_rng(seed)
    counts = (np.exp(-np.arange(60) / 9) * 400).astype(np.int64) + random.integers(0, 4, 60)
    counts[random.integers(10, 60, 12)] = 0
    found = {kept: plain_divergence(counts.tolist(), kept, levels) for kept in range(levels, 61)}
    least = min(found.values())
    best = kl_cut(counts, levels)
    assert found[best] == pytest.approx(least, abs=1e-12)
    assert 0 < best <= 60


def test_a_lone_outlier_is_cut_off_and_a_full_range_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kl, "BINS", 512)
    random = np.random.default_rng(0)
    values = np.abs(random.standard_normal(100_000)).astype(np.float32)
    with_outlier = np.append(values, np.float32(40.0))
    assert kl_cut(histogram(with_outlier, 40.0), 16) < 512 * 0.2
    flat = random.uniform(0, 6, 100_000).astype(np.float32)
    assert kl_cut(histogram(flat, 6.0), 16) > 512 * 0.9


def test_zeros_are_not_counted_and_the_largest_value_falls_into_the_last_bin() -> None:
    counts = histogram(np.array([0.0, -0.0, 1.0, -4.0, 4.0], np.float32), 4.0)
    assert counts.sum() == 3
    assert counts[-1] == 2
    assert counts[kl.BINS // 4] == 1


def test_what_is_always_zero_keeps_a_range() -> None:
    assert kl_cut(histogram(np.zeros(10, np.float32), 0.0), 128) == kl.BINS
