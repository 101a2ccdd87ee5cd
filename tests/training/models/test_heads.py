"""Margins against their papers' formulas, one crop and one class at a time."""

import math

import pytest
import torch
from torch import Tensor

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
