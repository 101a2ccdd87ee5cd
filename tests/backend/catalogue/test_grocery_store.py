"""A miniature of the data set's repository, laid out as the real one is, quirks included."""

import csv
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from PIL import Image

from backend.catalogue.grocery_store import prepare_grocery_store
from backend.catalogue.models import Product
from tests.backend.factories import make_picture

HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
    "Iconic Image Path (str),Product Description Path (str)"
)
ICONIC = "iconic-images-and-descriptions"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two products: an apple, and a juice whose description's path is misspelt in classes.csv, as in the original."""
    root = tmp_path / "GroceryStoreDataset"
    dataset = root / "dataset"
    apple, juice = "Fruit/Apple/Granny-Smith", "Packages/Juice/Bravo-Orange-Juice"
    lines = [HEADER]
    for number, (coarse, folder, described_at) in enumerate(
        [("Apple", apple, "_Description.txt"), ("Juice", juice, "_Description")]
    ):
        name = Path(folder).name
        (dataset / ICONIC / folder).mkdir(parents=True)
        (dataset / ICONIC / folder / f"{name}_Iconic.jpg").write_bytes(make_picture(number, (300, 200)))
        (dataset / ICONIC / folder / f"{name}_Description.txt").write_text(f"About {name}.\nArlagårdar\n")
        (dataset / ICONIC / folder / f"{name}_Information.txt").write_text("Origin: Sweden")
        beside = f"/{ICONIC}/{folder}/{name}"
        lines.append(f"{name},{number},{coarse},{number},{beside}_Iconic.jpg,{beside}{described_at}")
    (dataset / "classes.csv").write_text("\n".join(lines) + "\n")
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        listed = []
        for number, folder in enumerate((apple, juice)):
            (dataset / split / folder).mkdir(parents=True)
            for shot in range(count):
                path = f"{split}/{folder}/{Path(folder).name}_{shot + 1:03d}.jpg"
                (dataset / path).write_bytes(make_picture(100 * len(listed) + len(split), (120, 160)))
                listed.append(f"{path}, {number}, {number}")
        (dataset / f"{split}.txt").write_text("\n".join(listed) + "\n")
    (root / "LICENSE").write_text("MIT License")
    return root


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_format_comes_out(repository: Path, tmp_path: Path) -> None:
    prepared = prepare_grocery_store(repository, tmp_path / "store")
    assert prepared.refused == ()
    assert prepared.n_pictures == {
        "gallery.csv": 8,
        "iconic.csv": 2,
        "shop.csv": 6,
        "query.csv": 2,
        "test.csv": 4,
    }
    assert read(tmp_path / "store" / "products.csv") == [
        {
            "sku": sku, "gtin": "", "name": name, "brand": "", "category": category, "price": "", "currency": "",
            "description": description,
        }
        for sku, name, category, description in [
            ("GS-000", "Granny Smith", "Fruit/Apple", "About Granny-Smith. Arlagårdar"),
            ("GS-001", "Bravo Orange Juice", "Packages/Juice", "About Bravo-Orange-Juice. Arlagårdar"),
        ]
    ]  # fmt: skip
    gallery = read(tmp_path / "store" / "gallery.csv")
    assert gallery[0] == {"image": "images/iconic/Granny-Smith.jpg", "sku": "GS-000", "split": "iconic"}
    assert gallery[2] == {
        "image": "images/train/Granny-Smith/Granny-Smith_001.jpg",
        "sku": "GS-000",
        "split": "train",
    }
    original = repository / "dataset" / "train" / "Fruit" / "Apple" / "Granny-Smith" / "Granny-Smith_001.jpg"
    assert (tmp_path / "store" / gallery[2]["image"]).read_bytes() == original.read_bytes()
    parts = [row for part in ("iconic", "shop") for row in read(tmp_path / "store" / f"{part}.csv")]
    assert parts == gallery
    assert [row["sku"] for row in read(tmp_path / "store" / "query.csv")] == ["GS-000", "GS-001"]
    assert (tmp_path / "store" / "LICENSE").read_text() == "MIT License"


def test_larger_pictures_are_reduced_on_demand(repository: Path, tmp_path: Path) -> None:
    prepare_grocery_store(repository, tmp_path / "store", longest_side=100)
    sizes = {
        Image.open(tmp_path / "store" / row["image"]).size for row in read(tmp_path / "store" / "gallery.csv")
    }
    assert sizes == {(100, 67), (75, 100)}


def test_bad_lines_and_missing_pictures_are_named_and_the_rest_is_done(
    repository: Path, tmp_path: Path
) -> None:
    train = repository / "dataset" / "train.txt"
    lines = train.read_text().splitlines()
    lines[1:1] = ["no commas here", f"{lines[0].split(',')[0]}, 99, 0", "train/Fruit/Apple/gone.jpg, 0, 0"]
    train.write_text("\n".join(lines))
    prepared = prepare_grocery_store(repository, tmp_path / "store")
    assert prepared.n_pictures["gallery.csv"] == 8
    first, second, third = prepared.refused
    assert first.startswith("train.txt:2: 'no commas here'")
    assert second.startswith("train.txt:3: ")
    assert third.startswith("train/Fruit/Apple/gone.jpg: ")


def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no .*classes\.csv; a clone of .*GroceryStoreDataset is wanted"):
        call_command("prepare_grocery_store", tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.django_db
def test_what_is_prepared_can_be_imported(repository: Path, tmp_path: Path, settings: object) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    out = io.StringIO()
    call_command("prepare_grocery_store", repository, tmp_path / "store", stdout=out)
    assert "2 products, 8 pictures in gallery.csv" in out.getvalue()
    call_command("import_catalogue", tmp_path / "store", stdout=out)
    assert "0 rows refused" in out.getvalue()
    assert Product.objects.get(sku="GS-001").reference_images.count() == 4
