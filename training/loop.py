"""The loop that every program trains in: a `Task` says what is trained; how is here, the same for all."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from training.checkpoint import Checkpoint, code_version, random_states, restore_random_state
from training.config import settings_to_dict
from training.curves import EPOCH
from training.data.samplers import BatchSampler
from training.distributed import Process, share_buffers, wrapped
from training.optimiser import (
    build_optimiser,
    build_scaler,
    half_precision,
    set_learning_rate,
    take_step,
)
from training.run_folder import RunFolder, Watch, watched_batches
from training.schedule import learning_rate_factor, scaled_learning_rate
from training.settings import Settings
from training.sources import own_batch


@dataclass(frozen=True)
class Task:
    """What a program trains.

    Attributes:
        network: all that is trained, with its weights to begin with, on the process' device.
        origin: of these weights, in words; not asked when resuming.
        dataset: gives single samples.
        sampler: of the run's batches; its batch size is that of all processes together.
        where: names a sample, for messages.
        trained_on: what the data is, in words.
        classes: how many the head tells apart.
        losses: the weighted terms of the loss by name, scalars, of the network that is called and a batch on its
            device. That network is `network`, or what averages its gradients over the processes.
        evaluate: the figures of the weights as they are; every process calls it.
        networks_state: the fields of a checkpoint that hold the networks.
        collate: a batch out of samples; None stacks them.
        epoch_begins: called with each epoch's number, from 0.
        step_taken: called after each step.
    """

    network: nn.Module
    origin: str
    dataset: Dataset[Any]
    sampler: BatchSampler
    where: Callable[[int], str]
    trained_on: str
    classes: int
    losses: Callable[[nn.Module, Any], Mapping[str, Tensor]]
    evaluate: Callable[[], dict[str, float]]
    networks_state: Callable[[], dict[str, Any]]
    collate: Callable[[list[Any]], Any] | None = None
    epoch_begins: Callable[[int], None] = lambda epoch: None
    step_taken: Callable[[], None] = lambda: None


def run(task: Task, folder: RunFolder, before: Checkpoint | None, *, until_epoch: int | None = None) -> Path:
    """Train a task as the folder's settings say: steps, epochs, evaluation, checkpoints.

    Args:
        task: what is trained; when resuming, it has the checkpoint's weights already.
        folder: of the run.
        before: the checkpoint to go on from.
        until_epoch: stop after so many epochs, as if the machine were needed; the schedule stays that of all.
    Returns:
        The run's folder.
    Raises:
        TrainingStopped: a loss or a weight is no finite number.
    """
    settings, process = folder.settings, folder.process
    network, sampler, code = task.network, task.sampler, code_version()
    # Channels last: what oneDNN and cuDNN convolve fastest. On two cores a step takes two thirds of the time.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares the others
    steps_per_epoch = sampler.batches_per_epoch
    optimiser = build_optimiser(network, settings.optimiser)
    scaler = build_scaler(process.device, settings.precision)
    loader = loader_of(task, settings, process)

    step, best = 0, None
    figures: dict[str, float] = {}
    if before is not None:
        optimiser.load_state_dict(dict(before.optimiser))
        scaler.load_state_dict(dict(before.scaler))
        restore_random_state(before.random, process)
        # Its own step, unless an epoch has another number of them now: of other processes, or with a picture left out.
        step = before.epoch * steps_per_epoch
        best, figures = before.best, before.figures
    parallel = wrapped(network, process)

    rate = scaled_learning_rate(
        settings.optimiser.learning_rate,
        total_batch=sampler.batch_size,
        reference_batch=settings.optimiser.reference_batch,
    )
    computed_in = half_precision(process.device, settings.precision) or torch.float32
    origin = task.origin if before is None else f"resumed after epoch {before.epoch}"
    folder.say(
        f"{settings.name}: {sum(weight.numel() for weight in network.parameters()):,} weights, {origin}; "
        f"{task.trained_on}; {steps_per_epoch} steps of {sampler.batch_size} an epoch, learning rate {rate:g}; "
        f"{process.count} process(es) on {process.device.type} in {str(computed_in).removeprefix('torch.')}"
    )

    last_epoch = min(settings.epochs, until_epoch or settings.epochs)
    for epoch in range(step // steps_per_epoch, last_epoch):
        task.epoch_begins(epoch)
        sampler.start(epoch)
        parallel.train()
        watch = Watch()
        began = time.perf_counter()
        title = f"epoch {epoch + 1}/{settings.epochs}"
        for batch in watched_batches(loader, steps_per_epoch, title, watch, folder.console):
            factor = learning_rate_factor(
                settings.schedule, step, steps_per_epoch=steps_per_epoch, epochs=settings.epochs
            )
            set_learning_rate(optimiser, rate * factor)
            parts = task.losses(parallel, on_device(batch, process.device))
            loss = torch.stack(tuple(parts.values())).sum()
            drawn = own_batch(sampler, epoch, step % steps_per_epoch)
            folder.refuse_infinite(loss, parts, step, map(task.where, drawn))
            take_step(loss, optimiser, scaler, clip_norm=settings.optimiser.clip_norm)
            task.step_taken()
            step += 1
            watch.add(len(batch[0]), loss=loss.item(), **{name: part.item() for name, part in parts.items()})

        is_best = False
        measured: dict[str, float] = {}
        if (epoch + 1) % settings.evaluation.every_epochs == 0 or epoch + 1 == settings.epochs:
            share_buffers(network)  # what is judged is what is kept
            figures = measured = task.evaluate()
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
                classes=task.classes,
                trained_on=task.trained_on,
                step=step,
                steps_per_epoch=steps_per_epoch,
                **task.networks_state(),
                optimiser=optimiser.state_dict(),
                scaler=scaler.state_dict(),
                random=random_states(),
                figures=figures,
                best=best,
            ),
            is_best=is_best,
        )
    folder.draw()
    return folder.path


def loader_of(task: Task, settings: Settings, process: Process) -> DataLoader[Any]:
    """What loads a task's batches, in `settings.workers` processes."""
    return DataLoader(
        task.dataset,
        batch_sampler=task.sampler,
        collate_fn=task.collate,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=process.device.type == "cuda",
        generator=torch.Generator().manual_seed(settings.seed),  # its own, so that it draws from no other
    )


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch's tensors on a device, also those in its lists."""
    if isinstance(batch, Tensor):
        if batch.ndim == 4:  # pictures, (N, C, H, W), laid out as the network is
            return batch.to(device, non_blocking=True, memory_format=torch.channels_last)
        return batch.to(device, non_blocking=True)
    return [on_device(part, device) for part in batch]
