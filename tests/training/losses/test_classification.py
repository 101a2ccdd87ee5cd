"""Cross-entropy equals its formula, with and without smoothing."""

import math

import pytest
import torch
from torch import Tensor

from tests.training.losses.outputs import HALF_PRECISIONS, output, random
from training.losses.classification import CrossEntropy

LABELS = torch.tensor([0, 2, 2, 4, 1])


def plain_cross_entropy(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for index, value in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing if index == label else 0)
            total -= target * (value - log_sum)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_its_formula(smoothing: float) -> None:
    logits = random(5, 6, scale=3)
    found = CrossEntropy(label_smoothing=smoothing)(output(logits=logits), LABELS)
    assert found.item() == pytest.approx(plain_cross_entropy(logits.tolist(), LABELS.tolist(), smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_its_gradient_is_the_softmax_less_the_target(smoothing: float) -> None:
    logits = random(5, 6, scale=3)
    CrossEntropy(label_smoothing=smoothing)(output(logits=logits), LABELS).backward()
    target = torch.nn.functional.one_hot(LABELS, 6) * (1 - smoothing) + smoothing / 6
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - target) / 5)


def test_a_batch_of_one_and_one_class_alone() -> None:
    loss = CrossEntropy(label_smoothing=0.1)
    assert loss(output(logits=torch.zeros(1, 4)), torch.tensor([3])).item() == pytest.approx(math.log(4))
    assert (
        loss(output(logits=torch.tensor([[7.0]])), torch.tensor([0])).item() == 0
    )  # nothing to confuse it with


@pytest.mark.parametrize("dtype", HALF_PRECISIONS)
def test_half_precision_stays_finite_where_its_sums_would_not(dtype: torch.dtype) -> None:
    logits = torch.full((4, 100_000), 30.0, dtype=dtype).requires_grad_()  # exp(30) alone is beyond float16
    loss: Tensor = CrossEntropy()(output(logits=logits), torch.arange(4))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(100_000), rel=1e-4)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_model_without_head_is_told_so() -> None:
    with pytest.raises(ValueError, match="give the model a head"):
        CrossEntropy()(output(embedding=torch.zeros(2, 3)), torch.tensor([0, 1]))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_that_is_no_share_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropy(label_smoothing=smoothing)
