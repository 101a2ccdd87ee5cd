"""COCO (Lin et al., "Microsoft COCO: Common Objects in Context", 2014), and sets laid out like it.

Layout (cocodataset.org, "Download"): `annotations/instances_SPLIT.json`, such as `instances_train2017.json`, and the
pictures in a folder named SPLIT.
"""

from pathlib import Path

from training.data.published import LayoutRefused, PublishedSet, coco_scenes, find, relative

PREFIX = "instances_"


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: there is no annotation, or its pictures' folder is missing.
    """
    listed = sorted(find(source, "annotations").glob(f"{PREFIX}*.json"))
    if not listed:
        raise LayoutRefused(f"{source / 'annotations'}: found no {PREFIX}*.json, wanted one for each split")
    scenes = {}
    for path in listed:
        split = path.stem.removeprefix(PREFIX)
        folder = relative(find(source, split, f"images/{split}"), source)
        scenes[split.removesuffix("2017")] = coco_scenes(path, folder)
    return PublishedSet(scenes=scenes)
