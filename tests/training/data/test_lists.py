"""Lists of pictures: what is read, and what is refused with file and line."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.drawing import draw, write_list
from training.data.faults import BadData
from training.data.lists import read_folder, read_folder_retrieval, read_label_list, read_retrieval_lists
from training.data.pictures import check, check_retrieval


def faults_of(call: object, *arguments: object, **options: object) -> list[str]:
    with pytest.raises(BadData) as refused:
        call(*arguments, **options)  # type: ignore[operator]
    return list(refused.value.faults)


def test_a_list_with_spaces_tabs_and_boxes(tmp_path: Path) -> None:
    write_list(tmp_path / "train.txt", "my dir/a.jpg 1", "", "b.jpg\t0", "c d.jpg\t1\t1\t2\t11.5\t12")
    pictures = read_label_list(tmp_path / "train.txt")
    assert pictures.paths.tolist() == ["my dir/a.jpg", "b.jpg", "c d.jpg"]
    assert pictures.labels.tolist() == [1, 0, 1]
    assert pictures.classes == ("0", "1")
    assert pictures.lines.tolist() == [1, 3, 4]
    assert pictures.box(0) is None
    assert pictures.box(2) == (1, 2, 11.5, 12)
    assert pictures.where(2) == f"{tmp_path / 'train.txt'}:4"


def test_relabelling_makes_labels_dense_in_their_order(tmp_path: Path) -> None:
    write_list(tmp_path / "train.txt", "a.jpg 70", "b.jpg 5", "c.jpg 0070")
    pictures = read_label_list(tmp_path / "train.txt", relabel=True)
    assert pictures.labels.tolist() == [1, 0, 1]
    assert pictures.classes == ("5", "70")


def test_a_number_left_out_is_an_empty_class(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    write_list(tmp_path / "train.txt", "a.jpg 0", "a.jpg 2")
    (fault,) = faults_of(check, read_label_list(tmp_path / "train.txt"))
    assert fault.startswith(f"{tmp_path / 'train.txt'}: class 1 is empty")


def test_lines_that_are_none_are_named(tmp_path: Path) -> None:
    path = write_list(
        tmp_path / "t.txt", "a.jpg zero", "b.jpg 1", "c.jpg", "d.jpg -1", "e.jpg\t1\t2", "f\t1\t0\t0\tx\t9"
    )
    faults = faults_of(read_label_list, path)
    assert [fault.split(" ")[0] for fault in faults] == [f"{path}:{line}:" for line in (1, 3, 4, 5, 6)]
    assert "found the label 'zero', wanted a number" in faults[0]
    assert "found the box 0, 0, x, 9, wanted four numbers" in faults[-1]


def test_a_list_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "latin.txt").write_bytes("a.jpg 0\nkäse.jpg 1\n".encode("latin-1"))
    for name, place in (("none.txt", ""), ("bytes.txt", ":1"), ("latin.txt", ":2")):
        (fault,) = faults_of(read_label_list, tmp_path / name)
        assert fault.startswith(f"{tmp_path / name}{place}: cannot be read")


def test_a_list_from_a_spreadsheet_on_windows_and_names_of_any_kind(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "d.jpg"
    names = ["Käse 1/日本 茶.jpg", "b\u2009c.jpg", str(elsewhere)]
    for name in names:
        draw(tmp_path / "root" / name)
    lines = "".join(f"{name}\t0\r\n" for name in names)
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    pictures = read_label_list(tmp_path / "t.txt", tmp_path / "root")
    assert pictures.paths.tolist() == names
    assert pictures.path(2) == elsewhere  # an absolute path is taken as it is
    check(pictures)
    sheet = "sku,name\r\nA,\r\n", "image,sku\r\nKäse 1/日本 茶.jpg,A\r\n"
    for name, text in zip(("products.csv", "gallery.csv"), sheet, strict=True):
        (tmp_path / "root" / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    check(read_folder(tmp_path / "root"))


def test_small_classes_can_be_left_out(tmp_path: Path) -> None:
    path = write_list(tmp_path / "t.txt", "a.jpg 0", "b.jpg 1", "c.jpg 1", "d.jpg 4", "e.jpg 4")
    pictures = read_label_list(path, minimum_pictures=2)
    assert pictures.classes == ("1", "4")
    assert pictures.labels.tolist() == [0, 0, 1, 1]
    assert pictures.lines.tolist() == [2, 3, 4, 5]


def test_one_list_asks_its_pictures_among_one_another(tmp_path: Path) -> None:
    path = write_list(tmp_path / "t.txt", "a.jpg 3", "b.jpg 3", "c.jpg 9")
    retrieval = read_retrieval_lists(path)
    assert retrieval.own.tolist() == [0, 1, 2]
    assert retrieval.query is retrieval.gallery


def test_query_and_gallery_share_a_numbering_and_a_query_knows_itself(tmp_path: Path) -> None:
    query = write_list(tmp_path / "q.txt", "b.jpg 7", "x.jpg 2")
    gallery = write_list(tmp_path / "sub" / "g.txt", "a.jpg 2", "./b.jpg 7", "c.jpg 7")
    retrieval = read_retrieval_lists(query, gallery, tmp_path)
    assert retrieval.own.tolist() == [1, -1]
    same = retrieval.query_labels[:, None] == retrieval.gallery_labels[None]
    np.testing.assert_array_equal(same, [[False, True, True], [True, False, False]])


def test_a_query_without_counterpart_is_named(tmp_path: Path) -> None:
    for name in "abcd":
        draw(tmp_path / f"{name}.jpg")
    query = write_list(tmp_path / "q.txt", "a.jpg 0", "b.jpg 5", "c.jpg 1")
    gallery = write_list(tmp_path / "g.txt", "d.jpg 0", "c.jpg 1")
    faults = faults_of(check_retrieval, read_retrieval_lists(query, gallery))
    assert faults == [
        f"{query}:2: a query of class 5 with no other picture of it in the gallery",
        f"{query}:3: a query of class 1 with no other picture of it in the gallery",
    ]


def test_a_picture_twice_in_the_gallery_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    path = write_list(tmp_path / "q.txt", "a.jpg 0", "b.jpg 0", "./a.jpg 0")
    assert faults_of(check_retrieval, read_retrieval_lists(path)) == [
        f"{path}:3: the gallery has this picture already ({path}:1)"
    ]


def folder(tmp_path: Path, gallery: str, query: str = "image,sku\nq.jpg,A\n") -> Path:
    (tmp_path / "products.csv").write_text("SKU,name\nA,Apples\nB,Beans\n")
    (tmp_path / "gallery.csv").write_text(gallery)
    (tmp_path / "query.csv").write_text(query)
    for name in ("a", "b", "q"):
        draw(tmp_path / f"{name}.jpg")
    return tmp_path


def test_our_folder_format(tmp_path: Path) -> None:
    there = folder(tmp_path, "image,sku,x1,y1,x2,y2,split\na.jpg,A,1,2,20,12,x\nb.jpg,B,,,,,x\n")
    pictures = read_folder(there)
    check(pictures)
    assert pictures.classes == ("A", "B")
    assert pictures.box(0) == (1, 2, 20, 12)
    assert pictures.box(1) is None
    assert pictures.read(0).shape == (10, 19, 3)
    retrieval = read_folder_retrieval(there)
    check_retrieval(retrieval)
    assert retrieval.own.tolist() == [-1]
    one = read_folder_retrieval(there, query="gallery.csv")
    assert one.own.tolist() == [0, 1]


def test_faults_of_a_folder_name_the_row(tmp_path: Path) -> None:
    there = folder(
        tmp_path, "image,sku,x1,y1,x2,y2\na.jpg,C,,,,\nb.jpg,B,1,2,,\n,A,,,,\n", "picture,sku\nq.jpg,A\n"
    )
    faults = faults_of(read_folder, there)
    assert [fault.split(": ")[0] for fault in faults] == [
        f"{there / 'gallery.csv'}:{line}" for line in (2, 3, 4)
    ]
    assert "found the SKU 'C', wanted one out of products.csv" in faults[0]
    faults = faults_of(read_folder_retrieval, there)
    assert faults[0] == f"{there / 'query.csv'}:1: found the columns picture, sku, wanted also image"


def test_a_product_without_a_picture_is_an_empty_class(tmp_path: Path) -> None:
    there = folder(tmp_path, "image,sku\na.jpg,A\n")
    (fault,) = faults_of(check, read_folder(there))
    assert "class 1 (B) is empty" in fault
    assert read_folder(there, minimum_pictures=1).classes == ("A",)
