"""Train a main-body detector: settings, data, network, loop, running mean, evaluation, checkpoint, top to bottom.

    python -m training.train -c training/configs/smoke_detector.toml

PicoDet as PP-ShiTu trains it (`picodet_lcnet_x2_5_640_mainbody.yml` of PaddleDetection): SimOTA, varifocal loss, GIoU
and distribution focal loss, batches of varying size, and a running mean of the weights that is what counts in the end.
"""

import copy
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from training.averaging import WeightAverage
from training.checkpoint import (
    Checkpoint,
    code_version,
    load_weights,
    random_states,
    restore_random_state,
    seed_random_numbers,
)
from training.coco_ap import evaluate_detector
from training.config import settings_to_dict
from training.curves import EPOCH
from training.data.augment_detection import DetectionAugmentation
from training.data.datasets import DetectionDataset, collate_detection
from training.data.samplers import ShuffledSampler
from training.distributed import Process, mean_over_processes, wrapped
from training.losses.detection import PicoDetLoss
from training.models.embedder import IMAGENET
from training.networks import build_detector, detector_card, learning_int8, start
from training.optimiser import autocast, build_optimiser, build_scaler, set_learning_rate, take_step
from training.run_folder import RunFolder, Watch, watched_batches
from training.schedule import learning_rate_factor, scaled_learning_rate
from training.settings import DetectorSettings
from training.sources import evaluation_scenes, own_batch, training_scenes


def train_detector(
    settings: DetectorSettings, process: Process, *, resume: bool = False, until_epoch: int | None = None
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

    # Data: what is trained on, in which batches; what it is judged by.
    scenes, where, trained_on = training_scenes(settings.data, process)
    judged = evaluation_scenes(settings.evaluation.source, process)
    total_batch = settings.batch_size * process.count
    sampler = ShuffledSampler(
        len(scenes), total_batch, seed=settings.seed, rates=scenes.rates, share=process.share
    )
    steps_per_epoch = sampler.batches_per_epoch
    side = settings.input.side

    # Network, loss, and who moves the weights.
    network = build_detector(settings.model, len(scenes.classes))
    origin = (
        start(network, settings.model.start_from) if before is None else f"resumed after step {before.step}"
    )
    network = learning_int8(network, settings).to(process.device)
    card = detector_card(settings)
    losses = PicoDetLoss(mean_over_processes=mean_over_processes)
    optimiser = build_optimiser(network, settings.optimiser)
    scaler = build_scaler(process.device, settings.precision)
    average = None if settings.averaging is None else WeightAverage(network, settings.averaging.decay)
    loader = DataLoader(
        DetectionDataset(
            scenes,
            DetectionAugmentation(
                side,
                side,
                multi_scale=settings.data.multi_scale,
                crop=settings.data.crop,
                distort=settings.data.distort,
            ),
            IMAGENET,
            seed=settings.seed,
        ),
        batch_sampler=sampler,
        collate_fn=collate_detection,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=process.device.type == "cuda",
        generator=torch.Generator().manual_seed(settings.seed),  # its own, so that it draws from no other
    )

    step, best = 0, None
    figures: dict[str, float] = {}
    if before is not None:
        load_weights(network, before.weights, str(folder.path))
        if average is not None and before.average is not None:
            average.load_state_dict(before.average)
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
        if average is not None and settings.averaging is not None and settings.averaging.restarts_at(epoch):
            average.reset()
        sampler.start(epoch)
        parallel.train()
        watch = Watch()
        began = time.perf_counter()
        for pixels, boxes, labels in watched_batches(
            loader, steps_per_epoch, f"epoch {epoch + 1}/{settings.epochs}", watch, folder.console
        ):
            factor = learning_rate_factor(
                settings.schedule, step, steps_per_epoch=steps_per_epoch, epochs=settings.epochs
            )
            set_learning_rate(optimiser, rate * factor)
            pixels = pixels.to(process.device, non_blocking=True)  # (N, 3, H, W)
            with autocast(process.device, settings.precision):
                levels = parallel(pixels)
            parts = losses(
                levels,
                [one.to(process.device, non_blocking=True) for one in boxes],
                [one.to(process.device, non_blocking=True) for one in labels],
            )
            terms = {name: part for name, part in parts._asdict().items() if name != "total"}
            drawn = own_batch(sampler, epoch, step % steps_per_epoch)
            folder.refuse_infinite(parts.total, terms, step, map(where, drawn))
            take_step(parts.total, optimiser, scaler, clip_norm=settings.optimiser.clip_norm)
            if average is not None:
                average.update(network)
            step += 1
            watch.add(
                len(labels), loss=parts.total.item(), **{name: part.item() for name, part in terms.items()}
            )

        is_best = False
        measured: dict[str, float] = {}
        if (epoch + 1) % settings.evaluation.every_epochs == 0 or epoch + 1 == settings.epochs:
            mean = network
            if average is not None:
                mean = copy.deepcopy(network)
                mean.load_state_dict(average.weights(network))
            figures = measured = evaluate_detector(
                mean,
                judged,
                card,
                process,
                batch_size=settings.evaluation.batch_size,
                workers=settings.workers,
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
                classes=len(scenes.classes),
                trained_on=trained_on,
                step=step,
                steps_per_epoch=steps_per_epoch,
                weights=network.state_dict(),
                average=None if average is None else average.state_dict(),
                optimiser=optimiser.state_dict(),
                scaler=scaler.state_dict(),
                random=random_states(),
                figures=figures,
                best=best,
            ),
            is_best=is_best,
        )
    return folder.path
