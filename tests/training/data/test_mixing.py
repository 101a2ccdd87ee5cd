"""Several sets as one."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.drawing import draw, write_coco, write_list
from training.data.coco import read_coco
from training.data.faults import BadData
from training.data.generated import GeneratedScenes
from training.data.lists import read_label_list
from training.data.mixing import MixedPictures, MixedScenes, Part
from training.data.pictures import ListedPictures, check


def listed(folder: Path, *labels: int) -> ListedPictures:
    for number, _ in enumerate(labels):
        draw(folder / f"{number}.jpg", seed=number)
    return read_label_list(
        write_list(folder / "t.txt", *(f"{number}.jpg {label}" for number, label in enumerate(labels))),
        relabel=True,
    )


def test_label_spaces_are_kept_apart(tmp_path: Path) -> None:
    goods, logos = listed(tmp_path / "goods", 0, 1, 1), listed(tmp_path / "logos", 0, 5)
    mixed = MixedPictures([Part(goods, name="goods"), Part(logos, rate=4, name="logos")])
    assert mixed.labels.tolist() == [0, 1, 1, 2, 3]
    assert mixed.classes == ["goods/0", "goods/1", "logos/0", "logos/5"]
    assert mixed.rates.tolist() == [1, 1, 1, 4, 4]
    assert mixed.where(4) == f"{tmp_path / 'logos/t.txt'}:2"
    np.testing.assert_array_equal(mixed.read(3), logos.read(0))
    check(mixed)


def test_faults_name_the_set_that_has_them(tmp_path: Path) -> None:
    goods, logos = listed(tmp_path / "goods", 0, 0), listed(tmp_path / "logos", 0, 5, 5)
    (tmp_path / "logos/1.jpg").unlink()
    with pytest.raises(BadData) as refused:
        check(MixedPictures([Part(goods), Part(logos, name="logos")]), pictures_per_class=2)
    alone, missing = refused.value.faults
    assert alone.startswith(f"{tmp_path / 'logos/t.txt'}:1: class 0 has 1 picture")
    assert missing.startswith(f"{tmp_path / 'logos/t.txt'}:2: 1.jpg: found no file")


def test_an_empty_set_or_class_among_others_is_named_by_its_own_list(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    goods = read_label_list(write_list(tmp_path / "goods.txt", "a.jpg 0"))
    logos = read_label_list(write_list(tmp_path / "logos.txt", "a.jpg 0", "a.jpg 2"))
    flowers = read_label_list(write_list(tmp_path / "flowers.txt", "a.jpg 0"), minimum_pictures=2)
    with pytest.raises(BadData) as refused:
        check(MixedPictures([Part(goods), Part(logos), Part(flowers)]))
    gap, nothing = refused.value.faults
    assert gap.startswith(f"{tmp_path / 'logos.txt'}: class 1 is empty")
    assert nothing.startswith(f"{tmp_path / 'flowers.txt'}: found no picture (behind minimum_pictures")


def test_scenes_of_several_sets(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    path = write_coco(
        tmp_path / "t.json",
        [{"id": 1, "file_name": "a.jpg", "width": 24, "height": 16}],
        [{"id": 1, "image_id": 1, "category_id": 10, "bbox": [1, 1, 5, 5]}],
        ["jar"],
    )
    drawn = GeneratedScenes(2, seed=1, size=(96, 64))
    mixed = MixedScenes([Part(drawn, rate=0.5), Part(read_coco(path))])
    assert len(mixed) == 3
    assert mixed.rates.tolist() == [0.5, 0.5, 1]
    assert mixed.truth(2).boxes.tolist() == [[1, 1, 6, 6]]
    assert mixed.read(2).shape == (16, 24, 3)
    with pytest.raises(ValueError, match="found 1 classes that are not those of"):
        MixedScenes([Part(drawn), Part(read_coco(path, foreground=False))])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_above_0(rate: float) -> None:
    with pytest.raises(ValueError, match="wanted above 0"):
        Part(GeneratedScenes(1, seed=1), rate=rate)
