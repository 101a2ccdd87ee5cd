"""Products cut out of white ground, and scenes of them whose boxes are those of what can be seen."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.data.coco import check_scenes
from training.data.composed import ComposedScenes, cut_out
from training.data.faults import BadData
from training.data.lists import read_folder
from training.data.pictures import ListedPictures

MAGENTA = (230, 0, 230)


def on_white(box: tuple[int, int, int, int], hole: tuple[int, int, int, int] | None = None) -> Image.Image:
    """A magenta thing on not quite white ground, perhaps with something white in it."""
    picture = Image.new("RGB", (60, 50), (250, 251, 249))
    picture.paste(MAGENTA, box)
    if hole is not None:
        picture.paste((255, 255, 255), hole)
    return picture


@pytest.fixture
def folder(tmp_path: Path) -> ListedPictures:
    """Two products, a picture each: one on white ground, one that fills its picture."""
    on_white((10, 5, 40, 45)).save(tmp_path / "red.png")
    Image.new("RGB", (60, 50), (10, 60, 200)).save(tmp_path / "blue.png")
    (tmp_path / "products.csv").write_text("sku,name\nR,red\nB,blue\n")
    (tmp_path / "gallery.csv").write_text("image,sku\nred.png,R\nblue.png,B\n")
    return read_folder(tmp_path)


def test_a_cut_out_is_the_thing_with_the_white_that_is_in_it() -> None:
    cut = cut_out(np.asarray(on_white((10, 5, 40, 45), hole=(20, 15, 30, 25))))
    assert cut is not None
    assert cut.size == (28, 38)  # a pixel less at each side
    assert cut.getpixel((3, 3)) == (*MAGENTA, 255)
    assert cut.getpixel((14, 14)) == (255, 255, 255, 255)  # white, but of the thing


@pytest.mark.parametrize("colour", [(255, 255, 255), (90, 90, 90)])
def test_an_empty_picture_or_one_without_white_ground_gives_nothing(colour: tuple[int, int, int]) -> None:
    assert cut_out(np.full((40, 50, 3), colour, np.uint8)) is None


def is_magenta(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a developed picture is as no ground, sticker or coin is."""
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    return np.asarray(np.minimum(red, blue) > 2 * green + 40)


def test_a_box_is_the_bounds_of_what_is_seen(folder: ListedPictures) -> None:
    scenes = ComposedScenes(folder, 12, seed=3, items=(1, 1), size=(160, 120))
    check_scenes(scenes)
    for index in range(len(scenes)):
        (box,) = scenes.truth(index).boxes
        rows, columns = np.nonzero(is_magenta(scenes.read(index)))
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(found, box, atol=4)  # blur and shake


def test_dense_scenes_are_many_small_things_that_touch(folder: ListedPictures) -> None:
    scenes = ComposedScenes(folder, 4, seed=1, items=(30, 60), size=(320, 320), dense=True)
    for index in range(len(scenes)):
        boxes = scenes.truth(index).boxes
        assert 25 <= len(boxes) <= 60
        assert np.median(boxes[:, 2:] - boxes[:, :2]) < 0.2 * 320
        gaps = boxes[None, :, 0] - boxes[:, None, 2]  # from each one's right side to each other's left
        same_row = np.abs(boxes[None, :, 3] - boxes[:, None, 3]) < 10
        n_near = ((np.abs(gaps) < 6) & same_row).any(axis=1).sum()
        assert n_near > 0.7 * len(boxes)


def test_scenes_are_the_same_again_and_later_ones_are_others(folder: ListedPictures) -> None:
    scenes = ComposedScenes(folder, 3, seed=1, size=(96, 80))
    later = ComposedScenes(folder, 2, seed=1, size=(96, 80), first=2)
    np.testing.assert_array_equal(later.read(0), scenes.read(2))
    np.testing.assert_array_equal(later.truth(0).boxes, scenes.truth(2).boxes)
    assert not np.array_equal(later.read(1), scenes.read(2))


def test_a_list_without_white_ground_is_refused(folder: ListedPictures, tmp_path: Path) -> None:
    (tmp_path / "gallery.csv").write_text("image,sku\nblue.png,B\n")
    with pytest.raises(BadData, match="found no picture on white ground"):
        ComposedScenes(read_folder(tmp_path, minimum_pictures=1), 1, seed=1)
