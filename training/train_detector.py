"""Train a main-body detector: its data, its network, its loss, the running mean of its weights, how it is judged.

    python -m training.train -c training/configs/smoke_detector.toml

PicoDet as PP-ShiTu trains it (`picodet_lcnet_x2_5_640_mainbody.yml` of PaddleDetection): SimOTA, varifocal loss, GIoU
and distribution focal loss, batches of varying size, and a running mean of the weights that is what counts in the end.
"""

import copy
from typing import Any

from torch import Tensor, nn

from training.averaging import WeightAverage
from training.checkpoint import Checkpoint, load_weights
from training.coco_ap import evaluate_detector
from training.data.augment_detection import DetectionAugmentation
from training.data.datasets import DetectionDataset, collate_detection, first_pictures
from training.data.samplers import ShuffledSampler
from training.distributed import Process, mean_over_processes, share_buffers
from training.loop import Task
from training.losses.detection import PicoDetLoss
from training.networks import build_detector, detector_card, learning_int8, start
from training.optimiser import autocast
from training.settings import DetectorSettings
from training.sources import evaluation_scenes, training_scenes


def detector_task(settings: DetectorSettings, process: Process, before: Checkpoint | None) -> Task:
    """What `training.loop` shall train.

    Args:
        settings: of the run.
        process: this one.
        before: the checkpoint to go on from.
    Raises:
        BadData, CheckpointRefused, ValueError: as their messages say.
    """
    # Data: what is trained on, in which batches; what it is judged by.
    scenes, trained_on = training_scenes(settings.data, process)
    judged = evaluation_scenes(settings.evaluation.source, process)
    sampler = ShuffledSampler(
        len(scenes),
        settings.batch_size * process.count,
        seed=settings.seed,
        rates=scenes.rates,
        share=process.share,
    )

    # Network, with the weights to begin with, and their running mean.
    network = build_detector(settings.model, len(scenes.classes))
    side = settings.input.side
    dataset = DetectionDataset(
        scenes,
        DetectionAugmentation(
            side,
            side,
            multi_scale=settings.data.multi_scale,
            crop=settings.data.crop,
            distort=settings.data.distort,
        ),
        network.backbone.normalisation,
        seed=settings.seed,
    )
    origin = ""
    if before is None:
        origin = start(network, settings.model.start_from, first_pictures(dataset, sampler))
    network = learning_int8(network, settings)
    if before is not None:
        load_weights(network, before.weights, str(settings.out))
    network.to(process.device)
    averaging = settings.averaging
    average = None if averaging is None else WeightAverage(network, averaging.decay)
    if average is not None and before is not None and before.average is not None:
        average.load_state_dict(before.average)
    card = detector_card(settings, network)
    criterion = PicoDetLoss(mean_over_processes=mean_over_processes)

    def losses(parallel: nn.Module, batch: tuple[Tensor, list[Tensor], list[Tensor]]) -> dict[str, Tensor]:
        pixels, boxes, labels = batch  # (N, 3, H, W), N of (boxes, 4), N of (boxes,)
        with autocast(process.device, settings.precision):
            levels = parallel(pixels)
        parts = criterion(levels, boxes, labels)._asdict()
        return {name: part for name, part in parts.items() if name != "total"}

    def evaluate() -> dict[str, float]:
        mean = network
        if average is not None:
            mean = copy.deepcopy(network)
            mean.load_state_dict(average.weights(network))
            share_buffers(mean)
        return evaluate_detector(
            mean,
            judged,
            card,
            process,
            batch_size=settings.evaluation.batch_size,
            workers=settings.workers,
        )

    def epoch_begins(epoch: int) -> None:
        if average is not None and averaging is not None and averaging.restarts_at(epoch):
            average.reset()

    def step_taken() -> None:
        if average is not None:
            average.update(network)

    def networks_state() -> dict[str, Any]:
        return {
            "weights": network.state_dict(),
            "average": None if average is None else average.state_dict(),
        }

    return Task(
        network=network,
        origin=origin,
        dataset=dataset,
        sampler=sampler,
        where=scenes.where,
        trained_on=trained_on,
        classes=len(scenes.classes),
        losses=losses,
        evaluate=evaluate,
        networks_state=networks_state,
        collate=collate_detection,
        epoch_begins=epoch_begins,
        step_taken=step_taken,
    )
