"""Both triplet losses equal their formulas in value and gradient, upstream's oddities included as documented."""

import math

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor
from torch.nn import functional

from tests.training.losses.outputs import HALF_PRECISIONS, output, random
from training.losses.triplet import (
    BatchHardTriplet,
    TripletAngularMargin,
    batch_hard_triplet,
    triplet_angular_margin,
)

EVEN = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
UNEVEN = torch.tensor([5, 5, 5, 5, 2, 2, 9, 2, 5, 0, 0, 9])


def plain_cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.hypot(*a) * math.hypot(*b))


def plain_angular_margin(
    embeddings: list[list[float]], labels: list[int], *, below_negative_value: float
) -> float:
    """Anchor by anchor, with what a negative below its value costs: 0 is meant, 1 is what upstream does."""
    margin, absolute_weight, positive_value, negative_value = 0.5, 0.1, 0.8, 0.4
    total = 0.0
    for anchor, label in zip(embeddings, labels, strict=True):
        positives, negatives = [], []
        for other, other_label in zip(embeddings, labels, strict=True):
            (positives if label == other_label else negatives).append(plain_cosine(anchor, other))
        hardest_positive, hardest_negative = min(positives), max(negatives)
        total += max(0, margin - (hardest_positive - hardest_negative))
        total += absolute_weight * max(0, positive_value - hardest_positive)
        is_above = hardest_negative > negative_value
        total += absolute_weight * (hardest_negative - negative_value if is_above else below_negative_value)
    return total / len(labels)


def upstream_formula(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The published loss with its branch of ones, written over tensors for its gradient; even counts only."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    same = labels[:, None] == labels[None]
    positive = cosines[same].reshape(len(labels), -1).min(dim=1).values
    negative = cosines[~same].reshape(len(labels), -1).max(dim=1).values
    rank = functional.margin_ranking_loss(positive, negative, torch.ones_like(positive), margin=0.5)
    positive_term = torch.where(0.8 - positive > 0, 0.8 - positive, 0.0)
    negative_term = torch.where(negative - 0.4 > 0, negative - 0.4, 1.0)
    return rank + 0.1 * (positive_term.mean() + negative_term.mean())


@pytest.mark.parametrize("labels", [EVEN, UNEVEN])
@pytest.mark.parametrize("seed", range(3))
def test_angular_margin_is_its_formula(labels: Tensor, seed: int) -> None:
    embeddings = random(12, 5, seed=seed)
    found = TripletAngularMargin()(output(embedding=embeddings), labels)
    expected = plain_angular_margin(embeddings.tolist(), labels.tolist(), below_negative_value=0)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_angular_margin_has_upstreams_gradient_and_a_value_lower_by_what_the_docstring_says(
    seed: int,
) -> None:
    embeddings = random(
        12, 8, seed=seed
    )  # in 8 dimensions some anchors have all negatives below 0.4, some not
    found = triplet_angular_margin(embeddings, EVEN)
    (gradient,) = torch.autograd.grad(found, embeddings)
    upstream = upstream_formula(embeddings, EVEN)
    (upstream_gradient,) = torch.autograd.grad(upstream, embeddings)
    torch.testing.assert_close(gradient, upstream_gradient)

    plain = plain_angular_margin(embeddings.tolist(), EVEN.tolist(), below_negative_value=1)
    assert upstream.item() == pytest.approx(plain)
    unit = functional.normalize(embeddings)
    negatives = (unit @ unit.T).masked_fill(EVEN[:, None] == EVEN[None], -1).amax(1)
    share = (negatives <= 0.4).double().mean().item()
    assert 0 < share < 1
    assert upstream.item() - found.item() == pytest.approx(0.1 * share)


@pytest.mark.parametrize("labels", [EVEN, UNEVEN])
def test_angular_margin_gradient_by_finite_differences(labels: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: triplet_angular_margin(x, labels), random(12, 5))


def test_angular_margin_takes_its_settings() -> None:
    embeddings = random(12, 5)
    cosines = functional.normalize(embeddings) @ functional.normalize(embeddings).T
    same = EVEN[:, None] == EVEN[None]
    positive = torch.where(same, cosines, 9).amin(1)
    negative = torch.where(same, -9, cosines).amax(1)
    loss = TripletAngularMargin(margin=0.2, absolute_weight=2.0, positive_value=0.6, negative_value=0.1)
    expected = (0.2 - positive + negative).relu() + 2 * ((0.6 - positive).relu() + (negative - 0.1).relu())
    torch.testing.assert_close(loss(output(embedding=embeddings), EVEN), expected.mean())


def test_angular_margin_does_not_see_lengths() -> None:
    embeddings = random(12, 5)
    longer = embeddings * torch.arange(1.0, 13.0)[:, None]
    torch.testing.assert_close(triplet_angular_margin(longer, EVEN), triplet_angular_margin(embeddings, EVEN))


def test_angular_margin_with_one_class_keeps_the_term_on_positives_alone() -> None:
    embeddings = random(4, 5)
    found = triplet_angular_margin(embeddings, torch.zeros(4, dtype=torch.int64))
    cosines = functional.normalize(embeddings) @ functional.normalize(embeddings).T
    torch.testing.assert_close(found, 0.1 * (0.8 - cosines.amin(1)).relu().mean())
    found.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_angular_margin_with_no_positives_only_pushes_negatives() -> None:
    embeddings = random(3, 2)
    unit = functional.normalize(embeddings)
    negative = (unit @ unit.T - 9 * torch.eye(3)).amax(1)
    expected = (0.5 - 1 + negative).relu() + 0.1 * (negative - 0.4).relu()  # an anchor is its own positive: 1
    torch.testing.assert_close(triplet_angular_margin(embeddings, torch.arange(3)), expected.mean())


LOSSES = (TripletAngularMargin(), BatchHardTriplet(), BatchHardTriplet(normalise=False))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_one_costs_nothing(loss: torch.nn.Module) -> None:
    embeddings = random(1, 5)
    found = loss(output(embedding=embeddings), torch.tensor([3]))
    found.backward()
    assert found.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros(1, 5))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_similarities_and_zero_embeddings_stay_finite(loss: torch.nn.Module) -> None:
    for embeddings in (torch.ones(4, 5), torch.zeros(4, 5), torch.eye(4, 5)):
        embeddings.requires_grad_()
        found = loss(output(embedding=embeddings), torch.tensor([0, 0, 1, 1]))
        found.backward()
        assert found.isfinite()
        assert embeddings.grad.isfinite().all()


