"""What a DataLoader asks for a picture: decoded, varied, normalised; and how pictures become a batch.

Training datasets are asked with the `Draw`s of a sampler (`DataLoader(dataset, batch_sampler=sampler)`), which say all
that a picture's random numbers depend on. Evaluation goes through `recognition.images.model_input`, the piece of code
that serving uses.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recognition.images import model_input
from recognition.model_card import ModelCard
from training.data.augment import Augmentation, normalised
from training.data.augment_detection import DetectionAugmentation
from training.data.coco import Scenes
from training.data.pictures import Pictures
from training.data.randomness import Stream, generator
from training.data.samplers import BatchSampler, Draw
from training.models.embedder import Normalisation


class EmbedderDataset(Dataset[tuple[Tensor, int]]):
    """Varied, normalised crops with their labels; torch's own collate stacks them."""

    def __init__(
        self, pictures: Pictures, augmentation: Augmentation, normalisation: Normalisation, *, seed: int
    ) -> None:
        """
        Args:
            pictures: what is drawn from.
            augmentation: makes crops of the network's size.
            normalisation: of the network.
            seed: of the run.
        """
        self.pictures = pictures
        self.augmentation = augmentation
        self.normalisation = normalisation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        """(3, H, W) float32, and the label."""
        random = generator(
            self.seed, Stream.AUGMENTATION, draw.epoch, draw.batch, draw.position, draw.picture
        )
        varied = self.augmentation(self.pictures.read(draw.picture), random)
        return normalised(varied, self.normalisation), int(self.pictures.labels[draw.picture])


class DetectionSample(NamedTuple):
    """A varied scene.

    Attributes:
        pixels: (3, H, W) float32, normalised.
        boxes: (G, 4) float32 x1, y1, x2, y2 in input pixels; G may be 0.
        labels: (G,) int64.
    """

    pixels: Tensor
    boxes: Tensor
    labels: Tensor


class DetectionBatch(NamedTuple):
    """Scenes of one size.

    Attributes:
        pixels: (N, 3, H, W) float32, normalised.
        boxes: of each scene, (G, 4) float32 in input pixels.
        labels: of each scene, (G,) int64.
    """

    pixels: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]


class DetectionDataset(Dataset[DetectionSample]):
    """Varied scenes; those of one batch have one size. `collate_detection` stacks them."""

    def __init__(
        self, scenes: Scenes, augmentation: DetectionAugmentation, normalisation: Normalisation, *, seed: int
    ) -> None:
        """
        Args:
            scenes: what is drawn from.
            augmentation: makes pictures of the batch's size.
            normalisation: of the network.
            seed: of the run.
        """
        self.scenes = scenes
        self.augmentation = augmentation
        self.normalisation = normalisation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, draw: Draw) -> DetectionSample:
        random = generator(
            self.seed, Stream.AUGMENTATION, draw.epoch, draw.batch, draw.position, draw.picture
        )
        shape = self.augmentation.batch_shape(self.seed, draw.epoch, draw.batch)
        pixels, truth = self.augmentation(
            self.scenes.read(draw.picture), self.scenes.truth(draw.picture), shape, random
        )
        return DetectionSample(
            normalised(pixels, self.normalisation),
            torch.from_numpy(truth.boxes),
            torch.from_numpy(truth.labels),
        )


def collate_detection(samples: Sequence[DetectionSample]) -> DetectionBatch:
    """Stack scenes of one size."""
    return DetectionBatch(
        torch.stack([sample.pixels for sample in samples]),
        [sample.boxes for sample in samples],
        [sample.labels for sample in samples],
    )


def first_pictures(dataset: Dataset[Any], sampler: BatchSampler, n_batches: int = 4) -> Iterator[Tensor]:
    """The pictures of a training's first batches, each (N, 3, H, W), as it will see them.

    Args:
        dataset: whose samples begin with their pixels.
        sampler: of the run.
        n_batches: how many.
    """
    sampler.start(0)
    for draws in itertools.islice(sampler, n_batches):
        yield torch.stack([dataset[draw][0] for draw in draws])


class Readable(Protocol):
    """Pictures or scenes: anything that gives pixels by number."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3) RGB."""


class EvaluationSample(NamedTuple):
    """A picture as serving would give it to the model.

    Attributes:
        pixels: (3, H, W) in the card's dtype.
        picture: its number.
        width: of the picture before it was resized, in pixels.
        height: likewise.
    """

    pixels: Tensor
    picture: int
    width: int
    height: int


class EvaluationDataset(Dataset[EvaluationSample]):
    """Pictures or scenes as the card's model takes them, asked by plain numbers; torch's own collate stacks them."""

    def __init__(self, source: Readable, card: ModelCard) -> None:
        """
        Args:
            source: pictures or scenes.
            card: of the model that is evaluated.
        """
        self.source = source
        self.card = card

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> EvaluationSample:
        pixels = self.source.read(index)
        prepared = torch.from_numpy(model_input(pixels, self.card))
        return EvaluationSample(prepared, index, pixels.shape[1], pixels.shape[0])
