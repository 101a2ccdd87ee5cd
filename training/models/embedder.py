"""EmbedderModel: backbone, neck and head, put together by a configuration; and what each of the three is.

The names and classes to choose from stand in `training.components`.
"""

from typing import NamedTuple

from torch import Tensor, nn


class EmbedderOutput(NamedTuple):
    """What the model says of N crops; losses take it.

    Attributes:
        backbone: (N, C), what the backbone gave.
        embedding: (N, D) before L2 normalisation: what the neck gave, or the backbone where there is no neck.
        logits: (N, classes), or None where there is no head.
        hash: what the hash branch said, its `backbone` the embedding and its `embedding` the hash values; None where
            there is no branch.
    """

    backbone: Tensor
    embedding: Tensor
    logits: Tensor | None
    hash: "EmbedderOutput | None" = None


class Normalisation(NamedTuple):
    """How pixels of 0..255 become what a backbone's weights expect: (pixel * scale - mean) / std, RGB."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# What the names of an embedder's weights begin with that only training uses.
HEAD_PREFIXES = ("head.", "hash_branch.head.")

IMAGENET = Normalisation(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Backbone(nn.Module):
    """Maps normalised crops (N, 3, H, W) to (N, out_channels).

    Attributes:
        out_channels: C.
        normalisation: of the pixels, as the published weights expect them.
    """

    out_channels: int
    normalisation: Normalisation = IMAGENET


class Trunk(nn.Module):
    """Maps normalised pictures (N, 3, H, W) to a list of maps, each half the size of the one before.

    Attributes:
        level_channels: of the maps; the last is at stride 32.
        normalisation: of the pixels, as the published weights expect them.
    """

    level_channels: tuple[int, ...]
    normalisation: Normalisation = IMAGENET


class Neck(nn.Module):
    """Maps what a backbone gave, (N, C), to (N, out_channels)."""

    out_channels: int


class Head(nn.Module):
    """Maps embeddings (N, D) and labels (N,) or None to logits (N, classes). Only training uses it."""

    @property
    def class_weights(self) -> Tensor:
        """What embeddings are compared with, (classes, D): classes whose weights point alike look alike."""
        raise NotImplementedError


class HashBranch(nn.Module):
    """A neck behind the embedding whose signs are a hash code, so that a model gives both, and a head to learn it by.

    It sees the embedding as it is and sends no gradient back: the embedding is the one that it would be without.
    """

    def __init__(self, neck: Neck, head: Head | None = None) -> None:
        super().__init__()
        self.neck, self.head = neck, head

    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> EmbedderOutput:
        """Hash values of embeddings (N, D) before L2 normalisation, and their classes."""
        embedding = embedding.detach()
        values = self.neck(embedding)  # (N, bits)
        return EmbedderOutput(embedding, values, None if self.head is None else self.head(values, labels))


class EmbedderModel(nn.Module):
    """A backbone, and behind it a neck, a head and a hash branch where they are given."""

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck | None = None,
        head: Head | None = None,
        hash_branch: HashBranch | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.hash_branch = backbone, neck, head, hash_branch

    @property
    def dimension(self) -> int:
        """Of the embedding."""
        return (self.neck or self.backbone).out_channels

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> EmbedderOutput:
        """Embed crops, and classify them where there is a head.

        Args:
            pixels: (N, 3, H, W), normalised.
            labels: (N,) int64; heads with a margin want them in training.
        """
        backbone = self.backbone(pixels)  # (N, C)
        embedding = backbone if self.neck is None else self.neck(backbone)  # (N, D)
        logits = None if self.head is None else self.head(embedding, labels)  # (N, classes)
        hashed = None if self.hash_branch is None else self.hash_branch(embedding, labels)
        return EmbedderOutput(backbone, embedding, logits, hashed)

    def embed(self, pixels: Tensor) -> Tensor:
        """Map normalised crops (N, 3, H, W) to embeddings (N, D) before L2 normalisation."""
        backbone = self.backbone(pixels)
        embedding: Tensor = backbone if self.neck is None else self.neck(backbone)
        return embedding

    def hash_values(self, embedding: Tensor) -> Tensor:
        """Map embeddings (N, D) to values (N, bits) whose signs are the hash code: the branch's, or themselves."""
        values: Tensor = embedding if self.hash_branch is None else self.hash_branch.neck(embedding)
        return values

    @property
    def bits(self) -> int:
        """Of the hash code."""
        return self.dimension if self.hash_branch is None else self.hash_branch.neck.out_channels
