"""Turns a published set into lists that training reads: `python -m training.data.prepare LAYOUT SOURCE OUT`.

Pictures stay where they are; the lists name them relative to SOURCE, which the configuration calls `root`. OUT gets, by
what the set holds:

- `train.txt`, and `test.txt` or `query.txt` and `gallery.txt`: label lists of one numbering;
- `train.json`, `val.json`: scenes with boxes in COCO's format;
- `classes.txt`: the name of each label, the first line that of 0;
- `left_out.txt`: each picture or box that cannot be used, and why. So what is written passes the check before a run.

Each file is written aside and renamed: one that is there is whole.
"""

import argparse
import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

from training.data.coco import write_coco
from training.data.layouts import (
    aliproducts,
    class_folders,
    coco,
    compcars,
    fashion_product_images,
    gldv2,
    icartoonface,
    in_shop,
    inaturalist,
    logodet_3k,
    objects365,
    products_10k,
    rpc,
    stanford_online_products,
    veri_wild,
)
from training.data.lists import write_lines
from training.data.pictures import Header, headers_of
from training.data.published import Box, Boxed, Labelled, LayoutRefused, PublishedSet
from training.data.randomness import Stream, generator

LAYOUTS: dict[str, Callable[[Path], PublishedSet]] = {
    "aliproducts": aliproducts.read,
    "class-folders": class_folders.read,
    "coco": coco.read,
    "compcars": compcars.read,
    "fashion-product-images": fashion_product_images.read,
    "gldv2": gldv2.read,
    "icartoonface": icartoonface.read,
    "in-shop": in_shop.read,
    "inaturalist": inaturalist.read,
    "logodet-3k": logodet_3k.read,
    "objects365": objects365.read,
    "products-10k": products_10k.read,
    "rpc": rpc.read,
    "stanford-online-products": stanford_online_products.read,
    "veri-wild": veri_wild.read,
}

Fact = TypeVar("Fact")

# A box with a shorter side shows nothing, and rounding may close it.
THINNEST_PIXELS = 0.1


def prepare(
    layout: str, source: Path, out: Path, *, hold_out: float = 0.0, seed: int = 0
) -> tuple[PublishedSet, list[str]]:
    """Read a published set, leave out what cannot be used, and write the rest.

    Args:
        layout: a key of LAYOUTS.
        source: the set's folder.
        out: made where it is missing; files of the same names are replaced.
        hold_out: for a set that was published without a split: the share of its classes that goes from `train` to
            `test`, and of its scenes that goes from `train` to `val`. 0 to below 1.
        seed: of the held-out ones.
    Returns:
        What was written, and what was left out, a line each.
    Raises:
        LayoutRefused: the folder is not of this layout, or nothing of it can be used.
    """
    if not source.is_dir():
        raise LayoutRefused(f"{source}: found no folder, wanted the unpacked set")
    try:
        published = LAYOUTS[layout](source)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LayoutRefused(f"{source}: cannot be read: {error}") from error
    measured = _Measured(published, source)
    usable = PublishedSet(
        {split: measured.pictures(pictures) for split, pictures in published.pictures.items()},
        {split: measured.scenes(scenes) for split, scenes in published.scenes.items()},
    )
    left_out = list(measured.left_out)
    if hold_out:
        usable = _with_held_out(usable, hold_out, seed)
    if not any([*usable.pictures.values(), *usable.scenes.values()]):
        raise LayoutRefused(f"{source}: found no picture that can be used; the first: {left_out[:1]}")
    out.mkdir(parents=True, exist_ok=True)
    names = {picture.name for pictures in usable.pictures.values() for picture in pictures}
    classes = {name: label for label, name in enumerate(sorted(names, key=_in_counting_order))}
    for split, pictures in usable.pictures.items():
        write_lines(out / f"{split}.txt", (_line(picture, classes[picture.name]) for picture in pictures))
    if classes:
        write_lines(out / "classes.txt", classes)
    for split, scenes in usable.scenes.items():
        sizes = {path: (header.width, header.height) for path, header in measured.headers.items()}
        write_coco(out / f"{split}.json", scenes, sizes)
    write_lines(out / "left_out.txt", left_out)
    return usable, left_out


