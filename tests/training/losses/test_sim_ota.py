"""SimOTA equals a slow plain version, does what it says in cases made by hand, and keeps its promises in all."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.losses.sim_ota import NO_BOX, SimOTA


@dataclass
class Scene:
    """All that an assigner is asked about one picture, in float64 so that the two versions cannot round apart."""

    score_logits: Tensor  # (P, C)
    predicted_boxes: Tensor  # (P, 4)
    points: Tensor  # (P, 2)
    strides: Tensor  # (P,)
    boxes: Tensor  # (G, 4)
    labels: Tensor  # (G,)

    def assigned(self, assigner: SimOTA | None = None) -> list[int]:
        return (assigner or SimOTA()).assign(**vars(self)).tolist()


def grid(side: int, stride: int) -> tuple[Tensor, Tensor]:
    """Points in the middle of each cell of a square picture, row by row, and their strides."""
    ticks = (torch.arange(side // stride, dtype=torch.float64) + 0.5) * stride
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    points = torch.stack((x, y), dim=-1).reshape(-1, 2)
    return points, torch.full((len(points),), float(stride), dtype=torch.float64)


def random_scene(seed: int, n_boxes: int, *, n_classes: int = 3, side: int = 64) -> Scene:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    levels = [grid(side, stride) for stride in (8, 16, 32)]
    points = torch.cat([points for points, _ in levels])
    strides = torch.cat([strides for _, strides in levels])
    reach = uniform(len(points), 4) * 3 * strides[:, None]
    corner = uniform(n_boxes, 2) * side * 0.9
    return Scene(
        score_logits=uniform(len(points), n_classes) * 6 - 4,
        predicted_boxes=torch.cat((points - reach[:, :2], points + reach[:, 2:]), dim=1),
        points=points,
        strides=strides,
        boxes=torch.cat((corner, corner + 2 + uniform(n_boxes, 2) * side * 0.6), dim=1),
        labels=torch.randint(n_classes, (n_boxes,), generator=generator),
    )


def plain_overlap(a: list[float], b: list[float]) -> tuple[float, float]:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    enclosing = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (enclosing - union) / enclosing


def plain_varifocal(p: float, target: float) -> float:
    if target > 0:
        return -target * (target * math.log(p) + (1 - target) * math.log(1 - p))
    return -0.75 * p**2 * math.log(1 - p)


def plain_sim_ota(scene: Scene) -> list[int]:
    points, strides = scene.points.tolist(), scene.strides.tolist()
    boxes, labels = scene.boxes.tolist(), scene.labels.tolist()
    scores, predictions = scene.score_logits.sigmoid().tolist(), scene.predicted_boxes.tolist()

    def is_inside(point: list[float], box: list[float]) -> bool:
        return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]

    def is_near_centre(point: list[float], stride: float, box: list[float]) -> bool:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return abs(point[0] - x) < 2.5 * stride and abs(point[1] - y) < 2.5 * stride

    candidates = [
        index
        for index, point in enumerate(points)
        if any(is_inside(point, box) or is_near_centre(point, strides[index], box) for box in boxes)
    ]
    cost: dict[int, list[float]] = {}
    iou: dict[int, list[float]] = {}
    for index in candidates:
        cost[index], iou[index] = [], []
        for box, label in zip(boxes, labels, strict=True):
            pair_iou, generalised = plain_overlap(predictions[index], box)
            classification = sum(
                plain_varifocal(score, pair_iou if class_number == label else 0)
                for class_number, score in enumerate(scores[index])
            )
            is_both = is_inside(points[index], box) and is_near_centre(points[index], strides[index], box)
            cost[index].append(classification + 6 * (1 - generalised) + (0 if is_both else 1e8))
            iou[index].append(pair_iou)

    takers: dict[int, list[int]] = {index: [] for index in candidates}
    for box_number in range(len(boxes)):
        best = sorted((iou[index][box_number] for index in candidates), reverse=True)[:10]
        n_wanted = max(1, int(sum(best)))
        by_cost = sorted(candidates, key=lambda index: cost[index][box_number])
        for index in by_cost[:n_wanted]:
            takers[index].append(box_number)

    assigned = [NO_BOX] * len(points)
    for index, of_point in takers.items():
        if len(of_point) == 1:
            assigned[index] = of_point[0]
        elif of_point:
            assigned[index] = cost[index].index(min(cost[index]))
    return assigned


@pytest.mark.parametrize("n_boxes", [1, 2, 8])
@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_plain_version(seed: int, n_classes: int, n_boxes: int) -> None:
    scene = random_scene(seed, n_boxes, n_classes=n_classes)
    found = scene.assigned()
    assert found == plain_sim_ota(scene)
    assert any(box != NO_BOX for box in found)


def quiet_scene(boxes: list[list[float]], *, side: int = 32) -> Scene:
    """One level of stride 8, one class, equal scores, every prediction a speck at its point that overlaps little."""
    points, strides = grid(side, 8)
    return Scene(
        score_logits=torch.zeros(len(points), 1, dtype=torch.float64),
        predicted_boxes=torch.cat((points - 0.1, points + 0.1), dim=1),
        points=points,
        strides=strides,
        boxes=torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
    )


def indices_of(assigned: list[int], box: int) -> list[int]:
    return [index for index, assigned_box in enumerate(assigned) if assigned_box == box]


INNER = [5, 6, 9, 10]  # of 4 x 4 points, those of the middle


def test_a_box_takes_as_many_points_as_predict_it_well() -> None:
    scene = quiet_scene([[8, 8, 24, 24]])
    scene.predicted_boxes[INNER] = scene.boxes[0]
    assert indices_of(scene.assigned(), 0) == INNER  # four IoUs of 1: four points
    scene.predicted_boxes[10] = torch.tensor([8, 8, 24, 15.9], dtype=torch.float64)  # 3.49 in sum: cut to 3
    assert indices_of(scene.assigned(), 0) == [5, 6, 9]


def test_a_box_that_nobody_predicts_still_takes_one_point_and_of_equals_the_first() -> None:
    scene = quiet_scene([[8, 8, 24, 24]])
    assert indices_of(scene.assigned(), 0) == [5]


def test_a_good_prediction_from_outside_counts_for_how_many_but_is_not_taken() -> None:
    # Near the centre, so a candidate, but not inside the box.
    scene = quiet_scene([[8, 8, 24, 24]])
    scene.predicted_boxes[[0, 5]] = scene.boxes[0]
    found = indices_of(scene.assigned(), 0)
    assert len(found) == 2  # two IoUs of 1
    assert 5 in found
    assert 0 not in found


def test_the_confident_point_is_preferred_of_two_with_equal_boxes() -> None:
    scene = quiet_scene([[8, 8, 24, 24]])
    scene.predicted_boxes[[5, 10]] = torch.tensor(
        [8, 8, 24, 18], dtype=torch.float64
    )  # 1.25 in sum: one point
    assert indices_of(scene.assigned(), 0) == [5]
    scene.score_logits[10] = 0.5
    assert indices_of(scene.assigned(), 0) == [10]


def test_a_point_claimed_by_two_boxes_goes_to_the_cheaper() -> None:
    scene = quiet_scene([[8, 8, 24, 24], [8, 8, 24, 20]])
    scene.predicted_boxes[5] = torch.tensor([8, 8, 24, 21], dtype=torch.float64)
    found = scene.assigned()
    assert indices_of(found, 1) == [5]
    assert indices_of(found, 0) == []  # the other is left without a point, as upstream


def test_of_equal_boxes_the_first_gets_the_point() -> None:
    scene = quiet_scene([[8, 8, 24, 24], [8, 8, 24, 24]])
    assert indices_of(scene.assigned(), 0) == [5]


def test_a_contested_point_may_go_to_a_box_that_did_not_take_it() -> None:
    # Box 2 takes point 6, which predicts it exactly. Point 5 is taken by 0 and 1, but its cheapest box is 2.
    scene = quiet_scene([[0, 0, 40, 40], [0, 0, 40, 36], [8, 8, 24, 24]])
    scene.predicted_boxes[6] = scene.boxes[2]
    scene.predicted_boxes[5] = torch.tensor([8, 8, 32, 32], dtype=torch.float64)
    found = scene.assigned()
    assert indices_of(found, 2) == [5, 6]
    assert indices_of(found, 0) == indices_of(found, 1) == []
    assert found == plain_sim_ota(scene)


def test_a_box_too_small_to_hold_a_point_takes_the_best_near_it() -> None:
    scene = quiet_scene([[15, 15, 17, 17]])  # between the four middle points
    scene.predicted_boxes[9] = torch.tensor([14, 14, 18, 18], dtype=torch.float64)
    for dtype in (
        torch.float64,
        torch.float32,
    ):  # in float32, upstream's, the sum of 1e8 and less would hide it
        scene.predicted_boxes = scene.predicted_boxes.to(dtype)
        assert indices_of(scene.assigned(), 0) == [9]


def test_borders_are_outside() -> None:
    scene = quiet_scene([[4, 4, 28, 28]])  # its corners are points
    scene.predicted_boxes[:] = scene.boxes[0]  # ten IoUs of 1: ten points, if there were as many inside
    # The four strictly inside, and of those on the border, all as dear, the six first.
    assert indices_of(scene.assigned(), 0) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]


def test_no_ground_truth_assigns_nothing() -> None:
    assert quiet_scene([]).assigned() == [NO_BOX] * 16


def test_a_box_far_outside_the_picture_assigns_nothing() -> None:
    assert quiet_scene([[500, 500, 520, 520]]).assigned() == [NO_BOX] * 16


def test_fewer_points_than_candidates_are_wanted() -> None:
    scene = quiet_scene([[2, 2, 14, 14]], side=16)
    scene.predicted_boxes[:] = scene.boxes[0]
    assert scene.assigned() == [0, 0, 0, 0]


def test_no_gradient_goes_through() -> None:
    scene = random_scene(0, 3)
    scene.score_logits.requires_grad_()
    scene.predicted_boxes.requires_grad_()
    assert not SimOTA().assign(**vars(scene)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_taken(dtype: torch.dtype) -> None:
    scene = quiet_scene([[8, 8, 24, 24]])
    scene.predicted_boxes[INNER] = scene.boxes[0]
    scene.predicted_boxes = scene.predicted_boxes.to(dtype)
    scene.score_logits = scene.score_logits.to(dtype) + 60_000
    assert indices_of(scene.assigned(), 0) == INNER


scenes = st.builds(
    random_scene, seed=st.integers(0, 10_000), n_boxes=st.integers(0, 6), n_classes=st.integers(1, 3)
)


@settings(max_examples=60)
@given(scene=scenes)
def test_only_points_in_or_near_a_box_are_assigned_and_no_more_than_wanted(scene: Scene) -> None:
    found = torch.tensor(scene.assigned())
    assert ((found >= NO_BOX) & (found < len(scene.boxes))).all()
    n_assigned = int((found != NO_BOX).sum())
    assert n_assigned <= SimOTA.n_candidates * len(scene.boxes)
    assert (n_assigned > 0) == (len(scene.boxes) > 0)
    for index in (found != NO_BOX).nonzero().squeeze(1).tolist():
        point, reach = scene.points[index], 2.5 * scene.strides[index]
        inside = ((point > scene.boxes[:, :2]) & (point < scene.boxes[:, 2:])).all(1)
        near = ((point - (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2).abs() < reach).all(1)
        assert (inside | near).any()


@settings(max_examples=40)
@given(scene=scenes, seed=st.integers(0, 100))
def test_the_order_of_boxes_does_not_matter(scene: Scene, seed: int) -> None:
    found = scene.assigned()
    order = torch.randperm(len(scene.boxes), generator=torch.Generator().manual_seed(seed))
    scene.boxes, scene.labels = scene.boxes[order], scene.labels[order]
    assert [box if box == NO_BOX else int(order[box]) for box in scene.assigned()] == found


@settings(max_examples=40)
@given(scene=scenes, seed=st.integers(0, 100))
def test_the_order_of_points_does_not_matter(scene: Scene, seed: int) -> None:
    found = torch.tensor(scene.assigned())
    order = torch.randperm(len(scene.points), generator=torch.Generator().manual_seed(seed))
    for name in ("score_logits", "predicted_boxes", "points", "strides"):
        setattr(scene, name, getattr(scene, name)[order])
    assert scene.assigned() == found[order].tolist()


@settings(max_examples=40)
@given(scene=scenes, factor=st.sampled_from([0.5, 2.0, 4.0]), shift=st.sampled_from([-64.0, 0.0, 128.0]))
def test_scale_and_place_do_not_matter(scene: Scene, factor: float, shift: float) -> None:
    found = scene.assigned()
    scene.boxes = scene.boxes * factor + shift
    scene.predicted_boxes = scene.predicted_boxes * factor + shift
    scene.points = scene.points * factor + shift
    scene.strides = scene.strides * factor
    assert scene.assigned() == found


@settings(max_examples=40)
@given(scene=scenes)
def test_points_that_are_no_candidates_have_no_say(scene: Scene) -> None:
    found = scene.assigned()
    far = torch.tensor([[10_000.0, 10_000.0]], dtype=torch.float64)
    scene.points = torch.cat((scene.points, far))
    scene.strides = torch.cat((scene.strides, scene.strides[:1]))
    scene.score_logits = torch.cat((scene.score_logits, scene.score_logits[:1] + 9))
    scene.predicted_boxes = torch.cat((scene.predicted_boxes, torch.cat((far - 5, far + 5), dim=1)))
    assert scene.assigned() == [*found, NO_BOX]
