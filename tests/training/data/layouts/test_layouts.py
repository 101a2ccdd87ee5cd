"""Each published layout, in miniature: written here as its makers lay it out, and read."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.data.drawing import draw, write_coco, write_list
from training.data.coco import check_scenes, read_coco
from training.data.lists import read_label_list, read_retrieval_lists
from training.data.pictures import check, check_retrieval
from training.data.prepare import prepare
from training.data.published import Labelled, LayoutRefused


def draw_all(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        draw(folder / name, seed=seed)


def prepared(layout: str, source: Path, out: Path) -> dict[str, list[Labelled]]:
    """The lists as written; each passes the check that a run would make."""
    written, left_out = prepare(layout, source, out)
    assert left_out == []
    for split in written.pictures:
        check(read_label_list(out / f"{split}.txt", source, relabel=True))
    for split in written.scenes:
        check_scenes(read_coco(out / f"{split}.json", source, keep_empty=True))
    return {split: list(pictures) for split, pictures in written.pictures.items()}


def asks(out: Path, source: Path, query: str, gallery: str | None = None) -> None:
    check_retrieval(read_retrieval_lists(out / f"{query}.txt", gallery and out / f"{gallery}.txt", source))


def by_class(pictures: Sequence[Labelled]) -> list[tuple[str, str]]:
    return [(picture.path, picture.name) for picture in pictures]


def test_aliproducts(tmp_path: Path) -> None:
    source, out = tmp_path / "AliProducts", tmp_path / "out"
    draw_all(
        source,
        "train/00001/5.jpg",
        "train/00001/7.jpg",
        "train/00002/1.jpg",
        "val/00002/2.jpg",
        "val/00002/3.jpg",
    )
    for name in ("train.json", "val.json", "product_tree.json"):
        write_list(source / name, "{}")
    lists = prepared("aliproducts", source, out)
    assert by_class(lists["train"]) == [
        ("train/00001/5.jpg", "00001"),
        ("train/00001/7.jpg", "00001"),
        ("train/00002/1.jpg", "00002"),
    ]
    assert read_label_list(out / "test.txt", source, relabel=True).classes == (
        "1",
    )  # the training list's numbering
    asks(out, source, "test")


def test_gldv2_clean(tmp_path: Path) -> None:
    source = tmp_path / "gldv2"
    ids = ("0a1b2c3d4e5f6071", "17660ef415d37059", "f00dfeedcafe0123")
    draw_all(source, *(f"train/{number[0]}/{number[1]}/{number[2]}/{number}.jpg" for number in ids))
    write_list(source / "train_clean.csv", "landmark_id,images", f"1,{ids[0]} {ids[2]}", f"203092,{ids[1]}")
    write_list(source / "train.csv", "id,url,landmark_id", f"{ids[0]},http://x,9")
    lists = prepared("gldv2", source, tmp_path / "out")
    assert by_class(lists["train"]) == [
        ("train/0/a/1/0a1b2c3d4e5f6071.jpg", "1"),
        ("train/f/0/0/f00dfeedcafe0123.jpg", "1"),
        ("train/1/7/6/17660ef415d37059.jpg", "203092"),
    ]


def test_gldv2_whole_and_without_a_train_folder(tmp_path: Path) -> None:
    source = tmp_path / "gldv2"
    draw_all(source, "0/1/2/0123456789abcdef.jpg")
    write_list(source / "train.csv", "id,url,landmark_id", '0123456789abcdef,"http://x,y",142820')
    lists = prepared("gldv2", source, tmp_path / "out")
    assert by_class(lists["train"]) == [("0/1/2/0123456789abcdef.jpg", "142820")]


def test_stanford_online_products(tmp_path: Path) -> None:
    source, out = tmp_path / "Stanford_Online_Products", tmp_path / "out"
    names = [
        "bicycle_final/111085122871_0.JPG",
        "bicycle_final/111085122871_1.JPG",
        "sofa_final/1_0.JPG",
        "sofa_final/1_1.JPG",
    ]
    draw_all(source, *names)
    header = "image_id class_id super_class_id path"
    write_list(source / "Ebay_train.txt", header, f"1 1 1 {names[0]}", f"2 1 1 {names[1]}")
    write_list(source / "Ebay_test.txt", header, f"59552 11319 1 {names[2]}", f"59553 11319 1 {names[3]}")
    lists = prepared("stanford-online-products", source, out)
    assert by_class(lists["train"]) == [(names[0], "1"), (names[1], "1")]
    assert {picture.name for picture in lists["test"]} == {"11319"}
    asks(out, source, "test")


def test_in_shop(tmp_path: Path) -> None:
    source, out = tmp_path / "In-shop", tmp_path / "out"
    names = [
        f"img/WOMEN/Dresses/id_0000000{item}/0{number}_1_front.jpg" for item in (1, 2) for number in (1, 2)
    ]
    draw_all(source / "Img", *names)
    statuses = ("train", "train", "query", "gallery")
    write_list(
        source / "Eval/list_eval_partition.txt",
        "4",
        "image_name item_id evaluation_status",
        *(
            f"{name}    id_0000000{1 + number // 2} {status}"
            for number, (name, status) in enumerate(zip(names, statuses, strict=True))
        ),
    )
    lists = prepared("in-shop", source, out)
    assert by_class(lists["query"]) == [(f"Img/{names[2]}", "id_00000002")]
    assert len(lists["train"]) == 2
    asks(out, source, "query", "gallery")


def test_products_10k(tmp_path: Path) -> None:
    source, out = tmp_path / "products-10k", tmp_path / "out"
    draw_all(source, "train/1.jpg", "train/2.jpg", "test/90.jpg", "test/91.jpg")
    write_list(source / "train.csv", "name,class,group", "1.jpg,20,3", "2.jpg,7,3")
    assert list(prepared("products-10k", source, out)) == ["train"]
    write_list(
        source / "test_kaggletest.csv", "name,class,group,Usage", "90.jpg,7,3,Public", "91.jpg,7,3,Private"
    )
    lists = prepared("products-10k", source, out)
    assert by_class(lists["train"]) == [("train/1.jpg", "20"), ("train/2.jpg", "7")]
    assert read_label_list(out / "train.txt", source).labels.tolist() == [1, 0]
    asks(out, source, "test")


VOC = """<annotation><folder>{brand}</folder><filename>{number}.jpg</filename>
<size><width>24</width><height>16</height><depth>3</depth></size>
{objects}</annotation>"""
VOC_OBJECT = """<object><name>{brand}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>
</bndbox></object>"""


def test_logodet_3k(tmp_path: Path) -> None:
    source, out = tmp_path / "set", tmp_path / "out"
    for category, brand, number, boxes in (
        ("Food", "76", 1, [(1, 2, 11, 12)]),
        ("Clothes", "new_balance-1", 2, [(0, 0, 9, 9), (10, 3, 25, 12)]),
    ):
        folder = source / "LogoDet-3K" / category / brand
        draw(folder / f"{number}.jpg")
        objects = "".join(VOC_OBJECT.format(*box, brand=brand) for box in boxes)
        write_list(folder / f"{number}.xml", VOC.format(brand=brand, number=number, objects=objects))
    lists = prepared("logodet-3k", source, out)
    assert [(picture.name, picture.box) for picture in lists["train"]] == [
        ("Clothes/new_balance-1", (0, 0, 9, 9)),
        ("Clothes/new_balance-1", (10, 3, 24, 12)),
        ("Food/76", (1, 2, 11, 12)),
    ]
    assert read_label_list(out / "train.txt", source).read(2).shape == (10, 10, 3)
    scenes = read_coco(out / "train.json", source)
    assert [len(scenes.truth(index).boxes) for index in range(2)] == [2, 1]


@pytest.mark.parametrize("text", ["<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", VOC_OBJECT])
def test_logodet_3k_refuses_what_is_no_annotation(tmp_path: Path, text: str) -> None:
    draw(tmp_path / "Food/76/1.jpg")
    write_list(tmp_path / "Food/76/1.xml", f"<annotation>{text}</annotation>" if text == VOC_OBJECT else text)
    with pytest.raises(LayoutRefused, match=r"1\.xml: "):
        prepare("logodet-3k", tmp_path, tmp_path / "out")


def test_veri_wild(tmp_path: Path) -> None:
    source, out = tmp_path / "VERI-Wild", tmp_path / "out"
    draw_all(
        source / "images", "00001/000001.jpg", "00001/000002.jpg", "30672/000007.jpg", "30672/000008.jpg"
    )
    write_list(source / "train_test_split/train_list.txt", "00001/000001", "00001/000002")
    write_list(source / "train_test_split/test_3000.txt", "30672/000008")
    write_list(source / "train_test_split/test_3000_query.txt", "30672/000007")
    write_list(source / "train_test_split/vehicle_info.txt", "id/image;Camera ID;Time;Model;Type;Color")
    lists = prepared("veri-wild", source, out)
    assert by_class(lists["train"]) == [
        ("images/00001/000001.jpg", "00001"),
        ("images/00001/000002.jpg", "00001"),
    ]
    assert by_class(lists["gallery_3000"]) == [("images/30672/000008.jpg", "30672")]
    asks(out, source, "query_3000", "gallery_3000")


def test_icartoonface(tmp_path: Path) -> None:
    source, out = tmp_path / "iCartoonFace", tmp_path / "out"
    rectrain = source / "personai_icartoonface_rectrain"
    draw_all(rectrain / "icartoonface_rectrain", "personai_icartoonface_rectrain_00001/a_0000001.jpg")
    write_list(
        rectrain / "icartoonface_rectrain_det.txt",
        "personai_icartoonface_rectrain_00001/a_0000001.jpg\t2\t3\t12\t13",
    )
    rectest = source / "personai_icartoonface_rectest/icartoonface_rectest"
    draw_all(rectest, "t1.jpg", "t2.jpg", "t3.jpg")
    write_list(
        source / "icartoonface_rectest_info.txt",
        "t1.jpg 0 0 10 10 7",
        "t2.jpg 1 1 10 10 7",
        "t3.jpg 1 1 9 9 -1",
        "t1.jpg t2.jpg",
    )
    dettrain = source / "personai_icartoonface_dettrain"
    draw_all(dettrain / "icartoonface_dettrain", "d1.jpg", "d2.jpg")
    write_list(dettrain / "icartoonface_dettrain.csv", "d1.jpg,1,2,5,6", "d2.jpg,0,0,9,9", "d1.jpg,10,2,15,6")
    lists = prepared("icartoonface", source, out)
    assert lists["train"][0].name == "personai_icartoonface_rectrain_00001"
    assert lists["train"][0].box == (2, 3, 12, 13)
    assert [picture.name for picture in lists["gallery"]] == ["test-7", "test-7", "nobody"]
    asks(out, source, "query", "gallery")
    scenes = read_coco(out / "train.json", source)
    assert [scenes.truth(index).boxes.tolist() for index in range(2)] == [
        [[1, 2, 5, 6], [10, 2, 15, 6]],
        [[0, 0, 9, 9]],
    ]


def test_rpc(tmp_path: Path) -> None:
    source, out = tmp_path / "rpc", tmp_path / "out"
    root = source / "retail_product_checkout"
    for split, categories in (("train", [10]), ("val", [20]), ("test", [10, 20, 10])):
        draw_all(root / f"{split}2019", "x-1.jpg")
        write_coco(
            root / f"instances_{split}2019.json",
            [{"id": 5, "file_name": "x-1.jpg", "width": 24, "height": 16}],
            [
                {"id": number, "image_id": 5, "category_id": category, "bbox": [4 * number, 1, 4, 8]}
                for number, category in enumerate(categories)
            ],
            ["1_puffed_food", "2_puffed_food"],
        )
    lists = prepared("rpc", source, out)
    assert [picture.name for picture in lists["query"]] == ["1_puffed_food", "2_puffed_food", "1_puffed_food"]
    assert lists["query"][1].box == (4, 1, 8, 9)
    assert lists["gallery"] == lists["train"]
    for split in ("train", "val", "test"):
        assert (out / f"{split}.json").exists()


def test_coco(tmp_path: Path) -> None:
    source, out = tmp_path / "coco", tmp_path / "out"
    draw_all(source / "train2017", "000000000009.jpg")
    write_coco(
        source / "annotations/instances_train2017.json",
        [{"id": 9, "file_name": "000000000009.jpg", "width": 24, "height": 16}],
        [
            {"id": 1, "image_id": 9, "category_id": 10, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 20, "bbox": [0, 0, 24, 16], "iscrowd": 1},
        ],
        ["person", "bicycle"],
    )
    write_list(source / "annotations/captions_train2017.json", "{}")
    assert prepared("coco", source, out) == {}
    scenes = read_coco(out / "train.json", source)
    assert scenes.truth(0).boxes.tolist() == [[1, 2, 4, 6]]
    assert scenes.crowds(0).boxes.tolist() == [[0, 0, 24, 16]]  # evaluation wants to know of it


def test_objects365(tmp_path: Path) -> None:
    source, out = tmp_path / "objects365", tmp_path / "out"
    draw_all(source / "val", "patch8/objects365_v1_00420917.jpg")
    write_coco(
        source / "zhiyuan_objv2_val.json",
        [{"id": 3, "file_name": "images/v1/patch8/objects365_v1_00420917.jpg", "width": 24, "height": 16}],
        [{"id": 1, "image_id": 3, "category_id": 10, "bbox": [1, 2, 3.5, 4.25], "iscrowd": 0}],
        ["Person"],
    )
    prepared("objects365", source, out)
    scenes = read_coco(out / "val.json", source)
    assert scenes.paths.tolist() == ["val/patch8/objects365_v1_00420917.jpg"]
    assert scenes.truth(0).boxes.tolist() == [[1, 2, 4.5, 6.25]]


def test_class_folders(tmp_path: Path) -> None:
    source = tmp_path / "set"
    draw_all(source, "roses/a.jpg", "roses/b.JPEG", "wild/poppy/c.png", "wild/daisy/d.jpg", "note.jpg")
    write_list(source / "roses/readme.txt", "no picture")
    lists = prepared("class-folders", source, tmp_path / "out")
    assert by_class(lists["train"]) == [
        ("roses/a.jpg", "roses"),
        ("roses/b.JPEG", "roses"),
        ("wild/daisy/d.jpg", "wild/daisy"),
        ("wild/poppy/c.png", "wild/poppy"),
    ]
    (source / "lilies").mkdir()
    with pytest.raises(LayoutRefused, match="lilies: found a class without pictures"):
        prepare("class-folders", source, tmp_path / "out")


def test_compcars(tmp_path: Path) -> None:
    source, out = tmp_path / "compcars", tmp_path / "out"
    names = ["78/1/2014/3ac218c0c6c378.jpg", "78/1/2012/aa.jpg", "78/1/2012/ab.jpg", "78/1/2013/ac.jpg"]
    draw_all(source / "data/image", *names)
    write_list(source / "data/train_test_split/classification/train.txt", *names[:2])
    write_list(source / "data/train_test_split/classification/test.txt", *names[2:])
    lists = prepared("compcars", source, out)
    assert by_class(lists["train"])[0] == (f"data/image/{names[0]}", "78/1")
    asks(out, source, "test")


def test_inaturalist(tmp_path: Path) -> None:
    source, out = tmp_path / "inat", tmp_path / "out"
    names = ["train_val2019/Birds/8/a.jpg", "train_val2019/Birds/9/b.jpg", "train_val2019/Birds/9/c.jpg"]
    draw_all(source, *names)
    for split, numbers in (("train", [0]), ("val", [1, 2])):
        listed = {
            "images": [{"id": number, "file_name": names[number]} for number in numbers],
            "annotations": [{"id": n, "image_id": n, "category_id": 9 if n else 8} for n in numbers],
        }
        write_list(source / f"{split}2019.json", json.dumps(listed))
    lists = prepared("inaturalist", source, out)
    assert by_class(lists["train"]) == [(names[0], "8")]
    asks(out, source, "test")


def test_fashion_product_images(tmp_path: Path) -> None:
    source = tmp_path / "fashion"
    draw_all(source, "images/15970.jpg", "images/39386.jpg")
    write_list(
        source / "styles.csv",
        "id,gender,masterCategory,subCategory,articleType,productDisplayName",
        "15970,Men,Apparel,Topwear,Shirts,Turtle Check, Men Navy Blue Shirt",
        "39386,Men,Apparel,Bottomwear,Jeans,Peter England",
    )
    lists = prepared("fashion-product-images", source, tmp_path / "out")
    assert by_class(lists["train"]) == [("images/15970.jpg", "Topwear"), ("images/39386.jpg", "Bottomwear")]


@pytest.mark.parametrize(
    ("layout", "file", "lines", "wrong"),
    [
        ("stanford-online-products", "Ebay_train.txt", ["image_id path", "1 a.jpg"], 1),
        ("in-shop", "list_eval_partition.txt", ["1", "names", "img/a.jpg id_1 trian"], 3),
        ("products-10k", "train.csv", ["name,label", "1.jpg,2"], 1),
        ("gldv2", "train_clean.csv", ["landmark_id,images", "5,"], 2),
        ("veri-wild", "train_test_split/train_list.txt", ["00001/000001", "000001"], 2),
        (
            "icartoonface",
            "personai_icartoonface_rectrain/icartoonface_rectrain_det.txt",
            ["a/b.jpg 1 2 3"],
            1,
        ),
        ("compcars", "train_test_split/classification/train.txt", ["78/1/a.jpg"], 1),
        ("fashion-product-images", "styles.csv", ["id,articleType", "1,Shirts"], 1),
    ],
)
def test_a_line_of_another_form_is_named(
    tmp_path: Path, layout: str, file: str, lines: list[str], wrong: int
) -> None:
    for folder in ("img", "train", "image", "images", "personai_icartoonface_rectrain/icartoonface_rectrain"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write_list(tmp_path / file, *lines)
    with pytest.raises(LayoutRefused, match=rf"{Path(file).name}:{wrong}: found"):
        prepare(layout, tmp_path, tmp_path / "out")


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "Ebay_train.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "Ebay_test.txt").write_bytes(b"")
    with pytest.raises(LayoutRefused, match="cannot be read: 'utf-8' codec"):
        prepare("stanford-online-products", tmp_path, tmp_path / "out")
