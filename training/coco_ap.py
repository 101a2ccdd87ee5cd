"""COCO's average precision of a detector: its boxes after suppression against the true ones, split over processes.

Counted by pycocotools, which the published figures come from. A box that is marked as a crowd need not be found, and
whatever is found in it costs nothing.
"""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.utils.data import DataLoader

from recognition.boxes import area, clip, non_maximum_suppression
from recognition.model_card import ModelCard
from training.data.coco import Scenes
from training.data.datasets import EvaluationDataset
from training.distributed import Process, gathered
from training.models.picodet import PicoDet, decode

# What goes into AP is more than a till would be shown: PicoDet's published thresholds for evaluation.
SCORE_THRESHOLD = 0.025
NMS_THRESHOLD = 0.6
BOXES_BEFORE_NMS = 1000
MAXIMUM_BOXES = 100
# COCOeval's table of twelve: over IoU 0.5 to 0.95, at 0.5, at 0.75, each over all sizes and with 100 boxes a picture.
FIGURES = {"AP": 0, "AP50": 1, "AP75": 2}


class Found(NamedTuple):
    """What a detector found in one picture.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2 in the picture's pixels.
        scores: (N,), falling.
        labels: (N,).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def select(boxes: Tensor, scores: Tensor, width: float, height: float, card: ModelCard) -> Found:
    """The boxes of one picture that are kept.

    Args:
        boxes: (P, 4) in input pixels.
        scores: (P, C).
        width, height: of the picture, in its own pixels.
        card: of the detector.
    """
    best, labels = scores.max(dim=1)
    passed = (best >= SCORE_THRESHOLD).nonzero().squeeze(1)
    passed = passed[best[passed].argsort(descending=True, stable=True)[:BOXES_BEFORE_NMS]]
    scale = np.array([width / card.input.width, height / card.input.height] * 2, np.float32)
    in_picture = clip(boxes[passed].cpu().numpy() * scale, width, height)
    of_some_area = np.flatnonzero(area(in_picture) > 0)
    in_picture = in_picture[of_some_area]
    kept_scores = best[passed].cpu().numpy()[of_some_area]
    kept = non_maximum_suppression(in_picture, kept_scores, NMS_THRESHOLD)[:MAXIMUM_BOXES]
    return Found(in_picture[kept], kept_scores[kept], labels[passed].cpu().numpy()[of_some_area][kept])


@torch.inference_mode()
def find_all(
    network: PicoDet, scenes: Scenes, card: ModelCard, process: Process, *, batch_size: int, workers: int = 0
) -> list[Found]:
    """What a detector in inference mode finds in each scene; every process has to call it, and each gets all."""
    numbers = range(len(scenes))
    batches = [list(numbers[start : start + batch_size]) for start in range(0, len(scenes), batch_size)]
    own = batches[process.rank :: process.count]
    loader = DataLoader(EvaluationDataset(scenes, card), batch_sampler=own, num_workers=workers)
    found: dict[int, Found] = {}
    for samples in loader:
        boxes, scores = decode(network(samples.pixels.to(process.device)))  # (N, P, 4), (N, P, C)
        for row, picture in enumerate(samples.picture.tolist()):
            width, height = float(samples.width[row]), float(samples.height[row])
            found[picture] = select(boxes[row].float(), scores[row].float(), width, height, card)
    together = {picture: one for part in gathered(found) for picture, one in part.items()}
    return [together[picture] for picture in numbers]


def average_precision(found: list[Found], scenes: Scenes) -> dict[str, float]:
    """AP, AP50 and AP75, each 0..1, of what was found in each scene; 0 where nothing was found at all."""
    images: list[dict[str, Any]] = [{"id": number} for number in range(len(scenes))]
    annotations: list[dict[str, Any]] = []
    for number in range(len(scenes)):
        for is_crowd, truth in enumerate((scenes.truth(number), scenes.crowds(number))):
            for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # pycocotools takes 0 for no match
                        "image_id": number,
                        "category_id": label,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": is_crowd,
                    }
                )
    results = [
        {
            "image_id": number,
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for number, one in enumerate(found)
        for (x1, y1, x2, y2), score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
    ]
    if not results:
        return dict.fromkeys(FIGURES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth_file = COCO()
        truth_file.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(scenes.classes)],
        }
        truth_file.createIndex()
        judged = COCOeval(truth_file, truth_file.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return {name: float(judged.stats[place]) for name, place in FIGURES.items()}


def evaluate_detector(
    network: PicoDet, scenes: Scenes, card: ModelCard, process: Process, *, batch_size: int, workers: int = 0
) -> dict[str, float]:
    """Find and judge; the network is left in the mode that it was in. Arguments as for `find_all`."""
    was_training = network.training
    network.eval()
    found = find_all(network, scenes, card, process, batch_size=batch_size, workers=workers)
    network.train(was_training)
    return average_precision(found, scenes)
