"""Train two embedders at once: they learn from the labels and from each other, or one from a teacher that is trained.

    python -m training.train -c training/configs/smoke_udml.toml

DML and U-DML train both (PP-ShiTu, 2021, section 2.2); SSLD's student imitates a fixed teacher. Only the student is
evaluated, embedded with and exported.
"""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recognition.model_card import ModelCard
from training.checkpoint import (
    Checkpoint,
    CheckpointRefused,
    code_version,
    load_weights,
    random_states,
    restore_random_state,
    seed_random_numbers,
)
from training.components import DISTILLATION_LOSSES
from training.config import settings_to_dict
from training.curves import EPOCH
from training.data.datasets import EmbedderDataset, Readable
from training.distributed import Process, wrapped
from training.models.embedder import EmbedderModel, EmbedderOutput
from training.models.heads import MarginHead
from training.networks import build_embedder, build_losses, embedder_card, open_embedder_checkpoint, start
from training.optimiser import autocast, build_optimiser, build_scaler, set_learning_rate, take_step
from training.retrieval import computed, evaluate_embedder
from training.run_folder import RunFolder, Watch, watched_batches
from training.schedule import learning_rate_factor, scaled_learning_rate
from training.settings import PairSettings
from training.sources import augmentation, batches_of_pictures, own_batch, retrieval, training_pictures

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

    def forward(self, pixels: Tensor, labels: Tensor) -> tuple[EmbedderOutput, EmbedderOutput]:
        """What both say of normalised crops (N, 3, H, W) with labels (N,)."""
        return self.student(pixels, labels), self.teacher(pixels, labels)


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
    if teacher.backbone.normalisation != student.backbone.normalisation:
        raise CheckpointRefused(
            f"{settings.teacher_checkpoint}: its backbone wants pixels normalised otherwise than the student's."
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
        said = (pair.student(pixels).logits, pair.teacher(pixels).logits)
        return torch.stack([logits.argmax(dim=1) for logits in said], dim=1)  # (N, 2)

    found = computed(classes, source, card, process, batch_size=batch_size, workers=workers)
    pair.train(was_training)
    return float((found[:, 0] == found[:, 1]).mean())


def train_pair(
    settings: PairSettings, process: Process, *, resume: bool = False, until_epoch: int | None = None
) -> Path:
    """Run the program.

    Args:
        settings: of the run.
        process: this one.
        resume: go on from the folder's latest checkpoint.
        until_epoch: stop after so many epochs, as if the machine were needed; the schedule stays that of all.
    Returns:
        The run's folder.
    Raises:
        BadData, CheckpointRefused, TrainingStopped, ValueError: as their messages say.
    """
    folder, code = RunFolder(settings, process), code_version()
    before = folder.open(resume=resume)
    seed_random_numbers(settings.seed, process)

    # Data: what is trained on, in which batches; what is searched.
    pictures, trained_on = training_pictures(settings.data, process)
    judged = retrieval(settings.evaluation.source, settings.data.crop_margin, process)
    total_batch = settings.batch_size * process.count
    sampler = batches_of_pictures(
        settings.data, pictures, batch_size=total_batch, seed=settings.seed, share=process.share
    )
    n_classes, steps_per_epoch = len(pictures.classes), sampler.batches_per_epoch

    # Both networks, the losses between them, and who moves the weights.
    pair = build_pair(settings, n_classes)
    if before is not None:
        origin = f"resumed after step {before.step}"
    else:
        origin = f"student: {start(pair.student, settings.model.start_from)}"
        if not pair.is_fixed:
            origin += f"; teacher: {start(pair.teacher, (settings.teacher or settings.model).start_from)}"
    pair.to(process.device)
    card = embedder_card(settings, pair.student)
    losses = build_losses(settings.losses, DISTILLATION_LOSSES).to(process.device)
    optimiser = build_optimiser(pair, settings.optimiser)
    scaler = build_scaler(process.device, settings.precision)
    loader = DataLoader(
        EmbedderDataset(
            pictures,
            augmentation(settings.data.augmentation, settings.input.side),
            pair.student.backbone.normalisation,
            seed=settings.seed,
        ),
        batch_sampler=sampler,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=process.device.type == "cuda",
        generator=torch.Generator().manual_seed(settings.seed),  # its own, so that it draws from no other
    )

    step, best = 0, None
    figures: dict[str, float] = {}
    if before is not None:
        assert before.teacher is not None
        load_weights(pair.student, before.weights, str(folder.path))
        load_weights(pair.teacher, before.teacher, str(folder.path))
        optimiser.load_state_dict(dict(before.optimiser))
        scaler.load_state_dict(dict(before.scaler))
        restore_random_state(before.random, process)
        step, best, figures = before.step, before.best, before.figures
    parallel = wrapped(pair, process)

    rate = scaled_learning_rate(
        settings.optimiser.learning_rate,
        total_batch=total_batch,
        reference_batch=settings.optimiser.reference_batch,
    )
    folder.say(
        f"{settings.name}: {sum(weight.numel() for weight in pair.student.parameters()):,} weights each, {origin}; "
        f"{trained_on}; {steps_per_epoch} steps of {total_batch} an epoch, learning rate {rate:g}; "
        f"{process.count} process(es) on {process.device.type}"
    )

    last_epoch = min(settings.epochs, until_epoch or settings.epochs)
    for epoch in range(step // steps_per_epoch, last_epoch):
        sampler.start(epoch)
        parallel.train()
        watch = Watch()
        began = time.perf_counter()
        for pixels, labels in watched_batches(
            loader, steps_per_epoch, f"epoch {epoch + 1}/{settings.epochs}", watch, folder.console
        ):
            factor = learning_rate_factor(
                settings.schedule, step, steps_per_epoch=steps_per_epoch, epochs=settings.epochs
            )
            set_learning_rate(optimiser, rate * factor)
            pixels = pixels.to(process.device, non_blocking=True)  # (N, 3, H, W)
            labels = labels.to(process.device, non_blocking=True)  # (N,)
            with autocast(process.device, settings.precision):
                student, teacher = parallel(pixels, labels)
                parts = losses.parts(student, teacher, labels)
            loss = torch.stack(tuple(parts.values())).sum()
            drawn = own_batch(sampler, epoch, step % steps_per_epoch)
            folder.refuse_infinite(loss, parts, step, map(pictures.where, drawn))
            take_step(loss, optimiser, scaler, clip_norm=settings.optimiser.clip_norm)
            step += 1
            watch.add(len(labels), loss=loss.item(), **{name: part.item() for name, part in parts.items()})

        is_best = False
        measured: dict[str, float] = {}
        if (epoch + 1) % settings.evaluation.every_epochs == 0 or epoch + 1 == settings.epochs:
            how = {"batch_size": settings.evaluation.batch_size, "workers": settings.workers}
            measured = evaluate_embedder(
                pair.student, judged, card, process, hashes=settings.model.hashes, **how
            )
            measured[AGREEMENT] = agreement(pair, judged.query, card, process, **how)
            figures = measured
            is_best = best is None or figures[settings.evaluation.best_by] > best
            best = figures[settings.evaluation.best_by] if is_best else best
        folder.record(
            {
                EPOCH: epoch + 1,
                "learning_rate": rate * factor,
                **watch.figures(process),
                "seconds": time.perf_counter() - began,
                **measured,
            }
        )
        folder.keep(
            Checkpoint(
                program=settings.program,
                settings=settings_to_dict(settings),
                code=code,
                classes=n_classes,
                trained_on=trained_on,
                step=step,
                steps_per_epoch=steps_per_epoch,
                weights=pair.student.state_dict(),
                teacher=pair.teacher.state_dict(),
                optimiser=optimiser.state_dict(),
                scaler=scaler.state_dict(),
                random=random_states(),
                figures=figures,
                best=best,
            ),
            is_best=is_best,
        )
    return folder.path
