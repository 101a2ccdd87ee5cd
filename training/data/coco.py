"""Scenes with boxes, for the detector, out of files in COCO's format.

The format: one JSON object with `images` (id, file_name, width, height), `annotations` (image_id, category_id, bbox as
x, y, width, height in pixels, iscrowd) and `categories` (id, name); cocodataset.org, "Data format", object detection.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recognition.boxes import area, clip
from recognition.errors import ImageRefused
from recognition.images import decode
from training.data.faults import Faults, watched
from training.data.lists import write_lines
from training.data.pictures import Header, box_fault, headers_of
from training.data.published import Boxed

FOREGROUND = "foreground"


class Truth(NamedTuple):
    """What a scene holds.

    Attributes:
        boxes: (G, 4) float32 x1, y1, x2, y2 in pixels of the upright picture, each of some area; G may be 0.
        labels: (G,) int64.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


NO_BOXES = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


class Scenes(Protocol):
    """Pictures with boxes."""

    @property
    def classes(self) -> Sequence[str]:
        """What each label stands for."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """One picture, (h, w, 3) RGB."""

    def where(self, index: int) -> str:
        """Where the scene is listed, or what it is, for messages."""

    def truth(self, index: int) -> Truth:
        """Its boxes."""

    def crowds(self, index: int) -> Truth:
        """Boxes that hold many things and stand for none: what is found in them counts neither for nor against."""

    def check(self, faults: Faults, *, thorough: bool = True) -> None:
        """Look at every picture without decoding it, as `Pictures.check`, and note what is wrong."""


@dataclass(frozen=True)
class ListedScenes:
    """Scenes in files, as one file in COCO's format lists them.

    Attributes:
        root: the folder that paths are relative to.
        source: the file.
        paths: (N,) of texts.
        sizes: (N, 2) int64, width and height as the file says.
        starts: (N + 1,); scene i has the boxes starts[i] to starts[i + 1].
        boxes: (M, 4) float32 x1, y1, x2, y2 as the file says.
        labels: (M,) int64.
        is_crowd: (M,) bool, which of them hold many things and stand for none.
        annotations: (M,) int64, their ids, for messages.
        classes: what each label stands for.
    """

    root: Path
    source: Path
    paths: NDArray[Any]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    annotations: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> NDArray[np.uint8]:
        """
        Raises:
            BadData: the file went, or its pixels are damaged, which its header does not show.
        """
        path = self.root / str(self.paths[index])
        try:
            return decode(path.read_bytes()).pixels
        except (OSError, ImageRefused) as error:
            faults = Faults()
            faults.add(str(self.source), f"{path}: {error}")
            faults.raise_if_any()
            raise

    def where(self, index: int) -> str:
        return str(self.root / str(self.paths[index]))

    def truth(self, index: int) -> Truth:
        """The scene's boxes but for crowds, cut off at its borders."""
        return self._boxes(index, crowds=False)

    def crowds(self, index: int) -> Truth:
        """The scene's crowds, likewise."""
        return self._boxes(index, crowds=True)

    def _boxes(self, index: int, *, crowds: bool) -> Truth:
        own = np.arange(self.starts[index], self.starts[index + 1])
        own = own[self.is_crowd[own] == crowds]
        width, height = self.sizes[index].tolist()
        return Truth(clip(self.boxes[own], width, height), self.labels[own])

    def check(self, faults: Faults, *, thorough: bool = True) -> None:
        """Note each missing or unusable picture, or one of another size than listed, and each bad box."""
        if not len(self):
            faults.add(str(self.source), "found no picture with boxes, wanted one or more")
        elif self.is_crowd.all():
            faults.add(str(self.source), "found no box that is no crowd, wanted one or more")
        headers = headers_of(((self.root / str(path), True) for path in self.paths), thorough=thorough)
        for index, header in enumerate(watched(headers, f"checking {self.source.name}", len(self))):
            self._check_scene(index, header, faults)

    def _check_scene(self, index: int, header: Header, faults: Faults) -> None:
        width, height = self.sizes[index].tolist()
        if header.fault:
            faults.add(str(self.source), f"{self.paths[index]}: {header.fault}")
        elif header.width < math.inf and (header.width, header.height) != (width, height):
            faults.add(
                str(self.source),
                f"{self.paths[index]}: found {header.width} x {header.height} pixels, the list says"
                f" {width} x {height}, and its boxes are in those",
            )
        for number in range(self.starts[index], self.starts[index + 1]):
            fault = box_fault(self.boxes[number], width, height)
            if fault:
                faults.add(
                    f"{self.source}: annotation {self.annotations[number]}", f"{self.paths[index]}: {fault}"
                )