def test_equal_negatives_share_the_gradient() -> None:
    embeddings = torch.tensor(
        [[1.0, 0, 0], [0.6, 0.8, 0], [0.6, 0, 0.8]], dtype=torch.float64
    ).requires_grad_()
    triplet_angular_margin(embeddings, torch.tensor([0, 1, 1])).backward()
    assert embeddings.grad is not None
    mirrored = embeddings.grad[2, [0, 2, 1]]  # the two negatives mirror each other, and so do their gradients
    torch.testing.assert_close(embeddings.grad[1], mirrored)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", HALF_PRECISIONS)
def test_half_precision_stays_finite_and_near(loss: torch.nn.Module, dtype: torch.dtype) -> None:
    embeddings = (random(12, 64).detach() * 100).to(dtype).requires_grad_()  # squares and sums beyond float16
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(output(embedding=embeddings), EVEN)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), loss(output(embedding=embeddings.detach().double()), EVEN))
    found.backward()
    assert embeddings.grad.isfinite().all()


def plain_batch_hard(
    embeddings: list[list[float]], labels: list[int], margin: float, normalise: bool
) -> float:
    if normalise:
        embeddings = [[value / math.hypot(*row) for value in row] for row in embeddings]
    total = 0.0
    for anchor, label in zip(embeddings, labels, strict=True):
        others = [
            (math.dist(anchor, other), other_label)
            for other, other_label in zip(embeddings, labels, strict=True)
        ]
        farthest = max(distance for distance, other_label in others if other_label == label)
        nearest = min(distance for distance, other_label in others if other_label != label)
        total += max(0, margin + farthest - nearest)
    return total / len(labels)


@pytest.mark.parametrize("labels", [EVEN, UNEVEN])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_batch_hard_is_its_formula(labels: Tensor, normalise: bool, margin: float) -> None:
    embeddings = random(12, 5)
    found = BatchHardTriplet(margin=margin, normalise=normalise)(output(embedding=embeddings), labels)
    assert found.item() == pytest.approx(
        plain_batch_hard(embeddings.tolist(), labels.tolist(), margin, normalise)
    )


@pytest.mark.parametrize("normalise", [True, False])
def test_batch_hard_agrees_with_pytorch_metric_learning_in_value_and_gradient(normalise: bool) -> None:
    embeddings = random(12, 5)
    distance = LpDistance(normalize_embeddings=normalise)
    second_opinion = TripletMarginLoss(margin=0.5, distance=distance, reducer=MeanReducer())
    expected = second_opinion(embeddings, EVEN, BatchHardMiner(distance=distance)(embeddings, EVEN))
    found = batch_hard_triplet(embeddings, EVEN, normalise=normalise)
    torch.testing.assert_close(found, expected)
    (expected_gradient,) = torch.autograd.grad(expected, embeddings)
    (gradient,) = torch.autograd.grad(found, embeddings)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("normalise", [True, False])
def test_batch_hard_gradient_by_finite_differences(normalise: bool) -> None:
    assert torch.autograd.gradcheck(
        lambda x: batch_hard_triplet(x, UNEVEN, normalise=normalise), random(12, 5)
    )


def test_batch_hard_with_one_class_costs_nothing_and_with_no_positives_pushes_negatives() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).requires_grad_()
    assert batch_hard_triplet(embeddings, torch.tensor([4, 4])).item() == 0
    found = batch_hard_triplet(embeddings, torch.tensor([4, 5]), margin=2.0)
    assert found.item() == pytest.approx(2 - math.sqrt(2))
    found.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0


def test_batch_hard_tells_small_distances_apart() -> None:
    # Far from the origin, where distances by inner products would be off by more than they are.
    embeddings = torch.tensor([[1000.0, 0.0], [1000.0, 0.01], [1000.0, 0.03], [1000.0, 0.06]])
    found = batch_hard_triplet(embeddings, torch.tensor([0, 0, 1, 1]), margin=0.05, normalise=False)
    # For each anchor: margin + farthest of its label - nearest of the other.
    expected = (
        max(0, 0.05 + 0.01 - 0.03)
        + max(0, 0.05 + 0.01 - 0.02)
        + max(0, 0.05 + 0.03 - 0.02)
        + max(0, 0.05 + 0.03 - 0.05)
    ) / 4
    assert found.item() == pytest.approx(expected, rel=1e-4)
