"""From settings to data: the pictures and scenes that a run names, joined, checked, and how batches are drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, NamedTuple

from training.data.augment import (
    Augmentation,
    ChecklaneAugmentation,
    ShiTuV1Augmentation,
    ShiTuV2Augmentation,
    Stretch,
)
from training.data.coco import Scenes, check_scenes, read_coco
from training.data.composed import ComposedScenes
from training.data.generated import DrawnScenes, GeneratedPictures, GeneratedScenes, generated_retrieval
from training.data.lists import read_folder, read_folder_retrieval, read_label_list, read_retrieval_lists
from training.data.mixing import MixedPictures, MixedScenes, Part
from training.data.pictures import Pictures, Retrieval, check, check_retrieval
from training.data.samplers import BatchSampler, PKSampler, ShuffledSampler
from training.distributed import Process, gathered
from training.models.embedder import EmbedderModel
from training.settings import (
    AugmentationChoice,
    CatalogueFolder,
    ClassesAndPictures,
    CocoFile,
    ComposedScenesSource,
    DetectorData,
    EmbedderData,
    EmbedderSettings,
    GeneratedProducts,
    GeneratedRetrieval,
    GeneratedScenesSource,
    LabelList,
    PairSettings,
    PictureSource,
    RetrievalFolder,
    RetrievalSource,
    SceneSource,
)

# Drawing takes longer than a small training; so many drawn sets are kept for the process' next run.
KEPT_SETS = 8

AUGMENTATIONS: Mapping[str, Callable[..., Augmentation]] = {
    "none": Stretch,
    "shitu_v1": ShiTuV1Augmentation,
    "shitu_v2": ShiTuV2Augmentation,
    "checklane": ChecklaneAugmentation,
}


class TrainingPictures(NamedTuple):
    """An embedder's training set.

    Attributes:
        pictures: of all sets.
        description: of them in words, for the model's card.
    """

    pictures: MixedPictures
    description: str


class TrainingScenes(NamedTuple):
    """A detector's training set.

    Attributes:
        scenes: of all sets.
        description: of all in words, for the model's card.
    """

    scenes: MixedScenes
    description: str


def training_pictures(data: EmbedderData, process: Process) -> TrainingPictures:
    """Read and check an embedder's training sets; every process has to call it.

    Raises:
        BadData: naming file and line of what is wrong.
    """
    parts = [Part(_pictures(source, data.crop_margin), source.rate, source.name) for source in data.train]
    pictures = MixedPictures(parts)
    by_class = isinstance(data.sampler, ClassesAndPictures)
    _first_alone(process, lambda: check(pictures, pictures_per_class=2 if by_class else 1))
    described = [
        f"{_described(source)}, {len(part.source.labels):,} pictures of {len(part.source.classes):,} classes"
        for source, part in zip(data.train, parts, strict=True)
    ]
    return TrainingPictures(pictures, "; ".join(described))


def retrieval(source: RetrievalSource, crop_margin: float, process: Process) -> Retrieval:
    """Read and check queries and gallery; every process has to call it.

    Raises:
        BadData: naming file and line of what is wrong.
    """
    if isinstance(source, GeneratedRetrieval):
        found = _drawn_retrieval(
            source.products, source.gallery_views, source.query_views, source.seed, source.side, crop_margin
        )
    elif isinstance(source, RetrievalFolder):
        found = read_folder_retrieval(
            source.folder, gallery=source.gallery, query=source.query, crop_margin=crop_margin
        )
    else:
        found = read_retrieval_lists(source.query, source.gallery, source.root, crop_margin=crop_margin)
    _first_alone(process, lambda: check_retrieval(found))
    return found


def training_scenes(data: DetectorData, process: Process) -> TrainingScenes:
    """Read and check a detector's training sets; every process has to call it.

    Raises:
        BadData: naming what is wrong, and where.
    """
    sources = [_scenes(source, keep_empty=data.keep_empty) for source in data.train]
    parts = [Part(scenes, one.rate, one.name) for scenes, one in zip(sources, data.train, strict=True)]
    mixed = MixedScenes(parts)
    _first_alone(process, lambda: check_scenes(mixed))
    described = [
        f"{_described(one)}, {len(scenes):,} scenes" for scenes, one in zip(sources, data.train, strict=True)
    ]
    return TrainingScenes(mixed, "; ".join(described))


def evaluation_scenes(source: SceneSource, process: Process) -> Scenes:
    """Read and check the scenes that a detector is judged by; every process has to call it.

    Raises:
        BadData: naming what is wrong, and where.
    """
    scenes = _scenes(source, keep_empty=True)
    _first_alone(process, lambda: check_scenes(scenes))
    return scenes


def batches_of_pictures(
    settings: EmbedderSettings | PairSettings, pictures: MixedPictures, process: Process
) -> BatchSampler:
    """The sampler that the settings choose.

    Args:
        settings: of the run.
        pictures: to draw from.
        process: this one; a step's pictures are `settings.batch_size` of each.
    Raises:
        ValueError: the batch cannot be split as the sampler wants, or there are too few classes for it.
    """
    choice = settings.data.sampler
    total_batch = settings.batch_size * process.count
    how: dict[str, Any] = {"seed": settings.seed, "rates": pictures.rates, "share": process.share}
    if isinstance(choice, ClassesAndPictures):
        return PKSampler(
            pictures.labels,
            total_batch,
            pictures_per_class=choice.pictures_per_class,
            class_draw=choice.class_draw,
            look_alikes=choice.look_alikes,
            **how,
        )
    return ShuffledSampler(len(pictures), total_batch, drop_last=choice.drop_last, **how)


def see_look_alikes(sampler: BatchSampler, network: EmbedderModel) -> None:
    """Tell the sampler, before an epoch, which classes the network's head finds alike."""
    if isinstance(sampler, PKSampler) and network.head is not None:
        sampler.see_classes(network.head.class_weights.detach().float().cpu().numpy())


