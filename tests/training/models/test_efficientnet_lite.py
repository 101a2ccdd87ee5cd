"""The network has the published shape, and takes the published weights wholly or not at all."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.efficientnet_lite import (
    SCALES,
    CheckpointMismatch,
    ConvNorm,
    EfficientNetLite,
    load_imagenet_trunk,
    load_published_weights,
    published_key,
    read_checkpoint,
    same_padding,
)

# Google's announcement ("Higher accuracy on vision models with EfficientNet-Lite", 2020), in millions, with classifier.
PUBLISHED_PARAMETERS = {"lite0": 4.652, "lite1": 5.417, "lite2": 6.092, "lite3": 8.197, "lite4": 13.007}


@pytest.mark.parametrize("name", SCALES)
def test_each_scale_has_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = EfficientNetLite(SCALES[name])
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED_PARAMETERS[name], abs=5e-4)


def shapes_behind_each_block(model: EfficientNetLite, side: int) -> list[tuple[int, int]]:
    """(channels, side) behind the stem and each block, without computing anything."""
    shapes = []
    x = model.stem(torch.zeros(1, 3, side, side, device="meta"))
    shapes.append((x.shape[1], x.shape[2]))
    for block in model.blocks:
        x = block(x)
        shapes.append((x.shape[1], x.shape[2]))
    return shapes


def test_lite0_narrows_the_picture_as_table_1_of_the_paper_says() -> None:
    with torch.device("meta"):
        model = EfficientNetLite(SCALES["lite0"])
    assert shapes_behind_each_block(model, 224) == (
        [(32, 112), (16, 112)]
        + [(24, 56)] * 2
        + [(40, 28)] * 2
        + [(80, 14)] * 3
        + [(112, 14)] * 3
        + [(192, 7)] * 4
        + [(320, 7)]
    )
    assert model.features(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 1280, 7, 7)


def test_lite2_is_wider_and_deeper_but_not_at_its_ends() -> None:
    with torch.device("meta"):
        model = EfficientNetLite(SCALES["lite2"])
    assert shapes_behind_each_block(model, 260) == (
        [(32, 130), (16, 130)]
        + [(24, 65)] * 3
        + [(48, 33)] * 3
        + [(88, 17)] * 4
        + [(120, 17)] * 4
        + [(208, 9)] * 5
        + [(352, 9)]
    )


@pytest.mark.parametrize("size", [7, 8, 33, 65, 224, 260])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_gives_every_stride_its_output_and_pads_behind_first(
    size: int, kernel: int, stride: int
) -> None:
    before, after = same_padding(size, kernel, stride)
    assert (before + size + after - kernel) // stride + 1 == -(-size // stride)
    assert after - before in (0, 1)


def test_padding_follows_tensorflow_where_pytorchs_own_would_not() -> None:
    # At stride 2 over an even size TensorFlow's first window starts at the first pixel, PyTorch's one before it.
    layer = ConvNorm(1, 1, kernel=3, stride=2, linear=True).eval()
    nn.init.zeros_(layer.conv.weight)
    layer.conv.weight.data[0, 0, 0, 0] = 1.0  # picks the top left of each window
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    with torch.inference_mode():
        found = layer(picture) * (1 + layer.norm.eps) ** 0.5
    torch.testing.assert_close(found, functional.avg_pool2d(picture, 1, 2))


def published_state(name: str) -> tuple[EfficientNetLite, dict[str, Tensor]]:
    model = EfficientNetLite(SCALES[name])
    return model, {published_key(key): tensor.clone() for key, tensor in model.state_dict().items()}


def test_weights_of_the_published_names_arrive_where_they_belong() -> None:
    model, weights = published_state("lite0")
    weights["_blocks.3._project_conv.weight"] += 1.0
    before = model.blocks[3].project.conv.weight.clone()
    load_published_weights(model, weights)
    torch.testing.assert_close(model.blocks[3].project.conv.weight, before + 1.0)


def test_a_checkpoint_that_does_not_fit_is_refused_and_every_key_named() -> None:
    model, weights = published_state("lite0")
    before = model.stem.conv.weight.clone()
    weights["_conv_stem.weight"] += 1.0
    del weights["_blocks.7._bn1.running_var"]
    weights["_blocks.99._bn1.bias"] = torch.zeros(1)
    weights["_fc.bias"] = torch.zeros(10)
    with pytest.raises(CheckpointMismatch) as refused:
        load_published_weights(model, weights)
    said = str(refused.value)
    assert "missing _blocks.7._bn1.running_var" in said
    assert "unexpected _blocks.99._bn1.bias" in said
    assert "_fc.bias is (10,), wanted (1000,)" in said
    assert torch.equal(model.stem.conv.weight, before)


def test_another_scales_checkpoint_is_refused() -> None:
    _, weights = published_state("lite2")
    with pytest.raises(CheckpointMismatch, match="EfficientNet-lite0"):
        load_published_weights(EfficientNetLite(SCALES["lite0"]), weights)


class Rogue:
    """An object that would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("never"),))


def test_a_checkpoint_with_code_in_it_is_refused_unrun(tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": Rogue()}, tmp_path / "rogue.pth")
    with pytest.raises(CheckpointMismatch, match="not a checkpoint of plain tensors"):
        read_checkpoint(tmp_path / "rogue.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointMismatch):
        read_checkpoint(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointMismatch, match="dictionary"):
        read_checkpoint(tmp_path / "list.pth")


def test_a_scale_that_no_package_has_weights_of_is_refused() -> None:
    with pytest.raises(ValueError, match="found EfficientNet-lite1, wanted lite0 or lite2"):
        load_imagenet_trunk("lite1")
