"""A sum of losses is their sum, with names for the log."""

import pytest
import torch

from tests.training.losses.outputs import output, random
from training.losses.classification import CrossEntropy
from training.losses.triplet import TripletAngularMargin
from training.losses.weighted_sum import WeightedSum

LABELS = torch.tensor([0, 0, 1, 1])


def test_it_is_the_sum_of_its_weighted_terms() -> None:
    given = output(embedding=random(4, 3), logits=random(4, 2, seed=1))
    entropy, triplet = CrossEntropy(label_smoothing=0.1), TripletAngularMargin()
    loss = WeightedSum({"entropy": (1.0, entropy), "triplet": (0.5, triplet)})
    parts = loss.parts(given, LABELS)
    assert list(parts) == ["entropy", "triplet"]
    torch.testing.assert_close(parts["triplet"], 0.5 * triplet(given, LABELS))
    torch.testing.assert_close(loss(given, LABELS), entropy(given, LABELS) + 0.5 * triplet(given, LABELS))


def test_its_gradient_is_the_weighted_sum_of_gradients() -> None:
    embedding, logits = random(4, 3), random(4, 2, seed=1)
    given = output(embedding=embedding, logits=logits)
    terms = {"entropy": (2.0, CrossEntropy()), "triplet": (0.5, TripletAngularMargin())}
    found = torch.autograd.grad(WeightedSum(terms)(given, LABELS), (embedding, logits))
    torch.testing.assert_close(
        found[0], 0.5 * torch.autograd.grad(TripletAngularMargin()(given, LABELS), embedding)[0]
    )
    torch.testing.assert_close(found[1], 2 * torch.autograd.grad(CrossEntropy()(given, LABELS), logits)[0])


def test_parameters_of_its_losses_are_its_own() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

    assert len(list(WeightedSum({"scaled": (1.0, Scaled())}).parameters())) == 1


def test_no_loss_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        WeightedSum({})