def check_scenes(scenes: Scenes, *, thorough: bool = True) -> None:
    """Look through a training or evaluation set of the detector before the run.

    Args:
        scenes: the set.
        thorough: as for `Pictures.check`.
    Raises:
        BadData: naming what is wrong, and where.
    """
    faults = Faults()
    scenes.check(faults, thorough=thorough)
    faults.raise_if_any()


def read_coco(
    path: Path, root: Path | None = None, *, foreground: bool = True, keep_empty: bool = False
) -> ListedScenes:
    """Read a file in COCO's format.

    Boxes marked as a crowd are no truth, as in PaddleDetection: training does not see them, and a picture with no other
    has none. Evaluation forgives what is found in them, as COCO's own does (`training.coco_ap`).

    Args:
        path: of the file.
        root: what `file_name` is relative to; None is the file's own folder.
        foreground: all categories are one, the main body. False keeps them, in the order of the file.
        keep_empty: keep pictures without boxes too; the published recipe leaves them out.
    Raises:
        BadData: the file is not of this format, or names an image or category that it does not list.
    """
    faults = Faults()
    try:
        written = json.loads(path.read_bytes())
        images = {image["id"]: image for image in written["images"]}
        categories = [(category["id"], str(category["name"])) for category in written["categories"]]
        boxes_of: dict[Any, list[tuple[Any, Any]]] = {number: [] for number in images}
        numbers = {number: 0 if foreground else label for label, (number, _) in enumerate(categories)}
        for place, annotation in enumerate(written["annotations"]):
            where = f"{path}: annotation {annotation.get('id', place)}"
            if annotation["image_id"] not in images:
                faults.add(where, f"found the image {annotation['image_id']!r}, which is not listed")
            elif annotation["category_id"] not in numbers:
                faults.add(where, f"found the category {annotation['category_id']!r}, which is not listed")
            elif not _is_box(annotation.get("bbox")):
                faults.add(where, f"found the bbox {annotation.get('bbox')!r}, wanted x, y, width, height")
            else:
                boxes_of[annotation["image_id"]].append((place, annotation))
        kept = [
            number
            for number, boxes in boxes_of.items()
            if keep_empty or not all(annotation.get("iscrowd") for _, annotation in boxes)
        ]
        chosen = [boxes_of[number] for number in kept]
        listed = [annotation for boxes in chosen for _, annotation in boxes]
        corners = np.array([annotation["bbox"] for annotation in listed], np.float64).reshape(-1, 4)
        scenes = ListedScenes(
            root=path.parent if root is None else root,
            source=path,
            paths=np.array([images[number]["file_name"] for number in kept], np.dtypes.StringDType()),
            sizes=np.array([(images[n]["width"], images[n]["height"]) for n in kept], np.int64).reshape(
                -1, 2
            ),
            starts=np.cumsum([0, *map(len, chosen)]),
            boxes=np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1).astype(
                np.float32
            ),
            labels=np.array([numbers[annotation["category_id"]] for annotation in listed], np.int64),
            is_crowd=np.array([bool(annotation.get("iscrowd")) for annotation in listed], np.bool_),
            annotations=np.array(
                [annotation.get("id", place) for boxes in chosen for place, annotation in boxes], np.int64
            ),
            classes=(FOREGROUND,) if foreground else tuple(name for _, name in categories),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        faults.add(str(path), f"cannot be read as COCO's format: {type(error).__name__}: {error}")
    faults.raise_if_any()
    return scenes


def _is_box(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 4
        and all(isinstance(side, int | float) and math.isfinite(side) for side in found)
    )


def boxes_of_some_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the boxes (N, 4) have any."""
    some: NDArray[np.bool_] = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (area(boxes) > 0)
    return some


def write_coco(path: Path, scenes: Sequence[Boxed], sizes: Mapping[str, tuple[float, float]]) -> None:
    """Write a file in COCO's format, aside first: one that is there is whole.

    Args:
        path: of the file.
        scenes: each picture with its boxes; categories are numbered by name, from 1.
        sizes: width and height of each upright picture in pixels, by its path.
    """
    names = sorted({name for scene in scenes for name in scene.names})
    categories = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, scene in enumerate(scenes, start=1):
        width, height = sizes[scene.path]
        images.append({"id": number, "file_name": scene.path, "width": width, "height": height})
        for (x1, y1, x2, y2), name, is_crowd in zip(scene.boxes, scene.names, scene.is_crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(is_crowd),
                }
            )
    listed = [{"id": number, "name": name} for name, number in categories.items()]
    written = {"images": images, "annotations": annotations, "categories": listed}
    write_lines(path, [json.dumps(written)])
