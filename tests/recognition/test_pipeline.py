"""From the bytes of a photo to its recognised items: the steps joined, on small real models."""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from recognition.detector import MainBodyDetector, open_detector
from recognition.embedder import Embeddings, ProductEmbedder, open_embedder
from recognition.errors import ImageRefused
from recognition.gallery import Entry, Gallery, IndexSettings, Match, SearchSettings
from recognition.pipeline import Keep, ProductRecognizer
from recognition.ranking import Result, Thresholds
from recognition.sessions import SessionSettings
from tests.recognition.toy_models import (
    detector_card,
    detector_model,
    embedder_card,
    embedder_model,
    write_folder,
)

COLOURS = {1: (230, 40, 40), 2: (40, 200, 40), 3: (40, 40, 230)}
SETTINGS = SessionSettings(batch_sizes=(1, 2))
THRESHOLDS = Thresholds(recognised=0.99, margin=0.0005, unknown=0.5)

# In the detector's input of 32 x 24: red, green, green again with some of its background, a speck, and blue.
BOXES = [[2, 2, 10, 22], [12, 2, 20, 22], [11, 1, 21, 23], [30, 0, 30.5, 0.5], [22, 2, 30, 22]]
SCORES = [[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 0], [0.5, 0]]


def scene() -> bytes:
    """A photo of 320 x 240 with a red, a green and a blue product, as JPEG."""
    pixels = np.full((240, 320, 3), 255, np.uint8)
    for left, colour in zip((20, 120, 220), COLOURS.values(), strict=True):
        pixels[20:220, left : left + 80] = colour
    return encoded(pixels)


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> ProductEmbedder:
    return open_embedder(
        write_folder(tmp_path_factory.mktemp("e"), embedder_model(), embedder_card()), SETTINGS
    )


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> MainBodyDetector:
    folder = tmp_path_factory.mktemp("d")
    written = detector_card()
    written["detection"] |= {"nms_threshold": 0.9}
    return open_detector(write_folder(folder, detector_model(BOXES, SCORES), written), SETTINGS)


@pytest.fixture(scope="module")
def reference_entries(embedder: ProductEmbedder) -> list[Entry]:
    """Three pictures of each colour; the picture's id is 10 times its product's plus 0, 1, 2."""
    entries = []
    for product, colour in COLOURS.items():
        crops = [np.full((60, 40, 3), np.array(colour) + shade, np.uint8) for shade in (0, 6, 12)]
        embeddings = embedder.embed(crops)
        for number, (vector, code) in enumerate(zip(embeddings.vectors, embeddings.hash_codes, strict=True)):
            entries.append(Entry(10 * product + number, product, 1, vector, code))
    return entries


@pytest.fixture(scope="module")
def gallery(reference_entries: list[Entry], milvus_uri: str) -> Iterator[Gallery]:
    gallery = Gallery(
        milvus_uri,
        name=f"pipeline_{uuid4().hex[:8]}",
        dimension=16,
        hash_bits=16,
        index=IndexSettings("FLAT"),
    )
    gallery.create()
    gallery.upsert(reference_entries)
    gallery.flush()
    gallery.load()
    yield gallery
    gallery.drop()
    gallery.close()


