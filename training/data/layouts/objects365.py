"""Objects365 v2 (Shao et al., "Objects365: A Large-Scale, High-Quality Dataset for Object Detection", 2019).

Layout (objects365.org; Ultralytics' `Objects365.yaml` and public converters): `zhiyuan_objv2_train.json` and
`zhiyuan_objv2_val.json` in COCO's format, whose file_name is such as "images/v1/patch8/objects365_v1_00420917.jpg",
while the archives unpack to patch8/objects365_v1_00420917.jpg below `train` or `val`.

PP-ShiTu trains on 173k of its 1.7 million pictures, which ones is not said; a sampling rate of 0.1 draws as many an
epoch, others each time.
"""

from pathlib import Path

from training.data.published import LayoutRefused, PublishedSet, coco_scenes, find, relative


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: no split is there, or one is not of COCO's format.
    """
    scenes = {}
    for split in ("train", "val"):
        name = f"zhiyuan_objv2_{split}.json"
        listed = next(
            (path for path in (source / name, source / "annotations" / name) if path.exists()), None
        )
        if listed is not None:
            folder = relative(find(source, split, f"images/{split}"), source)
            scenes[split] = [
                scene._replace(path=folder + "/".join(scene.path.split("/")[-2:]))
                for scene in coco_scenes(listed)
            ]
    if not scenes:
        raise LayoutRefused(
            f"{source}: found no zhiyuan_objv2_train.json and no zhiyuan_objv2_val.json, wanted one"
        )
    return PublishedSet(scenes=scenes)
