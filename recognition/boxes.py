"""Geometry of boxes in plain NumPy: (N, 4) float32 rows of x1, y1, x2, y2 in pixels; no boxes is shape (0, 4)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """Take boxes from outside in.

    Args:
        boxes: rows of x1, y1, x2, y2, finite, with x1 <= x2 and y1 <= y2; any empty sequence is no boxes.
    Returns:
        (N, 4) float32.
    Raises:
        ValueError: another shape or order.
    """
    array = np.asarray(boxes, np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes: found shape {array.shape}, wanted (N, 4) of x1, y1, x2, y2.")
    in_order = np.isfinite(array).all(axis=1) & (array[:, :2] <= array[:, 2:]).all(axis=1)
    if not in_order.all():
        found = array[~in_order][0].tolist()
        raise ValueError(f"boxes: found {found}, wanted finite x1 <= x2 and y1 <= y2.")
    return array


def area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Areas (N,) in square pixels of boxes (N, 4)."""
    sides: NDArray[np.float32] = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def clip(boxes: NDArray[np.float32], width: float, height: float) -> NDArray[np.float32]:
    """Boxes (N, 4) cut off at a picture's borders; a box outside becomes one without area."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of each box of a (Na, 4) with each of b (Nb, 4): (Na, Nb), 0..1."""
    shared = _pairwise_intersection(a, b)
    return _share(shared, area(a)[:, None] + area(b)[None, :] - shared)


def containment(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of each box of b (Nb, 4) that lies inside each box of a (Na, 4): (Na, Nb), 0..1."""
    shared = _pairwise_intersection(a, b)
    return _share(shared, np.broadcast_to(area(b)[None, :], shared.shape))


def non_maximum_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float
) -> NDArray[np.intp]:
    """Keep the best box of each heap, greedily.

    Args:
        boxes: (N, 4).
        scores: (N,), higher is better; of equal ones the earlier box goes first.
        iou_threshold: a box that overlaps a kept one by more is dropped.
    Returns:
        Indices of the kept boxes, best first.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        overlap = pairwise_iou(boxes[best : best + 1], boxes[waiting])[0]
        waiting = waiting[overlap <= iou_threshold]
    return np.array(kept, np.intp)


def _pairwise_intersection(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    upper_left = np.maximum(a[:, None, :2], b[None, :, :2])
    lower_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides: NDArray[np.float32] = np.clip(lower_right - upper_left, 0, None)
    return sides[..., 0] * sides[..., 1]


def _share(part: NDArray[np.float32], whole: NDArray[np.float32]) -> NDArray[np.float32]:
    """part / whole, and 0 where there is no whole: a box without area overlaps nothing."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