class ExactGallery:
    """Brute force in memory, noting what it is asked: for what cannot be seen from outside a real one."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.asked: list[tuple[int, int]] = []

    def search(
        self,
        embeddings: Embeddings,
        settings: SearchSettings,
        *,
        product_ids: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> list[list[Match]]:
        limit = limit or settings.matches
        self.asked.append((len(embeddings), limit))
        chosen = [one for one in self.entries if product_ids is None or one.product_id in product_ids]
        found = [
            [Match(one.reference_image_id, one.product_id, float(one.vector @ vector)) for one in chosen]
            for vector in embeddings.vectors
        ]
        return [sorted(matches, key=lambda match: -match.similarity)[:limit] for matches in found]


def recogniser(
    detector: MainBodyDetector | None,
    embedder: ProductEmbedder,
    gallery: Gallery | ExactGallery,
    *,
    matches: int = 100,
    max_items: int = 10,
    thresholds: Thresholds = THRESHOLDS,
) -> ProductRecognizer:
    return ProductRecognizer(
        detector,
        embedder,
        gallery,  # type: ignore[arg-type]
        thresholds,
        SearchSettings("float", matches=matches),
        crop_margin=0.0,
        max_items=max_items,
    )


def keep_all(product_of: Mapping[int, int]) -> Collection[int]:
    return product_of


def all_but(product: int) -> Keep:
    """Keep every picture, except those of one product."""
    return lambda product_of: [image for image, own in product_of.items() if own != product]


def test_a_photo_becomes_its_products_on_a_real_gallery(
    detector: MainBodyDetector, embedder: ProductEmbedder, gallery: Gallery
) -> None:
    found = recogniser(detector, embedder, gallery).recognize(scene(), keep=keep_all, candidates=2)
    assert (found.width, found.height, found.main_body_found) == (320, 240, True)
    # The second green box doubles the first, the speck is too small to be embedded.
    assert [item.candidates[0].product_id for item in found.items] == [1, 2, 3]
    assert found.items[0].box == (20, 20, 100, 220)
    assert [item.detection_score for item in found.items] == pytest.approx([0.9, 0.8, 0.5])
    assert {item.result for item in found.items} == {Result.RECOGNISED}
    assert all(len(item.candidates) == 2 for item in found.items)
    assert set(found.timings_ms) == {"decode", "detect", "embed", "search", "rank"}
    assert all(spent > 0 for spent in found.timings_ms.values())


def test_within_a_product_set_no_other_product_is_answered(
    detector: MainBodyDetector, embedder: ProductEmbedder, gallery: Gallery
) -> None:
    found = recogniser(detector, embedder, gallery).recognize(scene(), keep=keep_all, product_ids=[2, 3])
    assert {one.product_id for item in found.items for one in item.candidates} == {2, 3}


@pytest.mark.parametrize("why", ["no detector", "nothing detected"])
def test_without_a_main_body_the_whole_picture_is_the_one_box_and_it_is_said(
    embedder: ProductEmbedder, reference_entries: list[Entry], tmp_path: Path, why: str
) -> None:
    detector = None
    if why == "nothing detected":
        model = detector_model(BOXES, [[0.01, 0]] * len(BOXES))
        detector = open_detector(write_folder(tmp_path, model, detector_card()), SETTINGS)
    pixels = np.full((60, 80, 3), COLOURS[3], np.uint8)
    found = recogniser(detector, embedder, ExactGallery(reference_entries)).recognize(
        encoded(pixels), keep=keep_all
    )
    (item,) = found.items
    assert not found.main_body_found
    assert item.box == (0, 0, 80, 60)
    assert item.detection_score is None
    assert item.candidates[0].product_id == 3


def test_at_most_so_many_items_the_best_detections(
    detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
) -> None:
    found = recogniser(detector, embedder, ExactGallery(reference_entries), max_items=1).recognize(
        scene(), keep=keep_all
    )
    assert [item.detection_score for item in found.items] == pytest.approx([0.9])


class TestSearchRounds:
    """All crops in one search, and again only for those that are left short."""

    def many_pictures(self, entries: list[Entry], per_product: int) -> list[Entry]:
        return [
            Entry(1000 * one.product_id + number, one.product_id, 1, one.vector, one.hash_code)
            for one in entries[::3]
            for number in range(per_product)
        ]

    def test_all_crops_are_searched_in_one_call(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        gallery = ExactGallery(reference_entries)
        recogniser(detector, embedder, gallery).recognize(scene(), keep=keep_all)
        assert gallery.asked == [(4, 100)]

    def test_rejected_products_are_never_answered_and_do_not_hide_others(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        gallery = ExactGallery(reference_entries)

        found = recogniser(detector, embedder, gallery, matches=4).recognize(
            scene(), keep=all_but(1), candidates=2
        )
        assert all({one.product_id for one in item.candidates} == {2, 3} for item in found.items)
        assert [limit for _, limit in gallery.asked] == [4, 8]

    def test_a_product_stands_by_the_pictures_that_it_still_has(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        gallery = ExactGallery(reference_entries)
        shared = recogniser(detector, embedder, gallery)
        before = shared.recognize(scene(), keep=keep_all).items[0].candidates[0]
        gone = before.matches[0].reference_image_id
        after = shared.recognize(
            scene(), keep=lambda product_of: [image for image in product_of if image != gone]
        )
        [same] = [one for one in after.items[0].candidates if one.product_id == before.product_id]
        assert same.matches == before.matches[1:]
        assert same.similarity == before.matches[1].similarity

    def test_only_the_crops_left_short_are_searched_again(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        more_of_one = [
            replace(one, reference_image_id=99) for one in reference_entries if one.product_id == 1
        ]
        gallery = ExactGallery([*reference_entries, *more_of_one])
        # The four nearest of the one box are all of product 1, those of every other box of two products.
        found = recogniser(detector, embedder, gallery, matches=4).recognize(scene(), keep=keep_all)
        assert gallery.asked == [(4, 4), (1, 8)]
        assert [item.candidates[0].product_id for item in found.items] == [1, 2, 3]

    def test_no_more_products_are_asked_for_than_it_takes(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        """The nearest of all crops at once, and further ones only where some were rejected."""
        strangers = [
            replace(reference_entries[0], reference_image_id=100 + i, product_id=100 + i, vector=-one.vector)
            for i, one in enumerate(reference_entries * 4)
        ]
        gallery = ExactGallery([*reference_entries, *strangers])
        asked: list[set[int]] = []

        def keep(product_of: Mapping[int, int]) -> Collection[int]:
            asked.append(set(product_of.values()))
            return all_but(2)(product_of)

        found = recogniser(detector, embedder, gallery).recognize(scene(), keep=keep, candidates=2)
        assert len(asked) == 3
        assert asked[0] <= {1, 2, 3}
        assert asked[1] == {2}, "its other pictures"
        assert len(asked[2]) <= 8, "twice as deep, for four crops"
        assert not asked[0] & asked[2]
        assert all(len(item.candidates) == 2 for item in found.items)

    def test_a_product_of_many_pictures_does_not_hide_the_runner_up(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        gallery = ExactGallery(self.many_pictures(reference_entries, 20))
        found = recogniser(detector, embedder, gallery, matches=10).recognize(
            scene(), keep=keep_all, candidates=1
        )
        assert gallery.asked == [(4, 10), (4, 20), (4, 40)]
        assert all(len(item.candidates) == 1 for item in found.items)

    def test_the_rounds_come_to_an_end(
        self, detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
    ) -> None:
        gallery = ExactGallery(self.many_pictures(reference_entries, 200))
        found = recogniser(detector, embedder, gallery, matches=4).recognize(
            scene(), keep=lambda product_of: set()
        )
        assert [limit for _, limit in gallery.asked] == [4, 8, 16, 32, 64]
        assert {item.result for item in found.items} == {Result.UNKNOWN}

    def test_an_empty_gallery_makes_everything_unknown(
        self, detector: MainBodyDetector, embedder: ProductEmbedder
    ) -> None:
        found = recogniser(detector, embedder, ExactGallery([])).recognize(scene(), keep=keep_all)
        assert [item.candidates for item in found.items] == [()] * 4
        assert {item.result for item in found.items} == {Result.UNKNOWN}


def test_a_bad_picture_is_refused_before_any_model_runs(embedder: ProductEmbedder) -> None:
    gallery = ExactGallery([])
    with pytest.raises(ImageRefused):
        recogniser(None, embedder, gallery).recognize(b"no picture", keep=keep_all)
    assert gallery.asked == []


def test_a_picture_too_small_for_the_embedder_is_refused(tmp_path: Path) -> None:
    card = embedder_card(minimum_side_pixels=16)
    embedder = open_embedder(write_folder(tmp_path, embedder_model(), card), SETTINGS)
    picture = encoded(np.zeros((10, 200, 3), np.uint8))
    with pytest.raises(ImageRefused, match="200 x 10 pixels, wanted at least 16"):
        recogniser(None, embedder, ExactGallery([])).recognize(picture, keep=keep_all)


def test_threads_share_a_recogniser(
    detector: MainBodyDetector, embedder: ProductEmbedder, reference_entries: list[Entry]
) -> None:
    shared = recogniser(detector, embedder, ExactGallery(reference_entries))
    flipped = encoded(np.asarray(Image.open(io.BytesIO(scene())))[:, ::-1])
    wanted = {scene(): [1, 2, 3], flipped: [3, 2, 1]}

    def ask(photo: bytes) -> bool:
        found = shared.recognize(photo, keep=keep_all)
        return [item.candidates[0].product_id for item in found.items] == wanted[photo]

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(ask, [scene(), flipped] * 20))
