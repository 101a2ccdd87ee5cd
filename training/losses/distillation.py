"""Losses between two embedders on the same pictures: DML and U-DML, which train both; SSLD's and regression, with a
fixed teacher.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.losses.classification import logits_of
from training.losses.precision import full_precision

if TYPE_CHECKING:
    from training.models.embedder import EmbedderOutput


def mutual_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The DML loss of PP-ShiTu (2021), equations 3 and 4: (KL(S || T) + KL(T || S)) / 2 of the two softmaxes.

    The gradient goes into both, for both are updated at once; in DML's own paper (Zhang et al. 2017) they take turns.
    Computed on log-probabilities: upstream takes the log of a softmax that may have become 0.

    Args:
        student_logits: (N, C), of a margin head with margin and scale.
        teacher_logits: (N, C).
    Returns:
        Scalar, at least 0: summed over classes, averaged over pictures.
    """
    student = full_precision(student_logits).log_softmax(dim=1)
    teacher = full_precision(teacher_logits).log_softmax(dim=1)
    # Both sums at once: sum of s (log s - log t) + t (log t - log s).
    return ((student.exp() - teacher.exp()) * (student - teacher)).sum(dim=1).mean() / 2


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """SSLD's loss (Cui et al., "Beyond Self-Supervision", arXiv 2103.05959): Jensen-Shannon divergence of softmaxes.

    (KL(S || M) + KL(T || M)) / 2 with M = (S + T) / 2, at temperature 1. Paper and documents name this divergence; the
    early PaddleClas's `JSDivLoss` in fact computes (KL(S || T) + KL(T || S)) / 2, times the number of classes and
    summed over the batch. We follow the paper; the other is `mutual_divergence`, up to that factor.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C); no gradient goes into them.
    Returns:
        Scalar in 0 to log(2): summed over classes, averaged over pictures.
    """
    student = full_precision(student_logits).log_softmax(dim=1)
    teacher = full_precision(teacher_logits).detach().log_softmax(dim=1)
    middle = torch.logaddexp(student, teacher) - math.log(2)
    to_student = functional.kl_div(middle, student, reduction="batchmean", log_target=True)
    to_teacher = functional.kl_div(middle, teacher, reduction="batchmean", log_target=True)
    return (to_student + to_teacher) / 2


class DeepMutualLearning(nn.Module):
    """DML as PP-ShiTu trains it: both networks learn from the labels and from each other.

    Equation 2 (cross-entropy of both, added, not averaged) and equation 3. Both weights are 1 in
    `GeneralRecognition_PPLCNet_x2_5_dml.yaml`.
    """

    def __init__(self, *, label_weight: float = 1.0, mutual_weight: float = 1.0) -> None:
        super().__init__()
        self.label_weight = label_weight
        self.mutual_weight = mutual_weight

    def forward(self, student: EmbedderOutput, teacher: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from the logits (N, C) of both and labels (N,)."""
        student_logits, teacher_logits = logits_of(student), logits_of(teacher)
        by_labels = functional.cross_entropy(
            full_precision(student_logits), labels
        ) + functional.cross_entropy(full_precision(teacher_logits), labels)
        mutual = mutual_divergence(student_logits, teacher_logits)
        return self.label_weight * by_labels + self.mutual_weight * mutual


class UnifiedDeepMutualLearning(DeepMutualLearning):
    """U-DML: DML, and the two backbones shall agree too (PP-ShiTu, equations 5 and 6).

    "L2" in equation 5 is the mean squared error, over pictures and channels, between what the backbones gave. The two
    are of one architecture, so nothing is fitted between them. All weights are 1 in
    `GeneralRecognition_PPLCNet_x2_5_udml.yaml`, and the gradient goes into both.
    """

    def __init__(
        self, *, label_weight: float = 1.0, mutual_weight: float = 1.0, backbone_weight: float = 1.0
    ) -> None:
        super().__init__(label_weight=label_weight, mutual_weight=mutual_weight)
        self.backbone_weight = backbone_weight

    def forward(self, student: EmbedderOutput, teacher: EmbedderOutput, labels: Tensor) -> Tensor:
        """Scalar, from logits (N, C) and backbone outputs (N, B) of both and labels (N,)."""
        agreement = functional.mse_loss(full_precision(student.backbone), full_precision(teacher.backbone))
        return super().forward(student, teacher, labels) + self.backbone_weight * agreement


class SoftLabelDistillation(nn.Module):
    """SSLD's first stage: the student imitates a fixed teacher's soft labels, on pictures with or without labels.

    A short fine-tuning on the labelled set by cross-entropy follows it in the paper.
    """

    def forward(
        self, student: EmbedderOutput, teacher: EmbedderOutput, labels: Tensor | None = None
    ) -> Tensor:
        """Scalar, from the logits (N, C) of both; labels are taken, as of any such loss, and not looked at."""
        return jensen_shannon(logits_of(student), logits_of(teacher))


class EmbeddingRegression(nn.Module):
    """The student's embeddings shall be the teacher's (Budnik and Avrithis, arXiv 2006.16331, "regression").

    It trains no head: beside a loss that does, soft labels say which classes look alike, and it says where each picture
    lies.
    """

    def forward(
        self, student: EmbedderOutput, teacher: EmbedderOutput, labels: Tensor | None = None
    ) -> Tensor:
        """Scalar in 0 to 2: 1 - cosine of both embeddings (N, D), averaged over pictures.

        No gradient goes into the teacher; labels are not looked at.

        Raises:
            ValueError: the two are not of one dimension.
        """
        ours, theirs = student.embedding, teacher.embedding
        if ours.shape != theirs.shape:
            raise ValueError(
                f"found a student of {ours.shape[1]} values and a teacher of {theirs.shape[1]}, wanted as many: give"
                " the student's neck the teacher's dimension."
            )
        cosines = functional.cosine_similarity(full_precision(ours), full_precision(theirs).detach(), dim=1)
        return (1 - cosines).mean()
