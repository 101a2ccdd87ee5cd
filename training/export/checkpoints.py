"""What a checkpoint's model file computes, and the card that belongs to it."""

import dataclasses
from pathlib import Path, PurePath
from typing import Any

from torch import nn

from recognition.model_card import ModelCard, ModelInput
from training.checkpoint import Checkpoint, load
from training.config import settings_to_dict
from training.export import NormalisingGraph
from training.import_paddle import graph_of
from training.models.embedder import Normalisation
from training.networks import (
    detector_card,
    embedder_card,
    open_detector_checkpoint,
    open_embedder_checkpoint,
)
from training.settings import Settings


def graph_and_card(path: Path, **facts: str) -> tuple[nn.Module, ModelCard]:
    """What a checkpoint's file computes, and its card but for the SHA-256.

    Args:
        path: of the checkpoint; of a pair the student is meant, of a run with a running mean the mean.
        facts: the card's `version`, `licence` and `command`.
    Raises:
        CheckpointRefused, ConfigRefused: the file is no checkpoint of ours.
    """
    if load(path).program == "detector":
        detector, of_detector, checkpoint = open_detector_checkpoint(path)
        known = _known(checkpoint, of_detector)
        return graph_of(detector), detector_card(of_detector, detector, **known, **facts)
    embedder, of_embedder, checkpoint = open_embedder_checkpoint(path)
    known = _known(checkpoint, of_embedder)
    return graph_of(embedder), embedder_card(of_embedder, embedder, **known, **facts)


def _known(checkpoint: Checkpoint, settings: Settings) -> dict[str, Any]:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in checkpoint.figures.items())
    source = settings_to_dict(settings)["evaluation"]["source"]
    on_what = ", ".join(f"{key} {_without_folder(value)}" for key, value in source.items() if value != "")
    return {
        "origin": f"trained with Checklane {checkpoint.code}, {checkpoint.epoch} of {settings.epochs} epochs",
        "trained_on": checkpoint.trained_on,
        "accuracy": f"{figures} at the run's last evaluation ({on_what})" if figures else "not measured",
    }


def _without_folder(value: object) -> object:
    """A path by its last name: other machines keep it elsewhere."""
    return PurePath(value).name if isinstance(value, str) and "/" in value else value


def takes_raw_pixels(graph: nn.Module, card: ModelCard) -> tuple[nn.Module, ModelCard]:
    """The graph with the card's normalisation inside of it, and the card that says so."""
    given = card.input
    assert given.scale is not None
    assert given.mean is not None
    assert given.std is not None
    normalisation = Normalisation(given.scale, given.mean, given.std)
    raw = ModelInput(
        given.name, given.width, given.height, "NCHW", "uint8", "RGB", normalisation_in_graph=True
    )
    return NormalisingGraph(graph, normalisation), dataclasses.replace(card, input=raw)
