"""PicoDet's loss equals a slow plain version of the whole, term by term, and its parts their formulas."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.training.losses.outputs import random
from training.losses.detection import PicoDetLoss, as_points, distribution_focal
from training.losses.sim_ota import NO_BOX, SimOTA
from training.models.picodet import LevelOutput, decode

SIDE = 64
LEVEL_STRIDES = (8, 16, 32, 64)


def some_levels(
    n_pictures: int, n_classes: int, *, seed: int = 0, strides: Sequence[int] = LEVEL_STRIDES
) -> tuple[LevelOutput, ...]:
    """Random maps of a picture of 64 x 64 that want gradients, float64."""
    return tuple(
        LevelOutput(
            random(n_pictures, n_classes, SIDE // stride, SIDE // stride, seed=seed + stride),
            random(n_pictures, 32, SIDE // stride, SIDE // stride, seed=seed + stride + 1, scale=1.5),
            stride,
        )
        for stride in strides
    )


def no_boxes() -> tuple[Tensor, Tensor]:
    return torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


THREE = torch.tensor(
    [[5.0, 6.0, 40.0, 50.0], [20.0, 8.0, 60.0, 30.0], [2.0, 40.0, 12.0, 60.0]], dtype=torch.float64
)
ONE = torch.tensor([[10.0, 10.0, 50.0, 44.0]], dtype=torch.float64)
BATCH_BOXES = [THREE, no_boxes()[0].double(), ONE]
BATCH_LABELS = [torch.tensor([2, 0, 1]), no_boxes()[1], torch.tensor([1])]


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def plain_distribution_focal(logits: list[float], distance: float) -> float:
    left = int(distance)
    shares = softmax(logits)
    return -(left + 1 - distance) * math.log(shares[left]) - (distance - left) * math.log(shares[left + 1])


def plain_overlap(a: list[float], b: list[float]) -> tuple[float, float]:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    enclosing = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (enclosing - union) / enclosing


def plain_varifocal(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    if target > 0:
        return -target * (target * math.log(p) + (1 - target) * math.log(1 - p))
    return -0.75 * p**2 * math.log(1 - p)


def plain_picodet(
    levels: Sequence[LevelOutput], boxes: list[Tensor], labels: list[Tensor]
) -> tuple[float, float, float]:
    """The three weighted terms, cell by cell; who is assigned to whom is SimOTA's and tested there."""
    varifocal_sum = box_sum = distribution_sum = weight_sum = 0.0
    n_assigned = 0
    for picture in range(len(boxes)):
        cells = []
        for level in levels:
            _, _, height, width = level.scores.shape
            for row in range(height):
                for column in range(width):
                    x, y = column + 0.5, row + 0.5  # in strides
                    sides = level.distributions[picture, :, row, column].reshape(4, 8).tolist()
                    left, top, right, bottom = (
                        sum(bin_number * share for bin_number, share in enumerate(softmax(side)))
                        for side in sides
                    )
                    box = [(x - left), (y - top), (x + right), (y + bottom)]
                    cells.append(
                        (level.stride, (x, y), level.scores[picture, :, row, column].tolist(), sides, box)
                    )
        assigned = (
            SimOTA()
            .assign(
                score_logits=torch.tensor([cell[2] for cell in cells], dtype=torch.float64),
                predicted_boxes=torch.tensor(
                    [[v * cell[0] for v in cell[4]] for cell in cells], dtype=torch.float64
                ),
                points=torch.tensor([[v * cell[0] for v in cell[1]] for cell in cells], dtype=torch.float64),
                strides=torch.tensor([float(cell[0]) for cell in cells], dtype=torch.float64),
                boxes=boxes[picture],
                labels=labels[picture],
            )
            .tolist()
        )
        for (stride, (x, y), score_logits, sides, box), box_number in zip(cells, assigned, strict=True):
            target = [0.0] * len(score_logits)
            if box_number != NO_BOX:
                n_assigned += 1
                wanted = [value / stride for value in boxes[picture][box_number].tolist()]
                iou, generalised = plain_overlap(box, wanted)
                target[labels[picture][box_number]] = iou
                weight = max(1 / (1 + math.exp(-logit)) for logit in score_logits)
                weight_sum += weight
                box_sum += weight * (1 - generalised)
                distances = (x - wanted[0], y - wanted[1], wanted[2] - x, wanted[3] - y)
                for side, distance in zip(sides, distances, strict=True):
                    distribution_sum += (
                        weight * plain_distribution_focal(side, min(max(distance, 0), 6.9)) / 4
                    )
            varifocal_sum += sum(map(plain_varifocal, score_logits, target))
    return (
        varifocal_sum / max(1, n_assigned),
        2 * box_sum / max(1, weight_sum),
        0.25 * distribution_sum / max(1, weight_sum),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_is_the_plain_version(seed: int) -> None:
    levels = some_levels(3, 3, seed=100 * seed)
    found = PicoDetLoss()(levels, BATCH_BOXES, BATCH_LABELS)
    expected = plain_picodet(levels, BATCH_BOXES, BATCH_LABELS)
    assert [term.item() for term in found[1:]] == pytest.approx(expected)
    assert found.total.item() == pytest.approx(sum(expected))


def test_weak_scores_are_not_blown_up_by_their_norm() -> None:
    # At the start every score is near 0.01; the sum of so few weights is below 1 and counts as 1.
    levels = tuple(level._replace(scores=level.scores - 8) for level in some_levels(1, 1))
    found = PicoDetLoss()(levels, [ONE], [torch.tensor([0])])
    assert [term.item() for term in found[1:]] == pytest.approx(
        plain_picodet(levels, [ONE], [torch.tensor([0])])
    )
    assert found.generalised_iou < 0.1


def test_distances_beyond_the_last_bin_are_cut_off_just_below_it() -> None:
    levels = some_levels(1, 1, strides=(8,))
    box, label = torch.tensor([[-40.0, -40.0, 100.0, 100.0]], dtype=torch.float64), torch.tensor([0])
    found = PicoDetLoss()(levels, [box], [label])
    assert [term.item() for term in found[1:]] == pytest.approx(plain_picodet(levels, [box], [label]))


def test_gradient_by_finite_differences_with_the_targets_held() -> None:
    # The varifocal target and the weights move with the boxes but are constants to the gradient, so finite differences
    # of the whole would see more than the gradient does: hold them by taking each kind of map alone.
    levels = some_levels(1, 2, strides=(16, 32))
    boxes, labels = [THREE[:2]], [torch.tensor([0, 1])]
    loss = PicoDetLoss()

    def of_scores(first: Tensor, second: Tensor) -> Tensor:
        replaced = tuple(
            level._replace(scores=scores) for level, scores in zip(levels, (first, second), strict=True)
        )
        return loss(replaced, boxes, labels).varifocal

    def of_distributions(first: Tensor, second: Tensor) -> Tensor:
        replaced = tuple(
            level._replace(distributions=maps) for level, maps in zip(levels, (first, second), strict=True)
        )
        found = loss(replaced, boxes, labels)
        return found.generalised_iou + found.distribution_focal

    assert torch.autograd.gradcheck(of_scores, [level.scores for level in levels])
    assert torch.autograd.gradcheck(of_distributions, [level.distributions for level in levels])


def test_weights_and_targets_are_constants_to_the_gradient() -> None:
    levels = some_levels(1, 2)
    found = PicoDetLoss()(levels, [THREE], [torch.tensor([0, 1, 0])])
    scores, distributions = [level.scores for level in levels], [level.distributions for level in levels]
    to_boxes = torch.autograd.grad(found.varifocal, distributions, retain_graph=True, allow_unused=True)
    to_scores = torch.autograd.grad(
        found.generalised_iou + found.distribution_focal, scores, retain_graph=True, allow_unused=True
    )
    assert all(gradient is None or not gradient.any() for gradient in (*to_boxes, *to_scores))


def test_the_terms_take_their_weights() -> None:
    levels = some_levels(3, 3)
    once = PicoDetLoss(varifocal_weight=1, generalised_iou_weight=1, distribution_focal_weight=1)(
        levels, BATCH_BOXES, BATCH_LABELS
    )
    published = PicoDetLoss()(levels, BATCH_BOXES, BATCH_LABELS)
    torch.testing.assert_close(published.varifocal, once.varifocal)
    torch.testing.assert_close(published.generalised_iou, 2 * once.generalised_iou)
    torch.testing.assert_close(published.distribution_focal, 0.25 * once.distribution_focal)


def test_without_any_ground_truth_all_is_background_and_every_map_gets_its_gradient() -> None:
    levels = some_levels(2, 1)
    boxes, labels = no_boxes()
    found = PicoDetLoss()(levels, [boxes, boxes], [labels, labels])
    expected = sum(plain_varifocal(logit, 0) for level in levels for logit in level.scores.flatten().tolist())
    assert found.varifocal.item() == pytest.approx(expected)
    assert found.generalised_iou == 0
    assert found.distribution_focal == 0
    found.total.backward()
    for level in levels:
        assert level.scores.grad is not None
        assert (level.scores.grad > 0).all()  # every score is pushed down
        assert torch.equal(
            level.distributions.grad, torch.zeros_like(level.distributions)
        )  # 0, but not missing


def test_perfect_boxes_cost_no_giou_and_least_focal_loss() -> None:
    # One level of stride 8; the cell at 20, 20 says exactly 2, 2, 2, 2 strides, all others say no size at all.
    scores = torch.full((1, 1, 8, 8), -20.0)
    distributions = torch.zeros(1, 32, 8, 8)
    distributions[0, 0::8] = 50.0
    distributions[0, :, 2, 2] = 0.0
    distributions[0, 2::8, 2, 2] = 50.0
    scores[0, 0, 2, 2] = 20.0
    box = torch.tensor([[4.0, 4.0, 36.0, 36.0]])
    found = PicoDetLoss()((LevelOutput(scores, distributions, 8),), [box], [torch.tensor([0])])
    assert found.total.item() == pytest.approx(0, abs=1e-5)


def test_points_are_the_decoders() -> None:
    levels = some_levels(2, 3)
    points = as_points(levels)
    boxes, scores = decode(levels)
    assert torch.equal(points.boxes, boxes)
    assert torch.equal(points.scores, scores)
    torch.testing.assert_close(points.score_logits.sigmoid(), scores)
    expected = points.distribution_logits.softmax(-1) @ torch.arange(8.0, dtype=torch.float64)
    torch.testing.assert_close((points.centres - boxes[..., :2]) / points.strides[:, None], expected[..., :2])
    torch.testing.assert_close((boxes[..., 2:] - points.centres) / points.strides[:, None], expected[..., 2:])
    assert points.centres[0].tolist() == [4, 4]
    assert points.centres[1].tolist() == [12, 4]  # row by row
    assert points.centres[-1].tolist() == [32, 32]


def test_wide_pictures_keep_their_rows_and_columns_apart() -> None:
    level = LevelOutput(torch.zeros(1, 1, 2, 5), torch.zeros(1, 32, 2, 5), 8)
    assert as_points((level,)).centres[5].tolist() == [4, 12]


def test_norms_are_asked_of_all_processes() -> None:
    levels = some_levels(3, 3)
    given = []

    def double(norms: Tensor) -> Tensor:
        given.append(norms)
        return norms * 2  # as though others had three times as many

    alone = PicoDetLoss()(levels, BATCH_BOXES, BATCH_LABELS)
    together = PicoDetLoss(mean_over_processes=double)(levels, BATCH_BOXES, BATCH_LABELS)
    for mine, ours in zip(alone, together, strict=True):
        torch.testing.assert_close(ours, mine / 2)
    assert len(given) == 1  # one exchange a step, and a process without boxes takes part
    PicoDetLoss(mean_over_processes=double)(levels, [no_boxes()[0]] * 3, [no_boxes()[1]] * 3)
    assert len(given) == 2


def test_the_averaged_gradients_of_two_processes_are_those_of_one_large_batch() -> None:
    levels = some_levels(2, 2)
    boxes, labels = [THREE, ONE], [torch.tensor([0, 1, 0]), torch.tensor([1])]
    maps = [level.scores for level in levels] + [level.distributions for level in levels]
    whole = torch.autograd.grad(PicoDetLoss()(levels, boxes, labels).total, maps)

    halves = [
        tuple(
            LevelOutput(level.scores[half : half + 1], level.distributions[half : half + 1], level.stride)
            for level in levels
        )
        for half in range(2)
    ]
    seen: list[Tensor] = []

    def remember(norms: Tensor) -> Tensor:
        seen.append(norms)
        return norms

    for half in range(2):
        PicoDetLoss(mean_over_processes=remember)(
            halves[half], boxes[half : half + 1], labels[half : half + 1]
        )
    mean = (seen[0] + seen[1]) / 2
    loss = PicoDetLoss(mean_over_processes=lambda _: mean)
    total = sum(
        loss(halves[half], boxes[half : half + 1], labels[half : half + 1]).total for half in range(2)
    )
    for averaged, expected in zip(torch.autograd.grad(total / 2, maps), whole, strict=True):
        torch.testing.assert_close(averaged, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype: torch.dtype) -> None:
    levels = tuple(
        LevelOutput(
            (level.scores.detach() * 10).to(dtype).requires_grad_(),
            (level.distributions.detach() * 10).to(dtype).requires_grad_(),
            level.stride,
        )
        for level in some_levels(3, 3)
    )
    boxes = [of_picture.float() for of_picture in BATCH_BOXES]
    with torch.autocast("cpu", torch.bfloat16):
        found = PicoDetLoss()(levels, boxes, BATCH_LABELS)
    exact = tuple(
        LevelOutput(level.scores.detach().double(), level.distributions.detach().double(), level.stride)
        for level in levels
    )
    expected = PicoDetLoss()(exact, BATCH_BOXES, BATCH_LABELS)
    torch.testing.assert_close(found.total.double(), expected.total, rtol=1e-4, atol=1e-5)
    found.total.backward()
    assert all(level.scores.grad.isfinite().all() for level in levels)
    assert all(level.distributions.grad.isfinite().all() for level in levels)


def test_pictures_and_ground_truth_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        PicoDetLoss()(some_levels(2, 1), [ONE], [torch.tensor([0])])


def test_training_on_one_picture_finds_its_boxes() -> None:
    levels = some_levels(1, 2)
    boxes, labels = [THREE.float()], [torch.tensor([0, 1, 0])]
    maps = [map_ for level in levels for map_ in level[:2]]
    optimizer = torch.optim.Adam(maps, lr=0.3)
    loss = PicoDetLoss()
    for _ in range(60):
        optimizer.zero_grad()
        loss(levels, boxes, labels).total.backward()
        optimizer.step()
    found, scores = decode(levels)
    for box, label in zip(THREE, labels[0], strict=True):
        error = (found[0] - box).abs().amax(1)
        best = error.argmin()
        assert error[best] < 1.5  # pixels
        assert scores[0, best].argmax() == label
        assert scores[0, best, label] > 0.7


def test_distribution_focal_is_its_formula() -> None:
    logits = random(6, 8, scale=2)
    distances = torch.tensor([0.0, 0.25, 3.0, 3.999, 6.5, 6.9], dtype=torch.float64)
    expected = [
        plain_distribution_focal(row, distance)
        for row, distance in zip(logits.tolist(), distances.tolist(), strict=True)
    ]
    assert distribution_focal(logits, distances).tolist() == pytest.approx(expected)


def test_distribution_focal_gradient_is_the_softmax_less_both_bins() -> None:
    logits = random(1, 8, scale=2)
    distribution_focal(logits, torch.tensor([2.3], dtype=torch.float64)).sum().backward()
    target = torch.zeros(1, 8, dtype=torch.float64)
    target[0, 2], target[0, 3] = 0.7, 0.3
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - target)


def test_distribution_focal_is_least_where_the_distribution_expects_the_distance() -> None:
    logits = torch.zeros(8, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        distribution_focal(logits, torch.tensor(4.7, dtype=torch.float64)).backward()
        optimizer.step()
    expected = (logits.detach().softmax(0) * torch.arange(8)).sum()
    assert expected.item() == pytest.approx(4.7, abs=0.02)
