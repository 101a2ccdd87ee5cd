"""Scenes in COCO's format."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.drawing import draw, write_coco
from training.data.coco import check_scenes, read_coco
from training.data.faults import BadData

IMAGES = [
    {"id": 7, "file_name": "a.jpg", "width": 24, "height": 16},
    {"id": 9, "file_name": "sub/b.jpg", "width": 24, "height": 16},
    {"id": 3, "file_name": "bare.jpg", "width": 24, "height": 16},
]


def scenes_file(tmp_path: Path, annotations: list[dict[str, Any]]) -> Path:
    for image in IMAGES:
        draw(tmp_path / str(image["file_name"]))
    return write_coco(tmp_path / "train.json", IMAGES, annotations, ["jar", "tin"])


def box(number: int, image: int, category: int, *bbox: float, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), "iscrowd": crowd}


def test_all_classes_are_foreground(tmp_path: Path) -> None:
    path = scenes_file(
        tmp_path,
        [box(1, 9, 20, 2, 3, 4, 5), box(2, 7, 10, 0, 0, 24.5, 16), box(3, 9, 10, 1, 1, 2, 2, crowd=1)],
    )
    scenes = read_coco(path)
    check_scenes(scenes)
    assert scenes.classes == ("foreground",)
    assert scenes.paths.tolist() == ["a.jpg", "sub/b.jpg"]
    assert scenes.truth(0).boxes.tolist() == [[0, 0, 24, 16]]  # half a pixel beyond the border is rounding
    assert scenes.truth(1).boxes.tolist() == [[2, 3, 6, 8]]
    assert scenes.truth(1).labels.tolist() == [0]
    assert [scenes.crowds(index).boxes.tolist() for index in (0, 1)] == [[], [[1, 1, 3, 3]]]
    assert scenes.read(1).shape == (16, 24, 3)


def test_classes_can_be_kept_and_so_can_bare_pictures(tmp_path: Path) -> None:
    path = scenes_file(tmp_path, [box(1, 9, 20, 2, 3, 4, 5)])
    scenes = read_coco(path, foreground=False, keep_empty=True)
    assert scenes.classes == ("jar", "tin")
    assert len(scenes) == 3
    assert [scenes.truth(index).labels.tolist() for index in range(3)] == [[], [1], []]
    assert scenes.truth(0).boxes.shape == (0, 4)


def test_a_picture_with_crowds_alone_has_no_boxes_to_train_on(tmp_path: Path) -> None:
    path = scenes_file(tmp_path, [box(1, 9, 20, 2, 3, 4, 5), box(2, 7, 10, 0, 0, 30, 9, crowd=1)])
    assert read_coco(path).paths.tolist() == ["sub/b.jpg"]
    everything = read_coco(path, keep_empty=True)
    assert len(everything) == 3
    assert everything.truth(0).boxes.shape == (0, 4)
    with pytest.raises(BadData, match=r"annotation 2: a\.jpg: found the box 0, 0, 30, 9 outside"):
        check_scenes(everything)


def test_scenes_without_any_box_are_refused(tmp_path: Path) -> None:
    path = scenes_file(tmp_path, [box(1, 9, 20, 2, 3, 4, 5, crowd=1)])
    with pytest.raises(BadData, match=r"train\.json: found no picture with boxes"):
        check_scenes(read_coco(path))
    with pytest.raises(BadData, match=r"train\.json: found no box that is no crowd"):
        check_scenes(read_coco(path, keep_empty=True))


def test_bad_boxes_are_named_by_annotation(tmp_path: Path) -> None:
    path = scenes_file(
        tmp_path, [box(4, 7, 10, 2, 2, 0, 5), box(5, 7, 10, 2, 2, 3, 3), box(6, 9, 10, 20, 2, 9, 3)]
    )
    with pytest.raises(BadData) as refused:
        check_scenes(read_coco(path))
    first, second = refused.value.faults
    assert first.startswith(f"{path}: annotation 4: a.jpg: found the box 2, 2, 2, 7 of no area")
    assert second.startswith(
        f"{path}: annotation 6: sub/b.jpg: found the box 20, 2, 29, 5 outside the picture of 24 x"
    )


def test_what_is_no_box_is_named_by_annotation(tmp_path: Path) -> None:
    path = scenes_file(tmp_path, [box(4, 7, 10, 1, 2, 3), box(5, 7, 10, 1, 2, float("nan"), 4)])
    listed = json.loads(path.read_text())
    listed["annotations"] += [
        {"id": 6, "image_id": 7, "category_id": 10},
        {"id": 7, "image_id": 7, "category_id": 10, "bbox": ["1", 2, 3, 4]},
    ]
    path.write_text(json.dumps(listed))
    with pytest.raises(BadData) as refused:
        read_coco(path)
    assert [fault.split(": ")[1] for fault in refused.value.faults] == [
        f"annotation {number}" for number in (4, 5, 6, 7)
    ]
    assert "found the bbox [1, 2, 3], wanted x, y, width, height" in refused.value.faults[0]


def test_missing_pictures_and_other_sizes_are_named(tmp_path: Path) -> None:
    path = scenes_file(tmp_path, [box(1, 7, 10, 1, 1, 2, 2), box(2, 9, 10, 1, 1, 2, 2)])
    (tmp_path / "a.jpg").unlink()
    draw(tmp_path / "sub/b.jpg", width=16, height=24)
    with pytest.raises(BadData) as refused:
        check_scenes(read_coco(path))
    assert "a.jpg: found no file" in refused.value.faults[0]
    assert "sub/b.jpg: found 16 x 24 pixels, the list says 24 x 16" in refused.value.faults[1]


def test_references_into_nothing_are_named(tmp_path: Path) -> None:
    path = scenes_file(tmp_path, [box(1, 8, 10, 1, 1, 2, 2), box(2, 9, 30, 1, 1, 2, 2)])
    with pytest.raises(BadData) as refused:
        read_coco(path)
    assert refused.value.faults == (
        f"{path}: annotation 1: found the image 8, which is not listed",
        f"{path}: annotation 2: found the category 30, which is not listed",
    )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"images": []}', '{"images": [{}], "annotations": [], "categories": []}']
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadData, match=r"x\.json: cannot be read as COCO's format"):
        read_coco(tmp_path / "x.json")
