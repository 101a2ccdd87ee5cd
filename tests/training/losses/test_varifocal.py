"""Varifocal loss equals its formula, value by value and pair by pair."""

import math

import pytest
import torch

from tests.training.losses.outputs import HALF_PRECISIONS, random
from training.losses.varifocal import pairwise_varifocal, varifocal


def plain_varifocal(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    if target > 0:
        return -target * (target * math.log(p) + (1 - target) * math.log(1 - p))
    return -0.75 * p**2 * math.log(1 - p)


def test_it_is_its_formula() -> None:
    logits = random(4, 6, scale=3)
    targets = torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets[targets < 0.5] = 0
    expected = [
        [plain_varifocal(logit, target) for logit, target in zip(*rows, strict=True)]
        for rows in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(varifocal(logits, targets), torch.tensor(expected, dtype=torch.float64))


def test_gradient_by_finite_differences_goes_through_the_negatives_weight_too() -> None:
    targets = torch.tensor([[0.0, 0.3, 0.0, 1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: varifocal(x, targets), random(1, 4))


def test_no_gradient_goes_into_targets() -> None:
    targets = torch.full((3,), 0.5).requires_grad_()
    assert not varifocal(torch.zeros(3), targets).requires_grad


def test_an_easy_negative_counts_less_than_a_hard_one_and_a_positive_by_its_target() -> None:
    easy, hard = varifocal(torch.tensor([-3.0, 3.0]), torch.zeros(2))
    assert hard / easy > 1000
    # At the optimum, p = q, the loss is q times the entropy of q.
    q = torch.tensor([0.25])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert varifocal(q.logit(), q).item() == pytest.approx(0.25 * entropy)


@pytest.mark.parametrize("n_classes", [1, 4])
def test_pairwise_is_the_sum_over_classes_with_the_iou_at_the_label(n_classes: int) -> None:
    logits = random(5, n_classes, scale=3).detach()
    labels = torch.tensor([0, n_classes - 1, 0])
    iou = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    iou[iou < 0.4] = 0  # no overlap: the label is a negative like the others
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for point in range(5):
        for box in range(3):
            for class_number in range(n_classes):
                target = iou[point, box].item() if class_number == labels[box] else 0.0
                expected[point, box] += plain_varifocal(logits[point, class_number].item(), target)
    torch.testing.assert_close(pairwise_varifocal(logits, labels, iou), expected)


@pytest.mark.parametrize("dtype", HALF_PRECISIONS)
def test_half_precision_stays_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([60_000.0, -60_000.0, 0.0], dtype=dtype).requires_grad_()
    for target in (0.0, 0.5, 1.0):
        found = varifocal(logits, torch.full((3,), target, dtype=dtype))
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert gradient.isfinite().all()


def test_nothing_costs_nothing() -> None:
    assert varifocal(torch.zeros(0, 3), torch.zeros(0, 3)).sum() == 0
    assert pairwise_varifocal(
        torch.zeros(4, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(4, 0)
    ).shape == (4, 0)
