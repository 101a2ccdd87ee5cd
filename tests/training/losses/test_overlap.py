"""IoU equals the one that serving uses, GIoU its definition; both have gradients everywhere."""

import numpy as np
import pytest
import torch

from recognition.boxes import pairwise_iou
from tests.training.losses.outputs import random
from training.losses.overlap import overlap


def some_boxes(n: int, seed: int) -> torch.Tensor:
    corner = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 50
    sides = (
        torch.rand(n, 2, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64) * 40 + 1
    )
    return torch.cat((corner, corner + sides), dim=1)


def plain_generalised_iou(a: list[float], b: list[float]) -> float:
    def area(box: list[float]) -> float:
        return max(0, box[2] - box[0]) * max(0, box[3] - box[1])

    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - shared
    enclosing = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return shared / union - (enclosing - union) / enclosing


def test_all_pairs_are_as_serving_and_the_definition_have_them() -> None:
    a, b = some_boxes(7, 0), some_boxes(5, 1)
    found = overlap(a[:, None], b[None])
    serving = pairwise_iou(a.numpy().astype(np.float32), b.numpy().astype(np.float32))
    np.testing.assert_allclose(found.iou.numpy(), serving, atol=1e-5)
    expected = [[plain_generalised_iou(x, y) for y in b.tolist()] for x in a.tolist()]
    np.testing.assert_allclose(found.generalised.numpy(), expected, atol=1e-9)


def test_row_by_row_is_the_diagonal_of_all_pairs() -> None:
    a, b = some_boxes(5, 0), some_boxes(5, 1)
    pairs = overlap(a[:, None], b[None])
    rows = overlap(a, b)
    torch.testing.assert_close(rows.iou, pairs.iou.diagonal())
    torch.testing.assert_close(rows.generalised, pairs.generalised.diagonal())


@pytest.mark.parametrize(
    ("other", "iou", "generalised"),
    [
        ((0, 0, 10, 10), 1.0, 1.0),
        ((0, 0, 10, 5), 0.5, 0.5),  # inside: nothing of the enclosing box is left over
        ((10, 0, 20, 10), 0.0, 0.0),  # side by side
        ((20, 0, 30, 10), 0.0, -1 / 3),  # a gap as wide as each
        ((5, 5, 15, 15), 25 / 175, 25 / 175 - 50 / 225),
        ((5, 5, 5, 5), 0.0, 0.0),  # a point inside
    ],
)
def test_cases_by_hand(other: tuple[float, ...], iou: float, generalised: float) -> None:
    found = overlap(torch.tensor((0.0, 0.0, 10.0, 10.0)), torch.tensor(other, dtype=torch.float32))
    assert found.iou.item() == pytest.approx(iou)
    assert found.generalised.item() == pytest.approx(generalised)


def test_boxes_without_area_divide_nothing_by_zero() -> None:
    points = torch.tensor([[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 8.0]]).requires_grad_()
    found = overlap(points, points.detach())
    (found.iou.sum() + found.generalised.sum()).backward()
    assert torch.equal(found.iou, torch.zeros(2))
    assert points.grad is not None
    assert points.grad.isfinite().all()


def test_gradient_by_finite_differences_even_where_boxes_do_not_touch() -> None:
    a, b = some_boxes(6, 0).requires_grad_(), some_boxes(6, 1)
    assert torch.autograd.gradcheck(lambda x: overlap(x, b).generalised, a)
    assert torch.autograd.gradcheck(lambda x: overlap(x, b).iou, a)
    apart = b + 1000
    (gradient,) = torch.autograd.grad(overlap(a, apart).generalised.sum(), a)
    assert (gradient != 0).any(dim=1).all()  # this is what the generalised one is for


def test_no_boxes_have_no_overlaps() -> None:
    assert overlap(random(0, 4)[:, None], some_boxes(3, 0)[None]).iou.shape == (0, 3)
    assert overlap(some_boxes(3, 0)[:, None], random(0, 4)[None]).generalised.shape == (3, 0)