def own_batch(sampler: BatchSampler, epoch: int, number: int) -> Iterator[int]:
    """The pictures that this process has of a batch; drawn when they are asked for."""
    rank, processes = sampler.share
    own = sampler.batch_size // processes
    yield from sampler.batch(epoch, number)[rank * own : (rank + 1) * own].tolist()


def augmentation(choice: AugmentationChoice, side: int) -> Augmentation:
    """The augmentation that the settings choose, for crops of side x side."""
    options = asdict(choice)
    return AUGMENTATIONS[options.pop("kind")](side, side, **options)


def _pictures(source: PictureSource, crop_margin: float) -> Pictures:
    if isinstance(source, LabelList):
        return read_label_list(
            source.list,
            source.root,
            relabel=source.relabel,
            minimum_pictures=source.minimum_pictures,
            crop_margin=crop_margin,
        )
    if isinstance(source, CatalogueFolder):
        return read_folder(
            source.folder,
            gallery=source.gallery,
            minimum_pictures=source.minimum_pictures,
            crop_margin=crop_margin,
        )
    return _drawn_pictures(source.products, source.views, source.seed, source.side, crop_margin)


@lru_cache(maxsize=KEPT_SETS)
def _drawn_pictures(products: int, views: int, seed: int, side: int, crop_margin: float) -> GeneratedPictures:
    drawn = GeneratedPictures(products, range(views), seed=seed, side=side, crop_margin=crop_margin)
    drawn.draw_all()
    return drawn


def _scenes(source: SceneSource, *, keep_empty: bool) -> Scenes:
    if isinstance(source, CocoFile):
        return read_coco(source.annotations, source.root, keep_empty=keep_empty)
    return _drawn_scenes(replace(source, rate=1.0, name=""))  # how it is mixed changes no scene


@lru_cache(maxsize=KEPT_SETS)
def _drawn_retrieval(
    products: int, gallery_views: int, query_views: int, seed: int, side: int, crop_margin: float
) -> Retrieval:
    found = generated_retrieval(
        products,
        gallery_views=gallery_views,
        query_views=query_views,
        seed=seed,
        side=side,
        crop_margin=crop_margin,
    )
    for pictures in (found.query, found.gallery):
        assert isinstance(pictures, GeneratedPictures)
        pictures.draw_all()
    return found


@lru_cache(maxsize=KEPT_SETS)
def _drawn_scenes(source: GeneratedScenesSource | ComposedScenesSource) -> DrawnScenes:
    how: dict[str, Any] = {
        "seed": source.seed,
        "items": (source.fewest_items, source.most_items),
        "size": (source.width, source.height),
        "dense": source.dense,
    }
    drawn: DrawnScenes
    if isinstance(source, GeneratedScenesSource):
        drawn = GeneratedScenes(source.scenes, n_products=source.products, **how)
    else:
        drawn = ComposedScenes(read_folder(source.folder, gallery=source.gallery), source.scenes, **how)
    drawn.draw_all()
    return drawn


def _described(source: PictureSource | SceneSource) -> str:
    if isinstance(source, LabelList):
        return source.name or source.list.name
    if isinstance(source, CocoFile):
        return source.name or source.annotations.name
    if isinstance(source, CatalogueFolder):
        return source.name or source.folder.name
    if isinstance(source, ComposedScenesSource):
        return source.name or f"scenes composed from {source.folder.name}"
    drawn = "products" if isinstance(source, GeneratedProducts) else "scenes"
    return source.name or f"generated {drawn} of seed {source.seed}"


def _first_alone(process: Process, look: Callable[[], None]) -> None:
    """One process looks through the files while the others wait; a fault that it finds ends them all."""
    fault: Sequence[Exception] = []
    if process.is_first:
        try:
            look()
        except Exception as error:
            fault = [error]
    for found in gathered(fault):
        if found:
            raise found[0]
