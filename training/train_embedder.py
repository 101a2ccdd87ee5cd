"""Train an embedder, or a hash embedder: its data, its network, its losses and how it is judged.

    python -m training.train -c training/configs/smoke_embedder.toml

A hash embedder is an embedder whose signs are the code; its recipe differs in neck, head and losses alone.
"""

from torch import Tensor, nn

from training.checkpoint import Checkpoint, load_weights
from training.components import LOSSES
from training.data.datasets import EmbedderDataset, first_pictures
from training.distributed import Process
from training.loop import Task
from training.networks import build_embedder, build_losses, embedder_card, learning_int8, start
from training.optimiser import autocast
from training.retrieval import evaluate_embedder
from training.settings import EmbedderSettings
from training.sources import augmentation, batches_of_pictures, retrieval, see_look_alikes, training_pictures


def embedder_task(settings: EmbedderSettings, process: Process, before: Checkpoint | None) -> Task:
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

    # Network, with the weights to begin with.
    network = build_embedder(settings.model, len(pictures.classes))
    dataset = EmbedderDataset(
        pictures,
        augmentation(settings.data.augmentation, settings.input.side),
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

    return Task(
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
        epoch_begins=lambda epoch: see_look_alikes(sampler, network),
    )
