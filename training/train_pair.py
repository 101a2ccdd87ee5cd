"""Train two embedders at once: they learn from the labels and from each other, or one from a teacher that is trained.

    python -m training.train -c training/configs/smoke_udml.toml

DML and U-DML train both (PP-ShiTu, 2021, section 2.2); SSLD's student imitates a fixed teacher. Only the student is
evaluated, embedded with and exported.
"""

import torch
from torch import Tensor, nn

from recognition.model_card import ModelCard
from training.checkpoint import Checkpoint, CheckpointRefused, load_weights
from training.components import DISTILLATION_LOSSES
from training.data.datasets import EmbedderDataset, Readable, first_pictures
from training.distributed import Process
from training.loop import Task
from training.models.embedder import EmbedderModel, EmbedderOutput, Normalisation
from training.models.heads import MarginHead
from training.networks import build_embedder, build_losses, embedder_card, open_embedder_checkpoint, start
from training.optimiser import autocast
from training.retrieval import computed, evaluate_embedder
from training.settings import PairSettings
from training.sources import augmentation, batches_of_pictures, retrieval, see_look_alikes, training_pictures

AGREEMENT = "agreement"


class Pair(nn.Module):
    """Student and teacher as one network, so that one pass gives both their outputs.

    A fixed teacher computes as in inference, whatever mode the pair is in, and gets no gradient.
    """

    def __init__(self, student: EmbedderModel, teacher: EmbedderModel, *, is_fixed: bool) -> None:
        super().__init__()
        self.student, self.teacher, self.is_fixed = student, teacher, is_fixed
        if is_fixed:
            self.teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> "Pair":
        super().train(mode)
        if self.is_fixed:
            self.teacher.eval()
        return self

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> tuple[EmbedderOutput, EmbedderOutput]:
        """What both say of crops (N, 3, H, W), normalised as the student wants them, with labels (N,)."""
        for_teacher = renormalised(
            pixels, self.student.backbone.normalisation, self.teacher.backbone.normalisation
        )
        return self.student(pixels, labels), self.teacher(for_teacher, labels)


def renormalised(pixels: Tensor, found: Normalisation, wanted: Normalisation) -> Tensor:
    """Pixels (N, 3, H, W) that were normalised for one backbone, as another wants them."""
    if found == wanted:
        return pixels

    def channels(values: tuple[float, float, float]) -> Tensor:
        return pixels.new_tensor(values)[:, None, None]

    raw = (pixels * channels(found.std) + channels(found.mean)) / found.scale
    return (raw * wanted.scale - channels(wanted.mean)) / channels(wanted.std)


def build_pair(settings: PairSettings, n_classes: int) -> Pair:
    """The two networks; one that is not read from a checkpoint starts by chance.

    Raises:
        CheckpointRefused: the fixed teacher does not fit the student.
    """
    student = build_embedder(settings.model, n_classes)
    if settings.teacher_checkpoint is None:
        return Pair(student, build_embedder(settings.teacher or settings.model, n_classes), is_fixed=False)
    teacher, _, checkpoint = open_embedder_checkpoint(settings.teacher_checkpoint)
    if checkpoint.classes != n_classes:
        raise CheckpointRefused(
            f"{settings.teacher_checkpoint}: tells {checkpoint.classes} classes apart, the data has {n_classes}; "
            "wanted a teacher of the same data."
        )
    if isinstance(student.head, MarginHead) or isinstance(teacher.head, MarginHead):
        raise CheckpointRefused(
            f"{settings.teacher_checkpoint}: a margin head gives plain cosines in inference, which are no soft "
            "labels; wanted the head FC for a fixed teacher and its student."
        )
    return Pair(student, teacher, is_fixed=True)


def agreement(
    pair: Pair, source: Readable, card: ModelCard, process: Process, *, batch_size: int, workers: int
) -> float:
    """The share of pictures to which both heads give the same class; every process has to call it."""
    was_training = pair.training
    pair.eval()

    def classes(pixels: Tensor) -> Tensor:
        return torch.stack([said.logits.argmax(dim=1) for said in pair(pixels)], dim=1)  # (N, 2)

    found = computed(classes, source, card, process, batch_size=batch_size, workers=workers)
    pair.train(was_training)
    return float((found[:, 0] == found[:, 1]).mean())


def pair_task(settings: PairSettings, process: Process, before: Checkpoint | None) -> Task:
    """What `training.loop` shall train.

    Args:
        settings: of the run.
        process: this one.
        before: the checkpoint to go on from.
    Raises:
        BadData, CheckpointRefused, ValueError: as their messages say.
    """
    # Data: what is trained on, in which batches; what is searched.
    pictures, trained_on = training_pictures(settings.data, process)
    sampler = batches_of_pictures(settings, pictures, process)
    judged = retrieval(settings.evaluation.source, settings.data.crop_margin, process)

    # Both networks, with the weights to begin with, and the losses between them.
    pair = build_pair(settings, len(pictures.classes))
    dataset = EmbedderDataset(
        pictures,
        augmentation(settings.data.augmentation, settings.input.side),
        pair.student.backbone.normalisation,
        seed=settings.seed,
    )
    if before is not None:
        assert before.teacher is not None
        load_weights(pair.student, before.weights, str(settings.out))
        load_weights(pair.teacher, before.teacher, str(settings.out))
        origin = ""
    else:
        of_student = start(pair.student, settings.model.start_from, first_pictures(dataset, sampler))
        origin = f"student: {of_student}"
        if not pair.is_fixed:
            choice = (settings.teacher or settings.model).start_from
            origin += f"; teacher: {start(pair.teacher, choice, first_pictures(dataset, sampler))}"
    pair.to(process.device)
    card = embedder_card(settings, pair.student)
    criterion = build_losses(settings.losses, DISTILLATION_LOSSES).to(process.device)

    def losses(parallel: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        pixels, labels = batch  # (N, 3, H, W), (N,)
        with autocast(process.device, settings.precision):
            student, teacher = parallel(pixels, labels)
            return criterion.parts(student, teacher, labels)

    def evaluate() -> dict[str, float]:
        how = {"batch_size": settings.evaluation.batch_size, "workers": settings.workers}
        figures = evaluate_embedder(
            pair.student, judged, card, process, hashes=settings.model.has_codes, **how
        )
        return {**figures, AGREEMENT: agreement(pair, judged.query, card, process, **how)}

    return Task(
        network=pair,
        origin=origin,
        dataset=dataset,
        sampler=sampler,
        where=pictures.where,
        trained_on=trained_on,
        classes=len(pictures.classes),
        losses=losses,
        evaluate=evaluate,
        networks_state=lambda: {"weights": pair.student.state_dict(), "teacher": pair.teacher.state_dict()},
        epoch_begins=lambda epoch: see_look_alikes(sampler, pair.student),
    )
