"""Drawn training data."""

import numpy as np

from training.data.coco import check_scenes
from training.data.generated import GeneratedPictures, GeneratedScenes, drawn_crop, generated_retrieval
from training.data.pictures import check, check_retrieval


def test_the_same_arguments_give_the_same_crops() -> None:
    one = GeneratedPictures(3, range(2), seed=4, side=64)
    check(one, pictures_per_class=2)
    assert one.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(one.classes) == 3
    crops = [one.read(index) for index in range(6)]
    drawn_crop.cache_clear()
    other = GeneratedPictures(3, range(2), seed=4, side=64)
    for index in reversed(range(6)):
        np.testing.assert_array_equal(crops[index], other.read(index))
    assert not np.array_equal(
        one.read(0)[:20, :20], GeneratedPictures(3, range(2), seed=5, side=64).read(0)[:20, :20]
    )


def test_sets_of_one_seed_share_what_is_drawn() -> None:
    few, more = (GeneratedPictures(n, [1], seed=4, side=64) for n in (2, 5))
    assert few.read(1) is more.read(1)
    assert few.read(1) is not GeneratedPictures(2, [1], seed=4, side=72).read(1)


def test_a_margin_is_left_around_the_main_body() -> None:
    close = GeneratedPictures(1, [1], seed=4, side=96).read(0)
    wide = GeneratedPictures(1, [1], seed=4, side=96, crop_margin=0.1).read(0)
    assert wide.shape[0] > close.shape[0]
    assert wide.shape[1] > close.shape[1]


def test_queries_and_gallery_show_the_same_products_in_other_views() -> None:
    retrieval = generated_retrieval(4, gallery_views=2, query_views=3, seed=9, side=64)
    check_retrieval(retrieval)
    assert retrieval.own.tolist() == [-1] * 12
    assert retrieval.query_labels.tolist() == np.repeat(np.arange(4), 3).tolist()
    assert retrieval.gallery_labels.tolist() == np.repeat(np.arange(4), 2).tolist()


def test_scenes_hold_main_bodies_and_held_out_ones_are_others() -> None:
    scenes = GeneratedScenes(3, seed=1, size=(128, 96), n_products=8, items=(2, 3))
    check_scenes(scenes)
    assert scenes.classes == ("foreground",)
    for index in range(3):
        boxes, labels = scenes.truth(index)
        assert 1 <= len(boxes) <= 3
        assert labels.tolist() == [0] * len(boxes)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert scenes.read(index).shape == (96, 128, 3)
    later = GeneratedScenes(2, seed=1, size=(128, 96), n_products=8, items=(2, 3), first=2)
    np.testing.assert_array_equal(later.read(0), scenes.read(2))
    assert not np.array_equal(later.read(1), scenes.read(2))
