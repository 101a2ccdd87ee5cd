"""Batches: what they hold, that they can be resumed, and that processes share them."""

from collections import Counter

import numpy as np
import pytest
from pytorch_metric_learning.samplers import MPerClassSampler

from training.data.samplers import BatchSampler, Draw, PKSampler, Share, ShuffledSampler

SEED = 3
LABELS = np.repeat(np.arange(12), [5, 4, 9, 4, 2, 6, 4, 4, 4, 30, 4, 1])


def pk(share: Share = Share(), **options: object) -> PKSampler:  # noqa: B008
    return PKSampler(LABELS, 16, pictures_per_class=4, seed=SEED, share=share, **options)  # type: ignore[arg-type]


def shuffled(share: Share = Share()) -> ShuffledSampler:  # noqa: B008
    return ShuffledSampler(37, 8, seed=SEED, share=share)


def batches(sampler: BatchSampler, epoch: int = 0, first_batch: int = 0) -> list[list[Draw]]:
    sampler.start(epoch, first_batch)
    return list(sampler)


@pytest.mark.parametrize("make", [pk, shuffled])
def test_processes_share_the_batches_of_one(make) -> None:  # type: ignore[no-untyped-def]
    for epoch in (0, 5):
        alone = batches(make(), epoch)
        shares = [batches(make(Share(rank, 4)), epoch) for rank in range(4)]
        together = [[draw for share in shares for draw in share[number]] for number in range(len(alone))]
        assert together == alone
        assert {len(share) for share in shares} == {len(alone)}


@pytest.mark.parametrize("make", [pk, shuffled])
def test_a_resumed_epoch_goes_on_where_it_stopped(make) -> None:  # type: ignore[no-untyped-def]
    whole = batches(make(), epoch=2)
    resumed = make()
    assert batches(resumed, epoch=2, first_batch=2) == whole[2:]
    assert len(resumed) == len(whole) - 2
    assert resumed.batches_per_epoch == len(whole)


@pytest.mark.parametrize("make", [pk, shuffled])
def test_epochs_and_seeds_differ(make) -> None:  # type: ignore[no-untyped-def]
    first = [[draw.picture for draw in batch] for batch in batches(make(), 0)]
    assert first != [[draw.picture for draw in batch] for batch in batches(make(), 1)]
    assert first == [[draw.picture for draw in batch] for batch in batches(make(), 0)]


def test_shuffling_draws_each_picture_once_and_fills_the_last_batch() -> None:
    drawn = [draw.picture for batch in batches(shuffled()) for draw in batch]
    assert len(drawn) == 40
    assert sorted(drawn[:37]) == list(range(37))
    assert drawn[37:] == drawn[:3]
    assert [draw.position for draw in batches(shuffled())[1]] == list(range(8))


def test_a_last_batch_can_be_dropped() -> None:
    assert ShuffledSampler(37, 8, seed=SEED, drop_last=True).batches_per_epoch == 4
    with pytest.raises(ValueError, match="5 pictures an epoch: wanted one batch of 8"):
        ShuffledSampler(5, 8, seed=SEED, drop_last=True)


def test_rates_say_how_often_a_picture_comes() -> None:
    rates = np.array([1.0] * 10 + [4.0] * 5 + [0.5] * 20 + [2.5] * 4)
    sampler = ShuffledSampler(39, 5, seed=SEED, rates=rates)
    assert sampler.batches_per_epoch == 10  # 10 + 20 + 10 + 10
    total = np.zeros(39)
    for epoch in range(200):
        counts = np.bincount(sampler.order(epoch), minlength=39)
        assert (counts[:10] == 1).all()
        assert (counts[10:15] == 4).all()
        assert set(counts[15:35].tolist()) <= {0, 1}
        assert set(counts[35:].tolist()) <= {2, 3}
        assert counts.sum() == 50
        total += counts
    np.testing.assert_allclose(total / 200, rates, atol=0.15)


def test_a_pk_batch_holds_p_classes_with_k_pictures() -> None:
    for batch in batches(pk()):
        pictures = [draw.picture for draw in batch]
        counts = Counter(LABELS[pictures].tolist())
        assert len(counts) == 4
        assert set(counts.values()) == {4}
        for label in counts:
            own = [picture for picture in pictures if LABELS[picture] == label]
            if (label == LABELS).sum() >= 4:
                assert len(set(own)) == 4


