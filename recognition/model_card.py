"""The model card: the one source of what a model wants and gives, and the check that card and file belong
together.

A model folder holds `model.onnx` and `card.json`. Training writes it, serving reads it; no other channel
tells either side how to prepare a picture or what an output means. Whether the card also fits the graph is
asked of the runtime, in `recognition.sessions`.
"""

import hashlib
import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from recognition.errors import ModelRefused

CARD_FILE = "card.json"
MODEL_FILE = "model.onnx"

Task = Literal["detector", "embedder"]
Provider = Literal["cpu", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
Interpolation = Literal["bilinear", "bicubic"]

HASH_KEYS = ("hash_bits", "hash_method")
TASK_KEYS = {
    "embedder": ("dimension", *HASH_KEYS, "crop_margin", "minimum_side_pixels"),
    "detector": ("detection",),
}
NORMALISATION_KEYS = ("scale", "mean", "std")


@dataclass(frozen=True)
class ModelInput:
    """The one input tensor of the graph, (N, 3, height, width).

    Each value is `(pixel * scale - mean) / std` with the pixel in 0..255 and one mean and std for each
    channel in `colour_order`; where the graph normalises by itself it takes the pixels as they are and the
    three are None.
    """

    name: str
    width: int
    height: int
    layout: Literal["NCHW"]
    dtype: Literal["float32", "uint8"]
    colour_order: Literal["RGB", "BGR"]
    normalisation_in_graph: bool
    scale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        _want(min(self.width, self.height) > 0, "input", f"{self.width} x {self.height}", "sides above 0")
        given = sum(getattr(self, key) is not None for key in NORMALISATION_KEYS)
        if self.normalisation_in_graph:
            _want(given == 0, "input", "scale, mean or std", "none, since normalisation_in_graph is true")
            return
        reason = "since normalisation_in_graph is false"
        _want(given == 3, "input", f"{given} of scale, mean and std", f"all three, {reason}")
        _want(self.dtype == "float32", "input.dtype", self.dtype, f"float32, {reason}")
        _want(min(self.std or (0,)) > 0, "input.std", str(self.std), "above 0")


@dataclass(frozen=True)
class Resize:
    """How a picture or crop becomes width x height.

    Attributes:
        interpolation: bilinear or bicubic.
        antialias: whether reducing averages over all pixels (Pillow's way) or samples a few (OpenCV's way).
        keep_aspect: False stretches to the whole input. True fits it in at the top left and fills the rest
            with grey.
    """

    interpolation: Interpolation
    antialias: bool
    keep_aspect: bool


@dataclass(frozen=True)
class EmbedderOutputs:
    """Output names: `embedding` (N, dimension) before normalisation, `hash` (N, hash_bits) real values whose
    sign is the bit.

    `hash` may name the embedding output itself.
    """

    embedding: str
    hash: str | None = None


@dataclass(frozen=True)
class DecodedOutputs:
    """Output names of a detector that gives boxes: (N, P, 4) x1, y1, x2, y2 in input pixels, scores (N, P, C)
    in 0..1, before NMS.
    """

    form: Literal["decoded"]
    boxes: str
    scores: str


@dataclass(frozen=True)
class RawLevel:
    """One level of a PicoDet head: cells of `stride` input pixels, n of them.

    Attributes:
        stride: in input pixels.
        scores: name of the output (N, n, C), in 0..1.
        distributions: name of the output (N, n, 4 * bins), logits over the distances left, top, right,
            bottom, in strides.
    """

    stride: int
    scores: str
    distributions: str


@dataclass(frozen=True)
class RawOutputs:
    """Outputs of a detector that leaves PicoDet's (generalised focal loss') distributions to be decoded."""

    form: Literal["raw"]
    bins: int
    levels: tuple[RawLevel, ...]

    def __post_init__(self) -> None:
        _want(self.bins > 1, "outputs.bins", str(self.bins), "2 or more")
        _want(bool(self.levels), "outputs.levels", "none", "one level or more")
        for level in self.levels:
            _want(level.stride > 0, "outputs.levels.stride", str(level.stride), "above 0")


DetectorOutputs = DecodedOutputs | RawOutputs


@dataclass(frozen=True)
class DetectionSettings:
    """What becomes of a detector's scores.

    Attributes:
        classes: names in the order of the score columns.
        ignored_classes: those that are never a main body (a table, a person); their columns are not looked
            at.
        score_threshold: detection scores below it are dropped, 0..1.
        nms_threshold: of two boxes with a larger intersection over union the better one stays, 0..1.
        maximum_items: at most so many boxes, the best first.
    """

    classes: tuple[str, ...]
    ignored_classes: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    maximum_items: int

    def __post_init__(self) -> None:
        strangers = ", ".join(sorted(set(self.ignored_classes) - set(self.classes)))
        _want(strangers == "", "detection.ignored_classes", strangers, "only names out of detection.classes")
        looked_at = set(self.classes) - set(self.ignored_classes)
        _want(looked_at != set(), "detection.ignored_classes", "all of them", "fewer than detection.classes")
        for key in ("score_threshold", "nms_threshold"):
            _want(0 <= getattr(self, key) <= 1, f"detection.{key}", str(getattr(self, key)), "0 to 1")
        _want(self.maximum_items > 0, "detection.maximum_items", str(self.maximum_items), "1 or more")


@dataclass(frozen=True)
class ModelCard:
    """What a model is, wants, gives, and whence it came.

    Attributes:
        name: together with `version` names the model everywhere.
        version: of this model, free text.
        task: detector or embedder.
        sha256: of `model.onnx`, hexadecimal.
        input: the graph's input.
        resize: how a picture becomes that input.
        provider: the execution provider the model was made for; `cpu` is ONNX Runtime's own.
        precision: fp32, or under openvino also bf16 and int8.
        outputs: the graph's outputs, by the task.
        licence: of the weights.
        origin: who made the weights, from what.
        trained_on: the data.
        seed: of the training; None where it is not known.
        command: that made this file.
        accuracy: the figure and on what it was measured.
        dimension: of the embedding; embedder only.
        hash_bits: of the hash code, a multiple of 8; embedder with a hash output only.
        hash_method: how the hash was made, such as `sign`; embedder with a hash output only.
        crop_margin: share of the box's side that the embedder wants added on each side; embedder only, 0 for
            a detector.
        minimum_side_pixels: crops with a shorter side are refused; embedder only, 1 for a detector.
        detection: what becomes of the scores; detector only.
    """

    name: str
    version: str
    task: Task
    sha256: str
    input: ModelInput
    resize: Resize
    provider: Provider
    precision: Precision
    outputs: EmbedderOutputs | DecodedOutputs | RawOutputs
    licence: str
    origin: str
    trained_on: str
    seed: int | None
    command: str
    accuracy: str
    dimension: int | None = None
    hash_bits: int | None = None
    hash_method: str | None = None
    crop_margin: float = 0.0
    minimum_side_pixels: int = 1
    detection: DetectionSettings | None = None

    def __post_init__(self) -> None:
        _want(self.name != "" and self.version != "", "name, version", "an empty text", "both given")
        is_digest = re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        _want(is_digest, "sha256", self.sha256, "64 lower-case hexadecimal digits")
        runs_anywhere = self.provider == "openvino" or self.precision == "fp32"
        _want(
            runs_anywhere,
            "precision",
            f"{self.precision} under {self.provider}",
            "fp32, or provider openvino",
        )
        if isinstance(self.outputs, EmbedderOutputs):
            _want(self.task == "embedder", "outputs", "an embedder's", f"those of a {self.task}")
            self._check_embedder(self.outputs)
        else:
            _want(self.task == "detector", "outputs", "a detector's", f"those of an {self.task}")
            _want(self.detection is not None, "detection", "none", "it given for a detector")

    def _check_embedder(self, outputs: EmbedderOutputs) -> None:
        dimension, bits = self.dimension or 0, self.hash_bits or 0
        _want(dimension > 0, "dimension", str(self.dimension), "1 or more")
        _want(0 <= self.crop_margin <= 1, "crop_margin", str(self.crop_margin), "0 to 1")
        _want(self.minimum_side_pixels > 0, "minimum_side_pixels", str(self.minimum_side_pixels), "1 or more")
        if outputs.hash is None:
            given = self.hash_bits is not None or self.hash_method is not None
            _want(not given, "hash_bits, hash_method", "given", "neither, since outputs.hash names no output")
        else:
            _want(
                bool(self.hash_method), "hash_method", "none", "it given, since outputs.hash names an output"
            )
            _want(bits > 0 and bits % 8 == 0, "hash_bits", str(self.hash_bits), "a multiple of 8, 8 or more")
        if outputs.hash == outputs.embedding:
            _want(bits == dimension, "hash_bits", str(bits), f"{dimension}, since both are one output")

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> Self:
        """Read a card as it stands in `card.json`.

        Args:
            card: the JSON object.
        Raises:
            ModelRefused: a key is missing, unknown, of another type or of the other task; it is named.
        """
        if card.get("task") in TASK_KEYS:
            for task, keys in TASK_KEYS.items():
                for key in keys:
                    if task != card["task"]:
                        _want(key not in card, key, "given", f"it only for a model of task {task}")
                    elif key not in HASH_KEYS:
                        _want(key in card, key, "no such key", f"it given for a model of task {task}")
        return _read(cls, card, "")

    def to_dict(self) -> dict[str, Any]:
        """The card as it is written to `card.json`: without the keys that this model has no value for."""
        foreign = TASK_KEYS["detector" if self.task == "embedder" else "embedder"]
        card = {key: value for key, value in asdict(self).items() if key not in foreign}
        return {**_without_none(card), "seed": self.seed}


@dataclass(frozen=True)
class ModelFolder:
    """A card and the file that it was checked against."""

    card: ModelCard
    model_path: Path


def load_model_folder(path: Path | str) -> ModelFolder:
    """Read a model folder and check that its file is the one that the card speaks of.

    Args:
        path: the folder with `model.onnx` and `card.json`.
    Raises:
        ModelRefused: a file is missing or empty, the card is not right, or the SHA-256 differs.
    """
    card_path, model_path = Path(path) / CARD_FILE, Path(path) / MODEL_FILE
    for file in (card_path, model_path):
        if not file.is_file():
            raise ModelRefused(
                f"{path}: found no {file.name}; a model folder holds {CARD_FILE} and {MODEL_FILE}."
            )
    try:
        written = json.loads(card_path.read_bytes())
    except ValueError as error:
        raise ModelRefused(f"{card_path}: found no readable JSON ({error}); write the card again.") from error
    if not isinstance(written, dict):
        raise ModelRefused(f"{card_path}: found {type(written).__name__}, wanted a JSON object.")
    try:
        card = ModelCard.from_dict(written)
    except ModelRefused as error:
        raise ModelRefused(f"{card_path}: {error}") from error
    with model_path.open("rb") as file_handle:
        found = hashlib.file_digest(file_handle, "sha256").hexdigest()
    if found != card.sha256:
        raise ModelRefused(
            f"{model_path}: found SHA-256 {found} ({model_path.stat().st_size:,} bytes), "
            f"the card says {card.sha256}; "
            "the file is damaged or belongs to another card: fetch or export the folder again."
        )
    return ModelFolder(card, model_path)


def _want(holds: bool, where: str, found: str, wanted: str) -> None:
    if not holds:
        raise ModelRefused(f"{where}: found {found}, wanted {wanted}.")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, tuple):
        return [_without_none(inner) for inner in value]
    return value


