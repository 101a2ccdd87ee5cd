"""LogoDet-3K (Wang et al., "LogoDet-3K: A Large-Scale Image Dataset for Logo Detection", 2020).

Layout (github.com/Wangjing1551/LogoDet-3K-Dataset): `LogoDet-3K/CATEGORY/BRAND/*.jpg`, nine categories and 3,000
brands, and beside each picture an XML file of its name in Pascal VOC's form. There is no split; `--hold-out` makes one.

Both kinds of training use it: for the embedder each logo is a crop of the class CATEGORY/BRAND, for the detector each
picture is a scene. The paper says 155,427 pictures of 158,652; which ones were left out is not said.
"""

from pathlib import Path
from xml.etree import ElementTree

from rich.progress import track

from training.data.published import Box, Boxed, Labelled, LayoutRefused, PublishedSet, find


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: there is no XML file, or one is not of Pascal VOC's form.
    """
    root = find(source, "LogoDet-3K", ".")
    files = sorted(root.glob("*/*/*.xml"))
    if not files:
        raise LayoutRefused(f"{root}: found no CATEGORY/BRAND/*.xml, wanted one beside each picture")
    pictures, scenes = [], []
    for file in track(files, "reading boxes", disable=len(files) < 1000):
        picture = file.with_suffix(".jpg").relative_to(source).as_posix()
        name = file.parent.relative_to(root).as_posix()
        boxes = _boxes(file)
        pictures += [Labelled(picture, name, box) for box in boxes]
        scenes.append(Boxed(picture, boxes, [name] * len(boxes), [False] * len(boxes)))
    return PublishedSet(pictures={"train": pictures}, scenes={"train": scenes})


def _boxes(file: Path) -> list[Box]:
    text = file.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise LayoutRefused(f"{file}: found a document type, wanted plain XML")
    try:
        objects = ElementTree.fromstring(text).findall("object")  # noqa: S314
        boxes = []
        for found in objects:
            x1, y1, x2, y2 = (
                float(found.findtext(f"bndbox/{side}", "none")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            boxes.append((x1, y1, x2, y2))
    except (ElementTree.ParseError, ValueError) as error:
        raise LayoutRefused(f"{file}: cannot be read as Pascal VOC's XML: {error}") from error
    return boxes