def test_a_small_class_repeats_its_pictures() -> None:
    sampler = pk()
    seen = [sampler.batch(epoch, 0) for epoch in range(60)]
    repeated = [batch[LABELS[batch] == 4] for batch in seen if (LABELS[batch] == 4).any()]
    assert repeated
    assert all(len(own) == 4 for own in repeated)
    assert len({tuple(own) for own in repeated}) > 1


def test_an_epoch_holds_as_many_pictures_as_there_are() -> None:
    assert pk().batches_per_epoch == int(np.ceil(len(LABELS) / 16))


def shares_of_classes(sampler: PKSampler, n: int = 3000) -> np.ndarray:
    drawn = np.concatenate([np.unique(LABELS[sampler.batch(0, number)]) for number in range(n)])
    return np.bincount(drawn, minlength=12) / n


def test_both_ways_of_drawing_classes() -> None:
    np.testing.assert_allclose(shares_of_classes(pk()), 4 / 12, atol=0.04)
    by_pictures = shares_of_classes(pk(class_draw="sample_avg_prob"))
    assert by_pictures[9] > 0.85  # 30 of 77 pictures, in four draws
    assert by_pictures[11] < 0.1
    assert by_pictures[2] > by_pictures[4]


def test_classes_are_drawn_as_often_as_by_pytorch_metric_learning() -> None:
    np.random.seed(SEED)  # its own source of chance
    drawn = np.array(list(MPerClassSampler(LABELS, 4, batch_size=16, length_before_new_iter=48_000)))
    shares = np.zeros(12)
    for batch in LABELS[drawn].reshape(-1, 16):
        counts = np.bincount(batch, minlength=12)
        assert sorted(counts[counts > 0]) == [4, 4, 4, 4]
        shares += (counts > 0) / 3000
    np.testing.assert_allclose(shares_of_classes(pk()), shares, atol=0.05)


def test_a_rate_draws_the_classes_of_its_set_more_often() -> None:
    rates = np.where(LABELS < 3, 4.0, 1.0)
    sampler = PKSampler(LABELS, 4, pictures_per_class=4, seed=SEED, rates=rates)
    shares = shares_of_classes(sampler)
    np.testing.assert_allclose(shares[:3], 4 / 21, atol=0.03)
    np.testing.assert_allclose(shares[3:], 1 / 21, atol=0.03)


def test_classes_that_look_alike_are_drawn_together() -> None:
    """A class drawn by chance, then those nearest to it by brute force; none twice."""
    directions = np.random.default_rng(SEED).normal(size=(12, 8)).astype(np.float32)
    cosine = np.zeros((12, 12))
    for i, one in enumerate(directions):
        for j, other in enumerate(directions):
            cosine[i, j] = one @ other / np.sqrt((one @ one) * (other @ other))
    sampler = pk(look_alikes=2)
    alone = [LABELS[sampler.batch(0, number)][::4].tolist() for number in range(50)]
    sampler.see_classes(directions * np.arange(1, 13, dtype=np.float32)[:, None])  # length says nothing
    for number, drawn in enumerate(alone):
        together = LABELS[sampler.batch(0, number)][::4].tolist()
        assert len(set(together)) == 4
        wanted = []
        for label in drawn:
            wanted += [
                label,
                max((other for other in range(12) if other != label), key=lambda j: cosine[label, j]),
            ]
        assert together == list(dict.fromkeys(wanted))[:4]


def test_a_class_without_pictures_is_nobodys_look_alike() -> None:
    labels = np.repeat([0, 1, 3, 4], 4)  # 2 has none
    sampler = PKSampler(labels, 8, pictures_per_class=4, look_alikes=2, seed=SEED)
    sampler.see_classes(np.ones((5, 3), np.float32))
    for number in range(20):
        assert len(set(labels[sampler.batch(0, number)])) == 2


def test_batches_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(ValueError, match="found 8, wanted a multiple of the 3 processes"):
        ShuffledSampler(37, 8, seed=SEED, share=Share(0, 3))
    with pytest.raises(ValueError, match="found process 2 of 2"):
        shuffled(Share(2, 2))
    with pytest.raises(ValueError, match="found 16, wanted a multiple of 4 pictures a class in 8 processes"):
        pk(Share(0, 8))
    with pytest.raises(ValueError, match="found 12 classes, wanted 16 or more"):
        PKSampler(LABELS, 64, pictures_per_class=4, seed=SEED)
