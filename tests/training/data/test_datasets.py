"""Datasets under a DataLoader: the same pixels however many processes load them, and after a resumption."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from recognition.images import model_input
from tests.training.data.cards import embedder_card
from tests.training.data.drawing import draw, write_list
from training.data.augment import ShiTuV2Augmentation
from training.data.augment_detection import DetectionAugmentation
from training.data.datasets import (
    DetectionBatch,
    DetectionDataset,
    EmbedderDataset,
    EvaluationDataset,
    collate_detection,
)
from training.data.faults import BadData
from training.data.generated import GeneratedPictures, GeneratedScenes
from training.data.lists import read_label_list
from training.data.samplers import PKSampler, ShuffledSampler
from training.models.embedder import IMAGENET


@pytest.fixture(scope="module")
def pictures() -> GeneratedPictures:
    drawn = GeneratedPictures(6, range(3), seed=2, side=64)
    drawn.draw_all()
    return drawn


@pytest.fixture(scope="module")
def scenes() -> GeneratedScenes:
    drawn = GeneratedScenes(6, seed=2, size=(96, 64), n_products=10)
    drawn.draw_all()
    return drawn


def crops(
    pictures: GeneratedPictures, workers: int, epoch: int, first_batch: int = 0, seed: int = 1
) -> list[list[torch.Tensor]]:
    dataset = EmbedderDataset(pictures, ShiTuV2Augmentation(32, 32), IMAGENET, seed=seed)
    sampler = PKSampler(pictures.labels, 8, pictures_per_class=4, seed=seed)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers)
    sampler.start(epoch, first_batch)
    return list(loader)


def same(one: list[list[torch.Tensor]], other: list[list[torch.Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def test_loader_processes_change_no_pixel_and_a_resumed_run_goes_on(pictures: GeneratedPictures) -> None:
    alone = crops(pictures, 0, epoch=1)
    assert same(alone, crops(pictures, 2, epoch=1))
    assert same(alone[1:], crops(pictures, 0, epoch=1, first_batch=1))
    assert not same(alone, crops(pictures, 0, epoch=2))
    assert not same(alone, crops(pictures, 0, epoch=1, seed=2))
    pixels, labels = alone[0]
    assert pixels.shape == (8, 3, 32, 32)
    assert pixels.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_a_picture_that_a_batch_holds_twice_is_varied_twice(pictures: GeneratedPictures) -> None:
    dataset = EmbedderDataset(pictures, ShiTuV2Augmentation(32, 32), IMAGENET, seed=1)
    sampler = PKSampler(pictures.labels, 8, pictures_per_class=8, seed=1)
    batch = next(iter(sampler))
    assert len({draw.picture for draw in batch}) <= 3
    varied = [dataset[draw][0] for draw in batch]
    assert len({one.numpy().tobytes() for one in varied}) == 8


def detection(scenes: GeneratedScenes, workers: int, first_batch: int = 0) -> list[DetectionBatch]:
    dataset = DetectionDataset(scenes, DetectionAugmentation(96, 96), IMAGENET, seed=1)
    sampler = ShuffledSampler(len(scenes), 2, seed=1)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate_detection)
    sampler.start(3, first_batch)
    return list(loader)


def test_detection_batches_have_one_size_and_their_own_boxes(scenes: GeneratedScenes) -> None:
    alone = detection(scenes, 0)
    assert len(alone) == 3
    for batch in alone:
        n, channels, height, width = batch.pixels.shape
        assert (n, channels) == (2, 3)
        assert len(batch.boxes) == len(batch.labels) == 2
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True):
            assert boxes.shape == (len(labels), 4)
            assert boxes.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes <= torch.tensor([width, height, width, height])).all()
    for other in (detection(scenes, 2), detection(scenes, 0, first_batch=1)):
        for one, again in zip(alone[-len(other) :], other, strict=True):
            assert torch.equal(one.pixels, again.pixels)
            assert all(map(torch.equal, one.boxes, again.boxes))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_damaged_behind_its_header_is_named_from_any_process(tmp_path: Path, workers: int) -> None:
    whole = draw(tmp_path / "a.jpg", width=200, height=200).read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    pictures = read_label_list(write_list(tmp_path / "t.txt", "a.jpg 0"))
    dataset = EmbedderDataset(pictures, ShiTuV2Augmentation(32, 32), IMAGENET, seed=1)
    loader = DataLoader(dataset, batch_sampler=ShuffledSampler(1, 1, seed=1), num_workers=workers)
    with pytest.raises(BadData, match=r"t\.txt:1: .*a\.jpg: truncated"):
        list(loader)


def test_evaluation_sees_what_serving_sees(pictures: GeneratedPictures, scenes: GeneratedScenes) -> None:
    card = embedder_card(48, 48)
    for source in (pictures, scenes):
        batch = next(iter(DataLoader(EvaluationDataset(source, card), batch_size=4)))
        for place in range(4):
            pixels = source.read(place)
            np.testing.assert_array_equal(batch.pixels[place].numpy(), model_input(pixels, card))
            assert (int(batch.height[place]), int(batch.width[place])) == pixels.shape[:2]
        assert batch.picture.tolist() == [0, 1, 2, 3]
