"""RPC (Wei et al., "RPC: A Large-Scale Retail Product Checkout Dataset", 2019).

Layout (rpc-dataset.github.io; kaggle.com/diyer22/retail-product-checkout-dataset): `retail_product_checkout` with
`instances_train2019.json`, `instances_val2019.json` and `instances_test2019.json` in COCO's format and pictures in
`train2019` (one product, 200 classes), `val2019` and `test2019` (checkouts).

The detector's scenes are those of each split; PP-ShiTu's 54k pictures are `train`. For an embedder each product is a
crop: `train` out of the single pictures, `query` out of the test's checkouts against a `gallery` of the single ones.
"""

from pathlib import Path

from training.data.published import Boxed, Labelled, LayoutRefused, PublishedSet, coco_scenes, find, relative

SPLITS = ("train", "val", "test")


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: no split is there, or one is not of COCO's format.
    """
    root = find(source, "retail_product_checkout", ".")
    scenes = {}
    for split in SPLITS:
        listed = root / f"instances_{split}2019.json"
        if listed.exists():
            scenes[split] = coco_scenes(listed, relative(find(root, f"{split}2019"), source))
    if not scenes:
        raise LayoutRefused(f"{root}: found no instances_*2019.json, wanted that of train, val or test")
    pictures = {}
    if "train" in scenes:
        pictures["train"] = _products(scenes["train"])
        if "test" in scenes:
            pictures["gallery"] = pictures["train"]
            pictures["query"] = _products(scenes["test"])
    return PublishedSet(pictures, scenes)


def _products(scenes: list[Boxed]) -> list[Labelled]:
    return [
        Labelled(scene.path, name, box)
        for scene in scenes
        for box, name, is_crowd in zip(scene.boxes, scene.names, scene.is_crowd, strict=True)
        if not is_crowd
    ]
