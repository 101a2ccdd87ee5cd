"""What is held out shares no product, or no sequence, with what is trained on."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.live import shipped_embedder
from training.data.hold_out import held_out_pictures, main, sequences
from training.data.lists import read_folder

REPOSITORY = Path(__file__).parents[3]
CATALOGUE = REPOSITORY / "fixtures/demo_catalogue"
MODEL = shipped_embedder()


def turned(*degrees: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Directions in a plane, so that a cosine is an angle between two."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_sequence_is_a_chain_of_like_pictures_of_one_product() -> None:
    # 0, 30 and 60 degrees are a chain though its ends are not alike; 200 is alone; 2 is of another product.
    embeddings = turned(60, 200, 0, 30, 2)
    labels = np.array([0, 0, 0, 0, 1])
    found = sequences(embeddings, labels, likeness=np.cos(np.radians(35)))
    assert found.tolist() == [0, 1, 0, 0, 4]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_whole_sequences_are_held_out_and_each_product_keeps_one(share: float) -> None:
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(20), 25)
    sequence = labels * 100 + random.integers(8, size=len(labels))
    out = held_out_pictures(labels, sequence, share, random)
    for label in range(20):
        own = labels == label
        assert out[own].sum() <= share * own.sum()
        assert not set(sequence[own & out]) & set(sequence[own & ~out])
        assert (own & ~out).any()
    assert out.any() == (share > 0)


def test_the_lists_hold_each_picture_once_and_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(name: str) -> list[tuple[str, str]]:
        with (tmp_path / "lists" / name).open(encoding="utf-8", newline="") as file:
            return [(row["image"], row["sku"]) for row in csv.DictReader(file)]

    with (CATALOGUE / "products.csv").open(encoding="utf-8", newline="") as file:
        new, *others = [row["sku"] for row in csv.DictReader(file)]
    (tmp_path / "products.txt").write_text(f"# remark\n{new}  # the first\n")
    arguments = [str(CATALOGUE), str(tmp_path / "lists"), "--model", str(MODEL)]
    assert main([*arguments, "--products", str(tmp_path / "products.txt"), "--share", "0.5"]) == 0
    with (CATALOGUE / "gallery.csv").open(encoding="utf-8", newline="") as file:
        gallery = {row["image"] for row in csv.DictReader(file) if row["sku"] != new}
    trained, asked = rows("train.csv"), rows("query.csv")
    assert {image for image, _ in trained} | {image for image, _ in asked} == gallery
    assert len(trained) + len(asked) == len(gallery)
    assert {sku for _, sku in trained} == set(others)
    with (tmp_path / "lists/sequences.csv").open(encoding="utf-8", newline="") as file:
        sequence_of = {row["image"]: row["sequence"] for row in csv.DictReader(file)}
    assert gallery < sequence_of.keys()
    assert not {sequence_of[image] for image, _ in trained} & {sequence_of[image] for image, _ in asked}
    assert {sku for _, sku in rows("new_query.csv")} == {new}
    assert new not in {sku for _, sku in rows("known_query.csv")}
    pictures = read_folder(CATALOGUE, gallery=str(tmp_path / "lists/train.csv"), minimum_pictures=1)
    assert (len(pictures), set(pictures.classes)) == (len(trained), set(others))
    whole = read_folder(CATALOGUE)
    assert whole.boxes is not None
    boxes = dict(zip(map(str, whole.paths), whole.boxes.tolist(), strict=True))
    assert pictures.boxes is not None
    assert all(
        boxes[str(path)] == box for path, box in zip(pictures.paths, pictures.boxes.tolist(), strict=True)
    )
    (tmp_path / "products.txt").write_text("NOBODY")
    assert main([*arguments, "--products", str(tmp_path / "products.txt")]) == 1
    assert "found no pictures of NOBODY" in capsys.readouterr().err


def test_a_model_to_which_a_products_pictures_are_one_sequence_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(CATALOGUE), str(tmp_path), "--model", str(MODEL), "--share", "0.5"]
    monkeypatch.setattr("training.data.hold_out.LIKENESS", 0.999)  # each picture alone
    assert main(arguments) == 0
    assert "take one that was not" not in capsys.readouterr().out
    monkeypatch.setattr(
        "training.data.hold_out.LIKENESS", 0.1
    )  # as of a model that has learned them by heart
    assert main(arguments) == 0
    assert "found 0 pictures to hold out, wanted some 112" in capsys.readouterr().out
