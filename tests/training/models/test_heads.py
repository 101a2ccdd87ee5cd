"""Margins against their papers' formulas, one crop and one class at a time, and against pytorch-metric-learning."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import ArcFaceLoss, CircleLoss, CosFaceLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor
from torch.nn import functional

from training.models.heads import ArcMargin, CircleMargin, CosMargin, FCHead, MarginHead


def slow_logits(head: MarginHead, embedding: Tensor, labels: Tensor) -> Tensor:
    logits = torch.empty(len(embedding), len(head.weight))
    m, s = head.margin, head.scale
    for i, x in enumerate(embedding):
        for j, w in enumerate(head.weight):
            cosine = float(x @ w / (x.norm() * w.norm()))
            own = int(labels[i]) == j
            if isinstance(head, ArcMargin):
                angle = math.acos(max(-1.0, min(1.0, cosine)))
                turned = math.cos(angle + m) if angle + m < math.pi else cosine - m * math.sin(m)
                value = turned if own else cosine
            elif isinstance(head, CosMargin):
                value = cosine - m if own else cosine
            else:
                weight = max(0, 1 + m - cosine) if own else max(0, cosine + m)
                value = weight * (cosine - (1 - m if own else m))
            logits[i, j] = s * value
    return logits


@pytest.mark.parametrize("kind", [ArcMargin, CosMargin, CircleMargin])
def test_a_margin_is_its_formula_in_training_and_a_cosine_otherwise(kind: type[MarginHead]) -> None:
    torch.manual_seed(0)
    head = kind(6, n_classes=4)
    embedding = torch.cat([torch.randn(5, 6), -head.weight[:1] + 0.01 * torch.randn(1, 6)]).detach()
    labels = torch.tensor([0, 1, 2, 3, 1, 0])  # the last is all but opposite to its class
    torch.testing.assert_close(
        head.train()(embedding, labels), slow_logits(head, embedding, labels), rtol=1e-3, atol=1e-2
    )
    cosines = torch.nn.functional.cosine_similarity(embedding[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(embedding), cosines)
    torch.testing.assert_close(head.eval()(embedding, labels), cosines)


def second_opinion(head: MarginHead, embedding: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """pytorch-metric-learning's loss with the head's margin, scale and weights; its gradients for crops and weights."""
    if isinstance(head, CircleMargin):
        # The library knows circle loss on pairs alone. With each class' weight as the one reference of its class the
        # two are the same: log(1 + exp(-own) * sum(exp(others))) is cross-entropy.
        weight = head.weight.detach().clone().requires_grad_()
        on_pairs = CircleLoss(m=head.margin, gamma=head.scale, reducer=MeanReducer())
        value = on_pairs(embedding, labels, ref_emb=weight, ref_labels=torch.arange(len(weight)))
        return value, *torch.autograd.grad(value, [embedding, weight])
    n_classes, dimension = head.weight.shape
    if isinstance(head, ArcMargin):
        loss = ArcFaceLoss(n_classes, dimension, margin=math.degrees(head.margin), scale=head.scale).double()
    else:
        loss = CosFaceLoss(n_classes, dimension, margin=head.margin, scale=head.scale).double()
    loss.W.data = head.weight.detach().T.clone()
    value = loss(embedding, labels)
    of_crops, of_weights = torch.autograd.grad(value, [embedding, loss.W])
    return value, of_crops, of_weights.T


@pytest.mark.parametrize(
    ("kind", "near"),
    # ArcMargin's sine is upstream's, with SINE_EPS in it.
    [(ArcMargin, {"rtol": 1e-3, "atol": 1e-4}), (CosMargin, {}), (CircleMargin, {})],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_margin_agrees_with_pytorch_metric_learning_in_value_and_gradients(
    kind: type[MarginHead], near: dict[str, float], seed: int
) -> None:
    torch.manual_seed(seed)
    head = kind(8, n_classes=6).double().train()
    embedding = torch.randn(20, 8, dtype=torch.float64)
    labels = torch.arange(20) % 6
    # One crop is all but opposite to its class, where ArcMargin falls on as a line.
    embedding[0] = -head.weight[0].detach() + 0.01 * torch.randn(8)
    embedding.requires_grad_()
    value = functional.cross_entropy(head(embedding, labels), labels)
    found = (value, *torch.autograd.grad(value, [embedding, head.weight]))
    for one, wanted in zip(found, second_opinion(head, embedding, labels), strict=True):
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(one, wanted, **near)


def test_gradients_stay_finite_where_an_embedding_is_its_classs_weight() -> None:
    head = ArcMargin(6, n_classes=2).train()
    embedding = head.weight[:1].detach().clone().requires_grad_()
    head(embedding, torch.tensor([0])).sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_a_plain_head_is_linear_without_bias() -> None:
    head = FCHead(6, n_classes=3)
    x = torch.randn(2, 6)
    torch.testing.assert_close(head(x), x @ head.fc.weight.T)
    assert len(list(head.parameters())) == 1
