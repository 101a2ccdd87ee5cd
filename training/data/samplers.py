"""Which pictures a batch holds: shuffled, or P classes with K pictures of each; both split over processes.

A batch is a function of the seed, the epoch and its number in the epoch. So a run that is resumed at any batch goes on
as if it had not stopped. A sampler is told the size of a whole step's batch, that of all processes together, and gives
its own process its share: together the shares are the batch that one process alone would have, in the same order.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

from training.data.randomness import Stream, generator

ClassDraw = Literal["id_avg_prob", "sample_avg_prob"]


class Draw(NamedTuple):
    """One picture of one batch: what the loader hands to a dataset.

    Attributes:
        picture: its number.
        epoch: 0 is the first.
        batch: number in the epoch, the same in all processes.
        position: in the step's batch, over all processes: a picture that a batch holds twice is augmented otherwise
            each time.
    """

    picture: int
    epoch: int
    batch: int
    position: int


class Share(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    processes: int = 1


class BatchSampler(Sampler[list[Draw]]):
    """Gives the batches of one epoch, for DataLoader's `batch_sampler`.

    Call `start` before each epoch; what it sets lives here and travels to the datasets in each Draw, so that loader
    processes which stay alive over epochs know of it.
    """

    def __init__(self, batch_size: int, *, seed: int, share: Share = Share()) -> None:  # noqa: B008
        """
        Args:
            batch_size: pictures of a step, over all processes.
            seed: of the run.
            share: this process.
        Raises:
            ValueError: the batch cannot be split evenly.
        """
        rank, processes = share
        if not 0 <= rank < processes:
            raise ValueError(f"share: found process {rank} of {processes}, wanted 0 to {processes - 1}")
        if batch_size < 1 or batch_size % processes:
            raise ValueError(
                f"batch size: found {batch_size}, wanted a multiple of the {processes} processes"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.share = share
        self.epoch = 0
        self.first_batch = 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Say which epoch comes next, and from which of its batches on."""
        self.epoch, self.first_batch = epoch, first_batch

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Of a whole epoch, wherever it is started."""

    @abstractmethod
    def batch(self, epoch: int, number: int) -> NDArray[np.intp]:
        """Indices of a whole step's batch, (batch_size,)."""

    def __len__(self) -> int:
        return self.batches_per_epoch - self.first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = self.epoch
        own = self.batch_size // self.share.processes
        for number in range(self.first_batch, self.batches_per_epoch):
            start = self.share.rank * own
            indices = self.batch(epoch, number)[start : start + own]
            yield [
                Draw(picture, epoch, number, position)
                for position, picture in enumerate(indices.tolist(), start=start)
            ]


