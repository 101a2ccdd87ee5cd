"""Train an embedder, or a hash embedder: its data, its network, its losses and how it is judged.

    python -m training.train -c training/configs/smoke_embedder.toml

A hash embedder is an embedder whose signs are the code; its recipe differs in neck, head and losses alone.
"""

from pathlib import Path

from torch import Tensor, nn

from training.checkpoint import load_weights, seed_random_numbers
from training.components import LOSSES
from training.data.datasets import EmbedderDataset
from training.distributed import Process
from training.loop import Task, train
from training.networks import build_embedder, build_losses, embedder_card, learning_int8, start
from training.optimiser import autocast
from training.retrieval import evaluate_embedder
from training.run_folder import RunFolder
from training.settings import EmbedderSettings
from training.sources import augmentation, batches_of_pictures, retrieval, training_pictures


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
    folder = RunFolder(settings, process)
    before = folder.open(resume=resume)
    seed_random_numbers(settings.seed, process)

    # Data: what is trained on, in which batches; what is searched.
    pictures, trained_on = training_pictures(settings.data, process)
    judged = retrieval(settings.evaluation.source, settings.data.crop_margin, process)
    sampler = batches_of_pictures(
        settings.data,
        pictures,
        batch_size=settings.batch_size * process.count,
        seed=settings.seed,
        share=process.share,
    )

    # Network, with the weights to begin with.
    network = build_embedder(settings.model, len(pictures.classes))
    origin = start(network, settings.model.start_from) if before is None else ""
    network = learning_int8(network, settings)
    if before is not None:
        load_weights(network, before.weights, str(folder.path))
    network.to(process.device)
    card = embedder_card(settings, network)
    criterion = build_losses(settings.losses, LOSSES).to(process.device)
    branch = settings.model.hash_branch
    hash_criterion = None if branch is None else build_losses(branch.losses, LOSSES).to(process.device)

    def losses(parallel: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        pixels, labels = batch  # (N, 3, H, W), (N,)
        with autocast(process.device, settings.precision):
            output = parallel(pixels, labels)
            parts = criterion.parts(output, labels)
            if hash_criterion is not None:
                of_codes = hash_criterion.parts(output.hash, labels)
                parts |= {f"hash_{name}": part for name, part in of_codes.items()}
            return parts

    def evaluate() -> dict[str, float]:
        return evaluate_embedder(
            network,
            judged,
            card,
            process,
            batch_size=settings.evaluation.batch_size,
            workers=settings.workers,
            hashes=settings.model.has_codes,
        )

    dataset = EmbedderDataset(
        pictures,
        augmentation(settings.data.augmentation, settings.input.side),
        network.backbone.normalisation,
        seed=settings.seed,
    )
    task = Task(
        network=network,
        origin=origin,
        dataset=dataset,
        sampler=sampler,
        where=pictures.where,
        trained_on=trained_on,
        classes=len(pictures.classes),
        losses=losses,
        evaluate=evaluate,
        networks_state=lambda: {"weights": network.state_dict()},
    )
    return train(task, folder, before, until_epoch=until_epoch)
