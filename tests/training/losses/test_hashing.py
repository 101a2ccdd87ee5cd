"""The hash losses equal their formulas, and mean what they say about codes of -1 and 1."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.training.losses.outputs import HALF_PRECISIONS, output, random
from training.losses.hashing import (
    DCH,
    DSHSD,
    LCDSH,
    AnglePreservation,
    angle_preservation,
    dch,
    dshsd,
    lcdsh,
)

LABELS = torch.tensor([0, 0, 1, 1, 1, 2])
N_BITS = 12


def codes() -> Tensor:
    return random(6, N_BITS).detach().tanh().requires_grad_()


def logits() -> Tensor:
    return random(6, 3, seed=1)


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def plain_dshsd(
    codes: list[list[float]], logits: list[list[float]], labels: list[int], alpha: float, margin: float
) -> float:
    contrast = 0.0
    for a, label in zip(codes, labels, strict=True):
        for b, other in zip(codes, labels, strict=True):
            squared = math.dist(a, b) ** 2
            contrast += squared / 2 if label == other else max(0, margin - squared) / 2
    cross_entropy = 0.0
    for row, label in zip(logits, labels, strict=True):
        cross_entropy -= math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
    return cross_entropy / len(codes) + alpha * contrast / len(codes) ** 2


def plain_lcdsh(codes: list[list[float]], labels: list[int], weight: float) -> float:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def sign(row: list[float]) -> list[float]:
        return [float((value > 0) - (value < 0)) for value in row]

    likelihood = quantisation = 0.0
    for a, label in zip(codes, labels, strict=True):
        for b, other in zip(codes, labels, strict=True):
            product = max(-50, min(50, dot(a, b) / 2))
            likelihood += math.log(1 + math.exp(-product if label == other else product))
            quantisation += (sigmoid(product) - sigmoid(dot(sign(a), sign(b)) / 2)) ** 2
    return (likelihood + weight * quantisation) / len(codes) ** 2


def plain_dch(codes: list[list[float]], labels: list[int], gamma: float, weight: float) -> float:
    def distance(a: list[float], b: list[float]) -> float:
        cosine = dot(a, b) / max(math.hypot(*a) * math.hypot(*b), 1e-4)
        return (1 - min(cosine, 0.99)) * len(a) / 2

    n_pairs = len(codes) ** 2
    n_same = sum(a == b for a in labels for b in labels)
    cauchy = quantisation = 0.0
    for a, label in zip(codes, labels, strict=True):
        for b, other in zip(codes, labels, strict=True):
            d = distance(a, b)
            if label == other:
                cauchy += n_pairs / n_same * (math.log(d / gamma) + math.log(1 + gamma / d))
            else:
                cauchy += n_pairs / (n_pairs - n_same) * math.log(1 + gamma / d)
        quantisation += math.log(1 + distance([abs(value) for value in a], [1.0] * len(a)) / gamma)
    return cauchy / n_pairs + weight * quantisation / len(codes)


@pytest.mark.parametrize(("alpha", "margin"), [(0.05, None), (1.0, 3.0)])
def test_dshsd_is_its_formula(alpha: float, margin: float | None) -> None:
    x, y = codes(), logits()
    found = DSHSD(alpha=alpha, margin=margin)(output(embedding=x, logits=y), LABELS)
    plain_margin = 2 * N_BITS if margin is None else margin
    expected = plain_dshsd(x.tolist(), y.tolist(), LABELS.tolist(), alpha, plain_margin)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [3.0, 0.5])
@pytest.mark.parametrize("scale", [1, 20])  # 20: products beyond the cut at 50
def test_lcdsh_is_its_formula(weight: float, scale: float) -> None:
    x = codes() * scale
    found = LCDSH(quantisation_weight=weight)(output(embedding=x), LABELS)
    assert found.item() == pytest.approx(plain_lcdsh(x.tolist(), LABELS.tolist(), weight))


def test_angle_preservation_is_its_formula() -> None:
    values, embeddings = random(6, N_BITS, seed=2), random(6, 5, seed=3)
    found = AnglePreservation()(output(backbone=embeddings, embedding=values), LABELS)
    expected = 0.0
    for a, e in zip(values.tolist(), embeddings.tolist(), strict=True):
        for b, f in zip(values.tolist(), embeddings.tolist(), strict=True):
            differing = sum((x > 0) != (y > 0) for x, y in zip(a, b, strict=True))
            cosine = dot(e, f) / (math.hypot(*e) * math.hypot(*f))
            target = 1 - 2 * math.acos(min(cosine, 1)) / math.pi
            expected += (1 - 2 * differing / N_BITS - target) ** 2
    assert found.item() == pytest.approx(expected / 36, abs=1e-5)  # the cut at the diagonal


def test_angle_preservation_passes_a_signs_gradient_within_1_and_leaves_the_embedding_alone() -> None:
    values = torch.tensor([[0.5, -3.0], [-0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    embeddings = random(2, 5)
    angle_preservation(values, embeddings).backward()
    assert embeddings.grad is None
    # Signs (1, -1) and (-1, 1): similarity -1, off by d = -1 - target in both ordered pairs of the two; the pairs of
    # each with itself are right. With s = sum_k b_ik b_jk / 2 the slope of the mean by b_ik is 2 (d b_jk) / 4.
    cosine = torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1], dim=0)
    d = (-1 - (1 - 2 * cosine.arccos() / math.pi)).item()
    expected = torch.tensor([[-d / 2, 0.0], [d / 2, -d / 2]], dtype=torch.float64)
    assert values.grad is not None
    torch.testing.assert_close(values.grad, expected, atol=1e-3, rtol=0)  # as above, the cut at the diagonal


def test_learned_codes_keep_angles_better_than_random_hyperplanes() -> None:
    # Embeddings that lie in a few directions of many, as real ones do.
    embeddings = (random(200, 6, seed=4) @ random(6, 64, seed=5)).detach()
    plane = torch.nn.Linear(64, 128).double()
    torch.nn.init.normal_(plane.weight, generator=torch.Generator().manual_seed(6))
    torch.nn.init.zeros_(plane.bias)
    optimizer = torch.optim.Adam(plane.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = angle_preservation(plane(embeddings).tanh(), embeddings)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # By chance a bit differs with probability p: the variance of the similarity is 4 p (1 - p) / bits, at most 1 / 128.
    assert 0 < losses[0] < 1 / 128
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(("gamma", "weight"), [(20.0, 0.1), (3.0, 2.0)])
def test_dch_is_its_formula(gamma: float, weight: float) -> None:
    x = codes()
    found = DCH(gamma=gamma, quantisation_weight=weight)(output(embedding=x), LABELS)
    assert found.item() == pytest.approx(plain_dch(x.tolist(), LABELS.tolist(), gamma, weight))


def test_gradients_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda x, y: dshsd(x, y, LABELS), (codes(), logits()))
    assert torch.autograd.gradcheck(lambda x: lcdsh(x, LABELS), codes())
    assert torch.autograd.gradcheck(lambda x: dch(x, LABELS), codes())


def test_dshsd_of_512_bits_wants_1024_between_labels_as_pp_shitu_says() -> None:
    # Two codes that differ in d bits lie sqrt(4 d) apart: 256 differing bits meet the margin of 1024, 255 do not.
    certain = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    for n_differing, contrast in ((256, 0.0), (255, 4.0)):
        pair = torch.ones(2, 512)
        pair[1, :n_differing] = -1
        found = dshsd(pair, certain, torch.tensor([0, 1]))
        assert found.item() == pytest.approx(0.05 * 2 * contrast / 2 / 4, abs=1e-6)  # two of four pairs


def test_dch_measures_hamming_distance_on_codes() -> None:
    pair = torch.ones(2, 32)
    pair[1, :9] = -1
    found = dch(pair, torch.tensor([0, 1]), gamma=5, quantisation_weight=0)
    # Two pairs 9 bits apart with labels that differ, two of a code with itself: 0.01 * 32 / 2 bits by upstream's bound.
    expected = 2 / 4 * 2 * math.log(1 + 5 / 9) + 2 / 4 * 2 * math.log(1 + 0.16 / 5)
    assert found.item() == pytest.approx(expected)


def test_dch_has_no_gradient_where_codes_are_nearer_than_its_bound() -> None:
    near = torch.ones(2, 32, dtype=torch.float64)
    near[1, 0] = 0.9
    near.requires_grad_()
    dch(near, torch.tensor([0, 0]), quantisation_weight=0).backward()
    assert torch.equal(near.grad, torch.zeros(2, 32))


def test_lcdsh_has_no_gradient_where_products_are_cut_off() -> None:
    far = torch.full((2, 32), 2.0, dtype=torch.float64).requires_grad_()  # half the product is 64
    lcdsh(far, torch.tensor([0, 1])).backward()
    assert torch.equal(far.grad, torch.zeros(2, 32))


LOSSES = (DSHSD(), LCDSH(), DCH())


@pytest.mark.parametrize("loss", LOSSES)
def test_following_the_gradient_gathers_labels_and_parts_them(loss: nn.Module) -> None:
    raw = random(6, N_BITS).detach().requires_grad_()
    head = random(N_BITS, 3, seed=1)
    same = LABELS[:, None] == LABELS[None]

    def separation() -> float:
        bits = raw.detach().sign()
        differing = (N_BITS - bits @ bits.T) / 2
        return (differing[~same].mean() - differing[same].mean()).item()

    before = separation()
    optimizer = torch.optim.Adam([raw, head], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        code = raw.tanh()
        loss(output(embedding=code, logits=code @ head), LABELS).backward()
        optimizer.step()
    assert separation() > max(before, N_BITS / 3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("x", "labels"),
    [
        (random(4, 8), torch.zeros(4, dtype=torch.int64)),  # one class
        (random(3, 8), torch.arange(3)),  # no positives but each with itself
        (random(1, 8), torch.tensor([2])),  # a batch of one
        (torch.ones(4, 8, dtype=torch.float64), torch.tensor([0, 0, 1, 1])),  # equal codes
        (torch.zeros(4, 8, dtype=torch.float64), torch.tensor([0, 0, 1, 1])),  # codes of nothing
    ],
    ids=["one class", "no positives", "batch of one", "equal codes", "zero codes"],
)
def test_edges_stay_finite(loss: nn.Module, x: Tensor, labels: Tensor) -> None:
    x = x.detach().clone().requires_grad_()
    found = loss(output(embedding=x, logits=torch.zeros(len(x), 3, dtype=x.dtype)), labels)
    found.backward()
    assert found.isfinite()
    assert found >= 0
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_dch_of_one_class_weighs_all_pairs_alike() -> None:
    x = codes()
    one_class = [3] * 6
    plain = sum(
        math.log(1 + (1 - min(dot(a, b) / (math.hypot(*a) * math.hypot(*b)), 0.99)) * N_BITS / 2 / 20)
        for a in x.tolist()
        for b in x.tolist()
    )
    found = dch(x, torch.tensor(one_class), quantisation_weight=0)
    assert found.item() == pytest.approx(plain / 36)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", HALF_PRECISIONS)
def test_half_precision_stays_finite_and_near(loss: nn.Module, dtype: torch.dtype) -> None:
    x = (random(6, 512).detach() * 30).to(dtype).requires_grad_()  # squared distances beyond float16
    y = logits().detach().to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(output(embedding=x, logits=y), LABELS)
    expected = loss(output(embedding=x.detach().double(), logits=y.double()), LABELS)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    found.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_dshsd_without_head_is_told_so() -> None:
    with pytest.raises(ValueError, match="give the model a head"):
        DSHSD()(output(embedding=torch.zeros(2, 3)), torch.tensor([0, 1]))