Value = TypeVar("Value")


def _read(cls: type[Value], written: Mapping[str, Any], where: str) -> Value:
    """Build a dataclass out of a JSON object by its fields' types, and refuse every key that does not fit."""
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in written:
        _want(key in known, f"{where}{key}", "an unknown key", f"one of {', '.join(known)}")
    hints = get_type_hints(cls)
    values = {}
    for name, field in known.items():
        if name in written:
            values[name] = _convert(hints[name], written[name], f"{where}{name}")
        else:
            _want(field.default is not MISSING, f"{where}{name}", "no such key", "it given")
    return cls(**values)


def _convert(wanted: Any, found: Any, where: str) -> Any:
    """One JSON value as the type that a field declares; only the types that the card's fields use are known
    here.
    """
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(wanted), found, where)
    if origin is Literal:
        _want(
            found in get_args(wanted), where, repr(found), f"one of {', '.join(map(repr, get_args(wanted)))}"
        )
        return found
    if origin is tuple:
        inner = get_args(wanted)
        _want(isinstance(found, list), where, repr(found), "a list")
        if inner[-1] is not Ellipsis:
            _want(len(found) == len(inner), where, f"{len(found)} values", f"{len(inner)}")
        return tuple(_convert(inner[0], value, f"{where}[{index}]") for index, value in enumerate(found))
    if is_dataclass(wanted):
        _want(isinstance(found, dict), where, repr(found), "an object")
        return _read(wanted, found, f"{where}.")  # type: ignore[arg-type]
    if wanted is float:
        is_number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
        _want(is_number, where, repr(found), "a number")
        return float(found)
    _want(type(found) is wanted, where, f"{found!r}", f"{wanted.__name__}")
    return found


def _convert_union(choices: tuple[Any, ...], found: Any, where: str) -> Any:
    if found is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    if len(choices) == 1:
        return _convert(choices[0], found, where)
    # The one union of objects is `outputs`: a detector's say their form, an embedder's have none.
    _want(isinstance(found, dict), where, repr(found), "an object")
    forms: dict[Any, Any] = {"decoded": DecodedOutputs, "raw": RawOutputs, None: EmbedderOutputs}
    form = found.get("form")
    _want(form in forms, f"{where}.form", repr(form), "'decoded' or 'raw', or none for an embedder")
    return _convert(forms[form], found, where)