class ShuffledSampler(BatchSampler):
    """Every picture once an epoch, in another order each time.

    With rates, a picture comes `rate` times an epoch: 4 is four times, and of 0.5 or 2.5 the fraction is the chance
    of one time more. The last batch is filled up with the epoch's first pictures, so that all batches are whole.
    """

    def __init__(
        self,
        n_pictures: int,
        batch_size: int,
        *,
        seed: int,
        rates: ArrayLike | None = None,
        share: Share = Share(),  # noqa: B008
        drop_last: bool = False,
    ) -> None:
        """
        Args:
            n_pictures: N.
            batch_size: pictures of a step, over all processes.
            seed: of the run.
            rates: (N,), each above 0; None is 1.
            share: this process.
            drop_last: leave a last batch that is not whole out instead of filling it.
        Raises:
            ValueError: there is no picture, or no whole batch, or the batch cannot be split evenly.
        """
        super().__init__(batch_size, seed=seed, share=share)
        self._rates = np.ones(n_pictures) if rates is None else np.asarray(rates, np.float64)
        if self._rates.shape != (n_pictures,) or not n_pictures:
            raise ValueError(
                f"rates: found {self._rates.shape}, wanted one for each of {n_pictures} pictures, 1 or more"
            )
        # The same in all epochs, since a schedule counts steps; which pictures get the fraction's extra time varies.
        self._drawn = max(1, round(float(self._rates.sum())))
        rounded = math.floor if drop_last else math.ceil
        self._batches = rounded(self._drawn / batch_size)
        if not self._batches:
            raise ValueError(f"{self._drawn} pictures an epoch: wanted one batch of {batch_size} at least")
        self._order: tuple[int, NDArray[np.intp]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        return self._batches

    def batch(self, epoch: int, number: int) -> NDArray[np.intp]:
        order = self.order(epoch)
        return np.take(order, range(number * self.batch_size, (number + 1) * self.batch_size), mode="wrap")

    def order(self, epoch: int) -> NDArray[np.intp]:
        """The epoch's pictures in the order in which they are drawn."""
        if self._order is None or self._order[0] != epoch:
            random = generator(self.seed, Stream.ORDER, epoch)
            # Systematic sampling over the pictures in any order: each comes floor(rate) or ceil(rate) times, in all
            # as many as an epoch draws.
            shuffled = random.permutation(len(self._rates))
            ends = np.cumsum(self._rates[shuffled]) * (self._drawn / self._rates.sum())
            ends[-1] = self._drawn
            times = np.diff(np.floor(ends + random.random()).astype(np.intp), prepend=0)
            order = random.permutation(np.repeat(shuffled, times))
            self._order = epoch, order
        return self._order[1]


class PKSampler(BatchSampler):
    """P classes, and K pictures of each, in every batch: what triplets want.

    As PP-ShiTuV2's recipe has it (PaddleClas, `PKSampler`, batch 256 a GPU with K = 4): a batch's classes are drawn
    anew for each batch, none twice in it; the K pictures of a class are all different where it has as many, and else
    drawn with repetition. An epoch is as many batches as hold the number of pictures there are.

    Deviations: upstream draws for each process by itself, so that two may hold the same class in a step; here a step's
    classes differ over all processes, and each process has whole classes. A class of one picture is refused by
    `pictures.check(..., pictures_per_class=2)`, which upstream lets pass: its triplets would have no positive.

    Of a thousand classes drawn by chance hardly two look alike, and the triplets soon have nothing left to teach.
    With `look_alikes` above 1 a batch has groups of that many: a class drawn by chance, and those that were nearest to
    it when the epoch began (Smirnov et al., *Doppelganger Mining for Face Representation Learning*, ICCV workshops
    2017). `see_classes` says which those are; until it is called classes are drawn one by one.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        batch_size: int,
        *,
        pictures_per_class: int,
        class_draw: ClassDraw = "id_avg_prob",
        look_alikes: int = 1,
        seed: int,
        rates: ArrayLike | None = None,
        share: Share = Share(),  # noqa: B008
    ) -> None:
        """
        Args:
            labels: (N,), dense.
            batch_size: P * K, over all processes.
            pictures_per_class: K.
            class_draw: id_avg_prob draws all classes alike, sample_avg_prob by the number of their pictures.
            look_alikes: classes of a group.
            seed: of the run.
            rates: (N,), of each picture's set: its classes are drawn so many times as often. None is 1.
            share: this process.
        Raises:
            ValueError: the batch is not of whole classes for each process, or there are too few classes for it.
        """
        super().__init__(batch_size, seed=seed, share=share)
        self.pictures_per_class = pictures_per_class
        if pictures_per_class < 1 or batch_size % (pictures_per_class * share.processes):
            raise ValueError(
                f"batch size: found {batch_size}, wanted a multiple of {pictures_per_class} pictures a class"
                f" in {share.processes} processes"
            )
        self._by_class = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        self._ends = np.cumsum(counts)
        weights = (
            (counts > 0).astype(np.float64) if class_draw == "id_avg_prob" else counts.astype(np.float64)
        )
        if rates is not None:
            summed = np.bincount(labels, weights=np.asarray(rates, np.float64))
            weights *= summed / np.maximum(counts, 1)
        self.classes_per_batch = batch_size // pictures_per_class
        n_classes = int((counts > 0).sum())
        if n_classes < self.classes_per_batch:
            raise ValueError(
                f"found {n_classes} classes, wanted {self.classes_per_batch} or more for batches of {batch_size}"
                f" with {pictures_per_class} pictures a class: make the batch smaller"
            )
        self.look_alikes = look_alikes
        self._nearest: NDArray[np.intp] | None = None
        self._alike = bool((weights == weights[0]).all())
        self._probabilities = weights / weights.sum()
        self._batches = math.ceil(len(labels) / batch_size)

    @property
    def batches_per_epoch(self) -> int:
        return self._batches

    def see_classes(self, directions: NDArray[np.float32]) -> None:
        """Learn which classes look alike.

        Args:
            directions: (classes, D), what stands for each class; alike are those of high cosine.
        """
        if self.look_alikes == 1:
            return
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(min=1e-12)
        without_pictures = self._probabilities == 0
        nearest = []
        for first in range(0, len(unit), 1_024):  # of a hundred thousand classes not all pairs at once
            cosines = unit[first : first + 1_024] @ unit.T
            cosines[:, without_pictures] = -2.0
            np.fill_diagonal(cosines[:, first:], 2.0)  # each is the first of its own group
            nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, : self.look_alikes])
        self._nearest = np.concatenate(nearest)

    def batch(self, epoch: int, number: int) -> NDArray[np.intp]:
        random = generator(self.seed, Stream.BATCH, epoch, number)
        probabilities = None if self._alike else self._probabilities
        classes = random.choice(len(self._ends), self.classes_per_batch, replace=False, p=probabilities)
        if self._nearest is not None:
            # Each with those nearest to it, until there are enough; the last drawn fall out.
            groups = self._nearest[classes].ravel().tolist()
            classes = np.array(list(dict.fromkeys(groups))[: self.classes_per_batch])
        wanted = self.pictures_per_class
        batch = np.empty((len(classes), wanted), np.intp)
        for row, label in zip(batch, classes.tolist(), strict=True):
            end = int(self._ends[label])
            start = int(self._ends[label - 1]) if label else 0
            row[:] = start + random.choice(end - start, wanted, replace=end - start < wanted)
        indices: NDArray[np.intp] = self._by_class[batch.ravel()]
        return indices
