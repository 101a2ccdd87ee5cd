"""What a picture changes for its neighbours: the same as going through the whole gallery, before and after."""

from collections.abc import Sequence

import numpy as np
import pytest

from backend.catalogue.models import Product, ReferenceImage
from backend.gallery import neighbours
from backend.gallery.loading import get_gallery
from backend.gallery.neighbours import Effect, find_effect, find_nearest_of_product
from backend.gallery.thresholds import search_settings
from recognition.embedder import Embeddings
from recognition.gallery import Entry
from tests.backend.factories import make_product
from tests.backend.gallery.searched import wait_until_searched

PRODUCTS, PICTURES = 12, 5
Row = tuple[int, int, np.ndarray]


def make_vectors(generation, n: int, around: np.ndarray | None = None, spread: float = 0.6) -> np.ndarray:
    """Unit vectors of the generation's dimension; round one of them where it is given. They lie on few axes, so that
    products overlap as they do in a shop."""
    dimension = get_gallery(generation).dimension
    random = np.random.default_rng(n if around is None else int(abs(around[0]) * 1e6) + n)
    vectors = np.zeros((n, dimension), np.float32)
    vectors[:, :6] = random.normal(size=(n, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if around is not None:
        vectors = around + spread * vectors
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@pytest.fixture
def rows(generation) -> list[Row]:
    """The gallery, in both stores: id, product and embedding of each picture."""
    rows: list[Row] = []
    for number, centre in enumerate(make_vectors(generation, PRODUCTS)):
        product = make_product(f"P{number}")
        for picture, vector in enumerate(make_vectors(generation, PICTURES, centre)):
            image = ReferenceImage(
                product=product, width=9, height=9, sha256=f"{number}-{picture}", image="a"
            )
            ReferenceImage.objects.bulk_create(
                [image]
            )  # without a row in the ledger: nothing is to be embedded
            rows.append((image.pk, product.pk, vector))
    code = np.zeros(get_gallery(generation).hash_bits // 8, np.uint8)
    get_gallery(generation).upsert([Entry(pk, product, 1, vector, code) for pk, product, vector in rows])
    wait_until_searched(generation, [pk for pk, _, _ in rows])
    return rows


def as_embedding(generation, vector: np.ndarray) -> Embeddings:
    return Embeddings(vector[None], np.zeros((1, get_gallery(generation).hash_bits // 8), np.uint8))


def leave_one_out(rows: Sequence[Row]) -> dict[int, int]:
    """By picture: the product that it finds first, itself left out."""
    vectors = np.stack([vector for _, _, vector in rows])
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -2)
    return {pk: rows[int(np.argmax(line))][1] for (pk, _, _), line in zip(rows, similarities, strict=True)}


def by_brute_force(rows: Sequence[Row], vector: np.ndarray, product_id: int) -> tuple[set[int], set[int]]:
    """Pictures that turn from right to wrong, and from wrong to right."""
    own = {pk: product for pk, product, _ in rows}
    before = leave_one_out(rows)
    after = leave_one_out([*rows, (-1, product_id, vector)])
    worse = {pk for pk in own if before[pk] == own[pk] and after[pk] != own[pk]}
    better = {pk for pk in own if before[pk] != own[pk] and after[pk] == own[pk]}
    return worse, better


def ids(effect: Effect) -> tuple[set[int], set[int]]:
    return {one.reference_image_id for one in effect.worse}, {one.reference_image_id for one in effect.better}


def test_the_neighbours_alone_give_what_the_whole_gallery_gives(generation, rows):
    products = sorted({product for _, product, _ in rows})
    n_worse = n_better = 0
    for number, (_, shown, vector) in enumerate(rows[::6]):
        near = make_vectors(generation, 1, vector, spread=0.3)[0]
        # Every second one is said to be another product than it looks like.
        product = shown if number % 2 else products[number % PRODUCTS]
        wanted = by_brute_force(rows, near, product)
        effect = find_effect(
            get_gallery(generation), as_embedding(generation, near), product, search_settings(),
            neighbours=len(rows) + 1,
        )  # fmt: skip
        assert ids(effect) == wanted
        assert effect.exact_from is None
        n_worse, n_better = n_worse + len(wanted[0]), n_better + len(wanted[1])
        # With fewer neighbours only a picture can be missed that has nothing as near as the last of them.
        few = find_effect(
            get_gallery(generation), as_embedding(generation, near), product, search_settings(), neighbours=5
        )
        similarities = {pk: max(float(vector @ v) for other, _, v in rows if other != pk)
                        for pk, _, vector in rows}  # fmt: skip
        assert few.exact_from is not None
        for found, all_there_are in zip(ids(few), wanted, strict=True):
            assert found <= all_there_are
            assert all(similarities[pk] < few.exact_from for pk in all_there_are - found)
    assert n_worse > 1
    assert n_better > 1


def test_a_picture_that_is_there_is_judged_as_if_it_were_not(generation, rows):
    for pk, product, vector in rows[::21]:
        rest = [row for row in rows if row[0] != pk]
        effect = find_effect(
            get_gallery(generation), as_embedding(generation, vector), product, search_settings(),
            neighbours=len(rows), without=pk,
        )  # fmt: skip
        assert ids(effect) == by_brute_force(rest, vector, product)
        assert pk not in {match.reference_image_id for match in effect.matches}


@pytest.mark.parametrize("first_few", [neighbours.FIRST_FEW, 2])
def test_what_may_not_be_answered_neither_suffers_nor_hides(generation, rows, monkeypatch, first_few):
    """Retired products, and entries of pictures that are gone, are in Milvus still, and may be all of the nearest."""
    monkeypatch.setattr(neighbours, "FIRST_FEW", first_few)
    retired = rows[0][1]
    Product.objects.filter(pk=retired).update(state="retired")
    gone = rows[PICTURES][0]
    ReferenceImage.objects.filter(pk=gone)._raw_delete("default")
    left = [row for row in rows if row[1] != retired and row[0] != gone]
    _, product, vector = rows[2 * PICTURES]
    for other in (product, rows[3 * PICTURES][1]):
        near = make_vectors(generation, 1, vector, spread=0.3)[0]
        effect = find_effect(
            get_gallery(generation), as_embedding(generation, near), other, search_settings(),
            neighbours=len(rows) + 1,
        )  # fmt: skip
        assert ids(effect) == by_brute_force(left, near, other)
        assert {match.reference_image_id for match in effect.matches} == {pk for pk, _, _ in left}


def test_an_empty_gallery_has_nothing_to_lose(generation):
    wait_until_searched(generation, [])
    vector = make_vectors(generation, 1)[0]
    effect = find_effect(get_gallery(generation), as_embedding(generation, vector), 1, search_settings())
    assert effect == Effect((), (), (), None)


def test_a_products_nearest_picture_is_found_beyond_all_neighbours(generation, rows):
    _, _, vector = rows[0]
    for product in sorted({product for _, product, _ in rows})[::5]:
        wanted = max((float(vector @ v), pk) for pk, shown, v in rows if shown == product)
        found = find_nearest_of_product(
            get_gallery(generation), as_embedding(generation, vector), product, search_settings()
        )
        assert found is not None
        assert (found.reference_image_id, found.similarity) == (wanted[1], pytest.approx(wanted[0], abs=1e-4))
