"""Sets with a folder for each class: birds, flowers, cars, food, fruit, scenes.

So are laid out the Kaggle sets "BIRDS 400", "104 Flowers", "flowerrecognition", "Fruits-262" and "Indoor Scenes CVPR
2019", Food-101's `images`, and whatever torchvision's ImageFolder reads. Of a set with folders train, valid and test
read each by itself.
A class is the path of the folder that holds its pictures, so folders of classes may lie in folders of groups.
"""

from pathlib import Path

from training.data.published import Labelled, LayoutRefused, PublishedSet, find

# Those that cannot be decoded are listed too, so that `prepare` names them.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read(source: Path) -> PublishedSet:
    """
    Raises:
        LayoutRefused: there is no class, or one is empty.
    """
    return PublishedSet(pictures={"train": list_classes(find(source, "."), source)})


def list_classes(folder: Path, source: Path) -> list[Labelled]:
    """The pictures of each class below a folder.

    Args:
        folder: holds the classes' folders.
        source: the set's folder, which paths are relative to.
    Raises:
        LayoutRefused: there is no class, or one is empty.
    """
    pictures = []
    for inner in sorted(
        path for path in folder.rglob("*") if path.is_dir() and not path.name.startswith(".")
    ):
        own = sorted(path for path in inner.iterdir() if path.suffix.lower() in SUFFIXES)
        if not own and not any(path.is_dir() for path in inner.iterdir()):
            raise LayoutRefused(
                f"{inner}: found a class without pictures, wanted one or more: remove the folder"
            )
        name = inner.relative_to(folder).as_posix()
        pictures += [Labelled(path.relative_to(source).as_posix(), name) for path in own]
    if not pictures:
        raise LayoutRefused(f"{folder}: found no folders with pictures, wanted one for each class")
    return pictures
