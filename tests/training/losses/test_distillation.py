"""DML, U-DML, SSLD's loss and regression equal the papers' equations, and pull on the networks that they should."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.training.losses.outputs import HALF_PRECISIONS, output, random
from training.losses.distillation import (
    DeepMutualLearning,
    EmbeddingRegression,
    SoftLabelDistillation,
    UnifiedDeepMutualLearning,
    jensen_shannon,
    mutual_divergence,
)

LABELS = torch.tensor([0, 3, 2, 3])


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def divergence(p: list[float], q: list[float]) -> float:
    """KL(p || q)."""
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


def plain_mutual(student: list[list[float]], teacher: list[list[float]]) -> float:
    """PP-ShiTu, equations 3 and 4."""
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        s, t = softmax(student_row), softmax(teacher_row)
        total += (divergence(s, t) + divergence(t, s)) / 2
    return total / len(student)


def plain_jensen_shannon(student: list[list[float]], teacher: list[list[float]]) -> float:
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        s, t = softmax(student_row), softmax(teacher_row)
        middle = [(x + y) / 2 for x, y in zip(s, t, strict=True)]
        total += (divergence(s, middle) + divergence(t, middle)) / 2
    return total / len(student)


def plain_cross_entropy(logits: list[list[float]], labels: list[int]) -> float:
    return -sum(math.log(softmax(row)[label]) for row, label in zip(logits, labels, strict=True)) / len(
        labels
    )


def plain_squared_error(a: list[list[float]], b: list[list[float]]) -> float:
    errors = [(x - y) ** 2 for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True)]
    return sum(errors) / len(errors)


def pair() -> tuple[Tensor, Tensor]:
    return random(4, 5, seed=1, scale=2), random(4, 5, seed=2, scale=2)


def test_mutual_divergence_is_equation_3() -> None:
    student, teacher = pair()
    expected = plain_mutual(student.tolist(), teacher.tolist())
    assert mutual_divergence(student, teacher).item() == pytest.approx(expected)
    assert mutual_divergence(teacher, student).item() == pytest.approx(expected)


def test_jensen_shannon_is_its_formula_and_bounded() -> None:
    student, teacher = pair()
    expected = plain_jensen_shannon(student.tolist(), teacher.tolist())
    assert jensen_shannon(student, teacher).item() == pytest.approx(expected)
    assert jensen_shannon(teacher, student).item() == pytest.approx(expected)
    opposed = torch.tensor([[200.0, 0.0]])
    assert jensen_shannon(opposed, opposed.flip(1)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", [mutual_divergence, jensen_shannon])
def test_networks_that_agree_cost_nothing_and_a_constant_on_all_logits_changes_nothing(
    loss: nn.Module,
) -> None:
    student, teacher = pair()
    assert loss(student, student).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(loss(student + 7, teacher), loss(student, teacher))


def test_gradients_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(mutual_divergence, pair())
    student, teacher = pair()
    assert torch.autograd.gradcheck(lambda x: jensen_shannon(x, teacher), student)


def test_ssld_leaves_its_teacher_alone_and_does_not_look_at_labels() -> None:
    student, teacher = pair()
    loss = SoftLabelDistillation()
    found = loss(output(logits=student), output(logits=teacher), LABELS)
    found.backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert loss(output(logits=student), output(logits=teacher)) == found
    assert found.item() == pytest.approx(plain_jensen_shannon(student.tolist(), teacher.tolist()))


def test_regression_is_one_less_the_cosine_and_leaves_its_teacher_alone() -> None:
    student, teacher = random(4, 7, seed=3), random(4, 7, seed=4)
    found = EmbeddingRegression()(output(embedding=student), output(embedding=teacher), LABELS)
    found.backward()
    cosines = [
        sum(s * t for s, t in zip(mine, theirs, strict=True)) / (math.hypot(*mine) * math.hypot(*theirs))
        for mine, theirs in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert found.item() == pytest.approx(1 - sum(cosines) / 4)
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert EmbeddingRegression()(output(embedding=teacher), output(embedding=3 * teacher)).item() < 1e-6
    with pytest.raises(ValueError, match="a student of 7 values and a teacher of 5"):
        EmbeddingRegression()(output(embedding=student), output(embedding=teacher[:, :5]))


@pytest.mark.parametrize(("label_weight", "mutual_weight"), [(1.0, 1.0), (0.5, 2.0)])
def test_dml_is_equations_2_and_3_of_both_networks(label_weight: float, mutual_weight: float) -> None:
    student, teacher = pair()
    loss = DeepMutualLearning(label_weight=label_weight, mutual_weight=mutual_weight)
    found = loss(output(logits=student), output(logits=teacher), LABELS)
    s, t, labels = student.tolist(), teacher.tolist(), LABELS.tolist()
    by_labels = plain_cross_entropy(s, labels) + plain_cross_entropy(t, labels)
    assert found.item() == pytest.approx(label_weight * by_labels + mutual_weight * plain_mutual(s, t))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_udml_is_equation_6(weights: tuple[float, float, float]) -> None:
    student, teacher = pair()
    student_backbone, teacher_backbone = random(4, 7, seed=3), random(4, 7, seed=4)
    loss = UnifiedDeepMutualLearning(
        label_weight=weights[0], mutual_weight=weights[1], backbone_weight=weights[2]
    )
    found = loss(
        output(logits=student, backbone=student_backbone),
        output(logits=teacher, backbone=teacher_backbone),
        LABELS,
    )
    s, t, labels = student.tolist(), teacher.tolist(), LABELS.tolist()
    by_labels = plain_cross_entropy(s, labels) + plain_cross_entropy(t, labels)
    terms = (
        by_labels,
        plain_mutual(s, t),
        plain_squared_error(student_backbone.tolist(), teacher_backbone.tolist()),
    )
    assert found.item() == pytest.approx(
        sum(weight * term for weight, term in zip(weights, terms, strict=True))
    )


def test_udml_trains_both_networks_alike() -> None:
    student, teacher = pair()
    student_backbone, teacher_backbone = random(4, 7, seed=3), random(4, 7, seed=4)
    for mine, theirs in ((student_backbone, teacher_backbone), (teacher_backbone, student_backbone)):
        loss = UnifiedDeepMutualLearning()(
            output(logits=student, backbone=mine), output(logits=teacher, backbone=theirs), LABELS
        )
        found = torch.autograd.grad(loss, (mine, theirs, student, teacher))
        torch.testing.assert_close(found[0], 2 * (mine - theirs).detach() / mine.numel())
        torch.testing.assert_close(found[1], -found[0])
        assert all(gradient.abs().sum() > 0 for gradient in found[2:])


def test_a_batch_of_one() -> None:
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, -1.0]])
    assert mutual_divergence(student, teacher).item() == pytest.approx(
        plain_mutual(student.tolist(), teacher.tolist())
    )
    assert jensen_shannon(student, teacher).item() == pytest.approx(
        plain_jensen_shannon(student.tolist(), teacher.tolist())
    )


@pytest.mark.parametrize("dtype", HALF_PRECISIONS)
@pytest.mark.parametrize("loss", [UnifiedDeepMutualLearning(), SoftLabelDistillation()])
def test_half_precision_and_certain_networks_stay_finite(loss: nn.Module, dtype: torch.dtype) -> None:
    # A margin head's logits reach +-30, where float16's softmax is 0 and its log is infinite.
    student = torch.tensor([[30.0, -30.0], [-30.0, 30.0]], dtype=dtype).requires_grad_()
    teacher = student.detach().flip(1).requires_grad_()
    backbones = torch.full((2, 3), 300.0, dtype=dtype), torch.full((2, 3), -300.0, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(
            output(logits=student, backbone=backbones[0]),
            output(logits=teacher, backbone=backbones[1]),
            torch.tensor([0, 1]),
        )
    found.backward()
    assert found.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", [DeepMutualLearning(), UnifiedDeepMutualLearning(), SoftLabelDistillation()])
def test_networks_without_heads_are_told_so(loss: nn.Module) -> None:
    backbone = torch.zeros(4, 7)
    with pytest.raises(ValueError, match="give the model a head"):
        loss(output(backbone=backbone), output(backbone=backbone), LABELS)
