"""Train an embedder, or a hash embedder: settings, data, network, loop, evaluation, checkpoint, from top to bottom.

    python -m training.train -c training/configs/smoke_embedder.toml

A hash embedder is an embedder whose signs are the code; its recipe differs in neck, head and losses alone.
"""

import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from training.checkpoint import (
    Checkpoint,
    code_version,
    load_weights,
    random_states,
    restore_random_state,
    seed_random_numbers,
)
from training.components import LOSSES
from training.config import settings_to_dict
from training.curves import EPOCH
from training.data.datasets import EmbedderDataset
from training.distributed import Process, wrapped
from training.networks import build_embedder, build_losses, embedder_card, learning_int8, start
from training.optimiser import autocast, build_optimiser, build_scaler, set_learning_rate, take_step
from training.retrieval import evaluate_embedder
from training.run_folder import RunFolder, Watch, watched_batches
from training.schedule import learning_rate_factor, scaled_learning_rate
from training.settings import EmbedderSettings
from training.sources import augmentation, batches_of_pictures, own_batch, retrieval, training_pictures


def train_embedder(
    settings: EmbedderSettings, process: Process, *, resume: bool = False, until_epoch: int | None = None
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

    # Network, losses, and who moves the weights.
    network = build_embedder(settings.model, n_classes)
    origin = (
        start(network, settings.model.start_from) if before is None else f"resumed after step {before.step}"
    )
    network = learning_int8(network, settings).to(process.device)
    card = embedder_card(settings, network)
    losses = build_losses(settings.losses, LOSSES).to(process.device)
    optimiser = build_optimiser(network, settings.optimiser)
    scaler = build_scaler(process.device, settings.precision)
    loader = DataLoader(
        EmbedderDataset(
            pictures,
            augmentation(settings.data.augmentation, settings.input.side),
            network.backbone.normalisation,
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
        load_weights(network, before.weights, str(folder.path))
        optimiser.load_state_dict(dict(before.optimiser))
        scaler.load_state_dict(dict(before.scaler))
        restore_random_state(before.random, process)
        step, best, figures = before.step, before.best, before.figures
    parallel = wrapped(network, process)

    rate = scaled_learning_rate(
        settings.optimiser.learning_rate,
        total_batch=total_batch,
        reference_batch=settings.optimiser.reference_batch,
    )
    folder.say(
        f"{settings.name}: {sum(weight.numel() for weight in network.parameters()):,} weights, {origin}; "
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
                parts = losses.parts(parallel(pixels, labels), labels)
            loss = torch.stack(tuple(parts.values())).sum()
            drawn = own_batch(sampler, epoch, step % steps_per_epoch)
            folder.refuse_infinite(loss, parts, step, map(pictures.where, drawn))
            take_step(loss, optimiser, scaler, clip_norm=settings.optimiser.clip_norm)
            step += 1
            watch.add(len(labels), loss=loss.item(), **{name: part.item() for name, part in parts.items()})

        is_best = False
        measured: dict[str, float] = {}
        if (epoch + 1) % settings.evaluation.every_epochs == 0 or epoch + 1 == settings.epochs:
            figures = measured = evaluate_embedder(
                network,
                judged,
                card,
                process,
                batch_size=settings.evaluation.batch_size,
                workers=settings.workers,
                hashes=settings.model.hashes,
            )
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
                weights=network.state_dict(),
                optimiser=optimiser.state_dict(),
                scaler=scaler.state_dict(),
                random=random_states(),
                figures=figures,
                best=best,
            ),
            is_best=is_best,
        )
    return folder.path
