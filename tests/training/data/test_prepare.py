"""The command that turns a published set into lists."""

import json
import re
from pathlib import Path

import pytest

from recognition.boxes import area
from tests.training.data.drawing import draw, write_coco, write_list
from training.data.coco import check_scenes, read_coco
from training.data.lists import read_label_list
from training.data.pictures import check
from training.data.prepare import LAYOUTS, main, prepare
from training.data.published import LayoutRefused


def class_folders(root: Path, n_classes: int, n_pictures: int = 2) -> Path:
    for label in range(n_classes):
        for number in range(n_pictures):
            draw(root / f"class {label}" / f"{number}.jpg", seed=label)
    return root


def test_what_is_written_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = class_folders(tmp_path / "set", 12)
    (source / "class 3" / "broken.png").write_text("no picture")
    (source / "class 3" / "old.gif").write_bytes(b"GIF89a")
    assert main(["class-folders", str(source), str(tmp_path / "out")]) == 0
    pictures = read_label_list(tmp_path / "out/train.txt", source)
    check(pictures, pictures_per_class=2)
    assert len(pictures) == 24
    names = (tmp_path / "out/classes.txt").read_text().splitlines()
    assert names == [f"class {label}" for label in range(12)]  # counted, not spelled: 9 before 10
    assert str(pictures.paths[20]).startswith("class 8/")
    assert pictures.labels[-1] == 9
    left_out = (tmp_path / "out/left_out.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in left_out] == ["'class 3/broken.png'", "'class 3/old.gif'"]
    assert not list((tmp_path / "out").glob("*.part"))
    printed = capsys.readouterr().out
    assert "Left out as unusable: 2" in printed
    assert str(source) in printed


def test_classes_can_be_held_out_by_seed(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", 10)
    for seed in (0, 0, 1):
        prepare("class-folders", source, tmp_path / "out", hold_out=0.3, seed=seed)
        train = read_label_list(tmp_path / "out/train.txt", source, relabel=True)
        test = read_label_list(tmp_path / "out/test.txt", source, relabel=True)
        assert len(train) == 14
        assert len(test) == 6
        assert not {*train.classes} & {*test.classes}
        written = (tmp_path / "out/test.txt").read_text()
        if seed == 0:
            first = written
    assert written != first


def test_boxes_are_cut_off_at_the_border_and_those_outside_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "set/val2017/a.jpg", width=24, height=16)
    draw(tmp_path / "set/val2017/b.jpg", width=24, height=16)
    boxes = [(-5, 2, 10, 30), (30, 2, 5, 5), (3, 3, 0, 5), (20, 10, 4.4, 6.2)]
    write_coco(
        tmp_path / "set/annotations/instances_val2017.json",
        [
            {"id": 1, "file_name": "a.jpg", "width": 24, "height": 16},
            {"id": 2, "file_name": "b.jpg", "width": 24, "height": 16},
            {"id": 3, "file_name": "gone.jpg", "width": 24, "height": 16},
        ],
        [{"id": n, "image_id": 1, "category_id": 10, "bbox": list(box)} for n, box in enumerate(boxes)],
        ["jar"],
    )
    _, left_out = prepare("coco", tmp_path / "set", tmp_path / "out")
    assert len(left_out) == 3
    scenes = read_coco(tmp_path / "out/val.json", tmp_path / "set", keep_empty=True)
    check_scenes(scenes)
    assert len(scenes) == 2
    assert scenes.truth(0).boxes.tolist() == [[0, 2, 5, 16], [20, 10, 24, 16]]
    assert (area(scenes.truth(0).boxes) > 0).all()
    assert len(read_coco(tmp_path / "out/val.json", tmp_path / "set")) == 1


def test_a_picture_is_measured_wherever_a_box_of_it_is_listed(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for split, number in (("train", 1), ("test", 2)):
        draw(source / f"{split}2019/{number}.jpg")
        write_coco(
            source / f"instances_{split}2019.json",
            [{"id": 1, "file_name": f"{number}.jpg", "width": 24, "height": 16}],
            [{"id": 1, "image_id": 1, "category_id": 10, "bbox": [1, 2, 3, 4]}],
            ["cola"],
        )
    prepare("rpc", source, tmp_path / "out")
    assert (tmp_path / "out/query.txt").read_text() == "test2019/2.jpg\t0\t1.00\t2.00\t4.00\t6.00\n"
    image = json.loads((tmp_path / "out/train.json").read_text())["images"][0]
    assert (image["width"], image["height"]) == (24, 16)


def test_another_layout_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(tmp_path / "set/readme.txt", "hello")
    for layout in sorted(LAYOUTS):
        assert main([layout, str(tmp_path / "set"), str(tmp_path / "out")]) == 1
        message = capsys.readouterr().err
        assert message.startswith(f"{layout}: {tmp_path / 'set'}")
        assert "wanted" in message
        assert not (tmp_path / "out").exists()
    with pytest.raises(LayoutRefused, match="found no folder"):
        prepare("coco", tmp_path / "nowhere", tmp_path / "out")


def test_a_set_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    write_list(tmp_path / "set/a/x.jpg", "no picture")
    with pytest.raises(LayoutRefused, match="found no picture that can be used"):
        prepare("class-folders", tmp_path / "set", tmp_path / "out")


def test_a_share_is_below_1(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["coco", str(tmp_path), str(tmp_path), "--hold-out", "1"])


def test_the_document_tells_of_each_layout() -> None:
    document = (Path(__file__).resolve().parents[3] / "docs/training-data.md").read_text()
    rows = [
        line.split(" | ")[-1]
        for line in document.splitlines()
        if line.startswith("| ") and line.count(" | ") == 5
    ]
    told = [re.match(r"`([a-z0-9-]+)`", row) for row in rows if row.startswith("`")]
    assert {match[1] for match in told if match} == set(LAYOUTS)
    assert len(told) == 18 + 5  # V2's 17 sets and iCartoonFace; the detector's five
