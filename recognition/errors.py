"""What can go wrong in recognition, sorted by what the caller can do about it: reject, call an operator, or
retry.

"No product found" is a result and not an error, so it is not here.
"""

from typing import Literal

ImageRefusedCode = Literal[
    "empty",
    "not-an-image",
    "unsupported-format",
    "truncated",
    "too-many-bytes",
    "too-many-pixels",
    "too-much-metadata",
    "too-small",
    "animated",
]


class RecognitionError(Exception):
    """The base of everything that `recognition` raises on purpose."""


class ImageRefused(RecognitionError):
    """The picture cannot be used: reject it and tell its sender why.

    Attributes:
        code: the kind of fault, stable, for programs.
        detail: one sentence for people: the value found, the value wanted, what to do.
    """

    def __init__(self, code: ImageRefusedCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class ModelRefused(RecognitionError):
    """A model's card disagrees with its file, the runtime or the gallery: an operator must act, the message
    says how.
    """


class GalleryUnavailable(RecognitionError):
    """Milvus does not answer (connection or timeout): retry later."""


class GalleryMismatch(RecognitionError):
    """A collection is missing or is not what its generation says: an operator must rebuild or choose another
    one.
    """