class _Measured:
    """The headers of a set's pictures, and what is left out for them."""

    def __init__(self, published: PublishedSet, source: Path) -> None:
        labelled = [picture for pictures in published.pictures.values() for picture in pictures]
        boxed = [scene.path for scenes in published.scenes.values() for scene in scenes]
        paths = dict.fromkeys([*boxed, *(picture.path for picture in labelled)])
        with_boxes = {*boxed, *(picture.path for picture in labelled if picture.box is not None)}
        self.left_out: dict[str, None] = {}  # in order, each once
        self.headers: dict[str, Header] = {}
        found = headers_of((source / path, path in with_boxes) for path in paths)
        for path, header in zip(paths, track(found, "checking pictures", len(paths)), strict=True):
            fault = "its name holds a tab or line break" if re.search(r"[\t\r\n]", path) else header.fault
            if fault:
                self.left_out[f"{path!r}: {fault}"] = None
            else:
                self.headers[path] = header

    def pictures(self, listed: Sequence[Labelled]) -> list[Labelled]:
        """Those that can be used, their boxes cut off at the pictures' borders."""
        kept = []
        for picture in listed:
            if picture.path in self.headers:
                box = None if picture.box is None else self._cut(picture.path, picture.box)
                if picture.box is None or box is not None:
                    kept.append(picture._replace(box=box))
        return kept

    def scenes(self, listed: Sequence[Boxed]) -> list[Boxed]:
        """Those that can be used, with the boxes that can, cut off at the pictures' borders."""
        kept = []
        for scene in listed:
            if scene.path in self.headers:
                cut = [self._cut(scene.path, box) for box in scene.boxes]
                kept.append(
                    Boxed(
                        scene.path,
                        [box for box in cut if box is not None],
                        _of_kept(scene.names, cut),
                        _of_kept(scene.is_crowd, cut),
                    )
                )
        return kept

    def _cut(self, path: str, box: Box) -> Box | None:
        header = self.headers[path]
        x1, y1, x2, y2 = box
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(header.width)), min(y2, float(header.height))
        if min(inside[2] - inside[0], inside[3] - inside[1]) >= THINNEST_PIXELS:
            return inside
        self.left_out[f"{path!r}: the box {x1:g}, {y1:g}, {x2:g}, {y2:g} has no area inside the picture"] = (
            None
        )
        return None


def _of_kept(facts: Sequence[Fact], boxes: Sequence[Box | None]) -> list[Fact]:
    return [fact for fact, box in zip(facts, boxes, strict=True) if box is not None]


def _with_held_out(published: PublishedSet, share: float, seed: int) -> PublishedSet:
    pictures, scenes = dict(published.pictures), dict(published.scenes)
    random = generator(seed, Stream.HELD_OUT)
    if list(pictures) == ["train"]:
        names = sorted({picture.name for picture in pictures["train"]})
        order = random.permutation(len(names))[: round(share * len(names))]
        held_out = {names[number] for number in order.tolist()}
        pictures["test"] = [picture for picture in pictures["train"] if picture.name in held_out]
        pictures["train"] = [picture for picture in pictures["train"] if picture.name not in held_out]
    if list(scenes) == ["train"]:
        chosen = set(random.permutation(len(scenes["train"]))[: round(share * len(scenes["train"]))].tolist())
        scenes["val"] = [scene for number, scene in enumerate(scenes["train"]) if number in chosen]
        scenes["train"] = [scene for number, scene in enumerate(scenes["train"]) if number not in chosen]
    return PublishedSet(pictures, scenes)


def _in_counting_order(name: str) -> list[tuple[int, str]]:
    """Sorts "9" before "10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _line(picture: Labelled, label: int) -> str:
    corners = [] if picture.box is None else [f"{corner:.2f}" for corner in picture.box]
    return "\t".join([picture.path, str(label), *corners])


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"found {text}, wanted 0 to below 1")
    return share


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.prepare",
        description="Turn a published set into lists that training reads.",
    )
    parser.add_argument(
        "layout", choices=sorted(LAYOUTS), help="of the set, as docs/training-data.md lists them"
    )
    parser.add_argument("source", type=Path, help="the set's folder, unpacked")
    parser.add_argument("out", type=Path, help="the folder for the lists")
    parser.add_argument(
        "--hold-out",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="of classes (and scenes) to keep for evaluation, where the set has no split of its own",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the held-out ones")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        written, left_out = prepare(
            given.layout, given.source, given.out, hold_out=given.hold_out, seed=given.seed
        )
    except LayoutRefused as refusal:
        Console(stderr=True).print(f"{given.layout}: {refusal}", style="red", soft_wrap=True, markup=False)
        return 1
    table = Table("file", "pictures", "classes", "boxes")
    for split, pictures in written.pictures.items():
        n_boxes = sum(picture.box is not None for picture in pictures)
        n_classes = len({picture.name for picture in pictures})
        table.add_row(f"{split}.txt", f"{len(pictures):,}", f"{n_classes:,}", f"{n_boxes:,}")
    for split, scenes in written.scenes.items():
        n_classes = len({name for scene in scenes for name in scene.names})
        n_boxes = sum(not is_crowd for scene in scenes for is_crowd in scene.is_crowd)
        table.add_row(f"{split}.json", f"{len(scenes):,}", f"{n_classes:,}", f"{n_boxes:,}")
    console.print(table)
    if left_out:
        where = given.out / "left_out.txt"
        console.print(f"Left out as unusable: {len(left_out):,}, see {where}.", soft_wrap=True)
    console.print(f"Paths are relative to {given.source.resolve()}: give it as root.", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
