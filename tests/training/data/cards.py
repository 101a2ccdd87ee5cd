"""A model card for the tests of training data."""

from recognition.model_card import EmbedderOutputs, ModelCard, Resize
from training.export import normalised_input
from training.models.embedder import IMAGENET


def embedder_card(width: int, height: int) -> ModelCard:
    return ModelCard(
        name="test",
        version="1",
        task="embedder",
        sha256="0" * 64,
        input=normalised_input(width, height, IMAGENET),
        resize=Resize("bilinear", antialias=False, keep_aspect=False),
        provider="cpu",
        precision="fp32",
        outputs=EmbedderOutputs("embedding"),
        licence="",
        origin="",
        trained_on="",
        seed=None,
        command="",
        accuracy="",
        dimension=8,
    )
