"""What a configuration may name: each part of a model by its name, and nothing else."""

from torch import nn

from training.losses.classification import CrossEntropy
from training.losses.distillation import (
    DeepMutualLearning,
    EmbeddingRegression,
    SoftLabelDistillation,
    UnifiedDeepMutualLearning,
)
from training.losses.hashing import DCH, DSHSD, LCDSH, AnglePreservation
from training.losses.triplet import BatchHardTriplet, TripletAngularMargin
from training.models.efficientnet_lite import EfficientNetLiteBackbone, EfficientNetLiteTrunk
from training.models.embedder import Backbone, Head, Neck, Trunk
from training.models.heads import ArcMargin, CircleMargin, CosMargin, FCHead
from training.models.necks import BNNeck, FCNeck, HashNeck
from training.models.pplcnet import PPLCNet, PPLCNetTrunk
from training.models.pplcnet_v2 import PPLCNetV2, PPLCNetV2ShiTu
from training.models.resnet_vd import ResNet50Vd

# Made with keyword arguments alone.
BACKBONES: dict[str, type[Backbone]] = {
    "PPLCNet": PPLCNet,
    "PPLCNetV2": PPLCNetV2,
    "PPLCNetV2ShiTu": PPLCNetV2ShiTu,
    "ResNet50Vd": ResNet50Vd,
    "EfficientNetLite": EfficientNetLiteBackbone,
}

# A detector's; made with keyword arguments alone.
TRUNKS: dict[str, type[Trunk]] = {
    "PPLCNet": PPLCNetTrunk,
    "EfficientNetLite": EfficientNetLiteTrunk,
}

# Made with the backbone's out_channels and keyword arguments.
NECKS: dict[str, type[Neck]] = {
    "FC": FCNeck,
    "BNNeck": BNNeck,
    "Hash": HashNeck,
}

# Made with the embedding's dimension, n_classes and keyword arguments.
HEADS: dict[str, type[Head]] = {
    "FC": FCHead,
    "ArcMargin": ArcMargin,
    "CosMargin": CosMargin,
    "CircleMargin": CircleMargin,
}

# Of one embedder; made with keyword arguments alone, called with its output and the labels. DLBHC is not missing: it is
# CrossEntropy behind a Hash neck (training.losses.hashing).
LOSSES: dict[str, type[nn.Module]] = {
    "CrossEntropy": CrossEntropy,
    "TripletAngularMargin": TripletAngularMargin,
    "BatchHardTriplet": BatchHardTriplet,
    "DSHSD": DSHSD,
    "LCDSH": LCDSH,
    "AnglePreservation": AnglePreservation,
    "DCH": DCH,
}

# Those of an embedder's that compare logits, and so want a head; by the others one would not be trained.
LOSSES_OF_LOGITS = ("CrossEntropy", "DSHSD")

# Of a pair, all comparing logits; likewise, called with the student's output, the teacher's, and the labels.
DISTILLATION_LOSSES: dict[str, type[nn.Module]] = {
    "DML": DeepMutualLearning,
    "UDML": UnifiedDeepMutualLearning,
    "SSLD": SoftLabelDistillation,
    "Regression": EmbeddingRegression,
}
