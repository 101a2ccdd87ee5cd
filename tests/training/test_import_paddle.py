"""Published weights become model folders that serving takes, or are refused with every name that does not fit."""

from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from django.core.management import call_command
from PIL import Image

from backend.gallery import generations
from backend.gallery.loading import get_gallery
from backend.gallery.selectors import get_active_generation
from recognition.detector import open_detector
from recognition.embedder import open_embedder
from recognition.images import DecodedImage
from recognition.model_card import load_model_folder
from recognition.sessions import SessionSettings
from tests.training.published_weights import DATA, REFERENCES, weights_of, write
from tests.training.seeded_weights import seeded_picture
from training.export import DetectorGraph, ExportRefused, check_against_pytorch, cosines
from training.import_paddle import (
    BIN_VALUES,
    PUBLISHED,
    build,
    describe,
    import_paddle,
    load_published,
    main,
    published_name,
    start_from_imagenet,
)
from training.models.picodet import PicoDet
from training.models.pplcnet import PPLCNet, PPLCNetTrunk
from training.models.pplcnet_v2 import PPLCNetV2ShiTu
from training.pdparams import WeightsRefused

WRITTEN_BY_PADDLE = DATA / "pplcnet_x0_25.pdparams"
DETECTOR = "picodet_lcnet_x2_5_640_mainbody"


@pytest.mark.parametrize("model", PUBLISHED)
def test_every_name_of_the_published_model_is_taken_or_known(model: str) -> None:
    weights = weights_of(model)
    published = PUBLISHED[model]
    network = published.build(published.scale, weights)
    imported = load_published(network, published, weights)
    taken = {
        published_name(key, published)
        for key in network.state_dict()
        if not key.endswith("num_batches_tracked")
    }
    assert taken | set(imported.dropped) | set(imported.unused) == set(weights)


def test_missing_extra_and_misshaped_names_are_all_listed_and_nothing_is_taken() -> None:
    published = PUBLISHED["general_rec_v2"]
    weights = weights_of("general_rec_v2")
    network = published.build(1.0, weights)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    del weights["backbone.stages.2.3.se.conv1.bias"]
    weights["backbone.stages.9.0.dw_conv.conv.weight"] = np.zeros(1, np.float32)
    weights["backbone.last_conv.weight"] = weights["backbone.last_conv.weight"][:256]
    weights["neck.feat_bn._mean"] = weights["neck.feat_bn._mean"] / np.float32(0)
    weights["backbone.last_conv.bias"] = np.zeros(512, np.int64)  # type: ignore[assignment]
    with pytest.raises(WeightsRefused) as refused:
        load_published(network, published, weights)
    said = str(refused.value)
    assert "missing backbone.stages.2.3.se.conv1.bias" in said
    assert "unexpected backbone.stages.9.0.dw_conv.conv.weight" in said
    assert "backbone.last_conv.weight is (256, 1024, 1, 1), wanted (512, 1024, 1, 1)" in said
    assert "neck.feat_bn._mean holds infinity or not-a-number" in said
    assert "backbone.last_conv.bias is made of int64" in said
    assert all((tensor == before[key]).all() for key, tensor in network.state_dict().items())


def test_weights_of_another_model_are_refused() -> None:
    published = PUBLISHED["general_rec_v1"]
    weights = weights_of("pplcnet_x2_5")
    with pytest.raises(WeightsRefused, match=r"missing backbone\.conv1\.conv\.weight"):
        load_published(published.build(2.5, weights), published, weights)


def test_what_stands_in_the_fused_slots_does_not_matter() -> None:
    published = PUBLISHED["general_rec_v2"]
    weights = weights_of("general_rec_v2")
    slot = "backbone.stages.2.0.dw_conv.weight"
    weights[slot] = np.full_like(weights[slot], np.nan)
    network = published.build(1.0, weights)
    imported = load_published(network, published, weights)
    assert slot in imported.unused
    assert len(imported.unused) == 16
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_a_detector_with_other_bins_is_refused() -> None:
    published = PUBLISHED[DETECTOR]
    weights = weights_of("picodet_lcnet_x0_25")
    weights[BIN_VALUES] = weights[BIN_VALUES] * 2
    with pytest.raises(WeightsRefused, match="no other bins"):
        load_published(published.build(0.25, weights), published, weights)


def test_a_training_starts_from_the_published_classifier(tmp_path: Path) -> None:
    weights = weights_of("pplcnetv2_base")
    file = write(tmp_path / "v2.pdparams", weights)
    backbone = PPLCNetV2ShiTu()
    left = start_from_imagenet(backbone, file)
    assert {name.removeprefix("stages.3.0.dw_conv_list.2.") for name in left} == {
        *("conv.weight", "bn.weight", "bn.bias", "bn._mean", "bn._variance"),
        *("last_conv.weight", "last_conv.bias"),
    }
    taken = backbone.trunk.stages[3][1].depthwise.branches[2].norm.running_var
    np.testing.assert_array_equal(taken, weights["stages.3.1.dw_conv_list.2.bn._variance"])
    assert start_from_imagenet(PPLCNetTrunk(scale=0.25), WRITTEN_BY_PADDLE) == []
    assert start_from_imagenet(PPLCNet(scale=0.25), WRITTEN_BY_PADDLE) == []
    with pytest.raises(WeightsRefused, match=r"missing stages\.0\.0"):
        start_from_imagenet(PPLCNetV2ShiTu(), WRITTEN_BY_PADDLE)
    with pytest.raises(WeightsRefused, match="PicoDet has no published ImageNet weights"):
        start_from_imagenet(PicoDet(PPLCNetTrunk(scale=0.25)), WRITTEN_BY_PADDLE)


@pytest.fixture(scope="module")
def small_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "small"
    with redirect_stdout(StringIO()) as said:
        main(["--model", "pplcnet_x0_25", "--weights", str(WRITTEN_BY_PADDLE), "--out", str(out)])
    assert "dropped fc.weight: it tells the classes of the training apart" in said.getvalue()
    return out


@pytest.mark.parametrize("provider", ["openvino", "cpu"])
def test_paddles_file_becomes_a_folder_that_embeds_a_picture_as_the_original(
    small_embedder: Path, provider: str
) -> None:
    """The reference is of the same weights, its picture resized by OpenCV."""
    folder = load_model_folder(small_embedder)
    assert (folder.card.licence, folder.card.dimension) == ("Apache-2.0", 1280)
    assert folder.card.command.endswith("--model pplcnet_x0_25 --weights pplcnet_x0_25.pdparams")
    twin = replace(folder, card=replace(folder.card, provider=provider))
    embedder = open_embedder(twin, SessionSettings(allow_cpu_fallback=False))
    found = embedder.embed([seeded_picture()])
    assert cosines(found.vectors, REFERENCES["pplcnet_x0_25/picture"]).min() >= 0.9999


def test_the_folder_names_no_place_on_the_machine_that_made_it(small_embedder: Path) -> None:
    written = (small_embedder / "model.onnx").read_bytes() + (small_embedder / "card.json").read_bytes()
    assert b".py" not in written
    assert str(DATA).encode() not in written


def test_a_classifier_of_the_training_classes_is_dropped_and_a_side_that_does_not_fit_refused(
    tmp_path: Path,
) -> None:
    weights = weights_of("general_rec_v1")
    weights["head.weight"] = np.zeros((512, 7), np.float32)
    published = PUBLISHED["general_rec_v1"]
    assert load_published(published.build(2.5, weights), published, weights).dropped == ["head.weight"]
    with pytest.raises(ExportRefused, match="--side: found 100, wanted a multiple of 32"):
        import_paddle("pplcnet_x0_25", WRITTEN_BY_PADDLE, tmp_path / "out", side=100)


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ExportRefused, match="already"):
        import_paddle("pplcnet_x0_25", WRITTEN_BY_PADDLE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_command_line_refuses_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>")
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"refused: .*page: found no whole file of weights"):
        main(["--model", "general_rec_v2", "--weights", str(tmp_path / "page"), "--out", str(out)])
    assert not out.exists()


@pytest.fixture(scope="module")
def small_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PicoDet on the narrowest trunk, with one class, at 640."""
    root = tmp_path_factory.mktemp("models")
    weights = weights_of("picodet_lcnet_x0_25")
    for level in range(4):
        name = f"head.head_cls{level}"
        for kind in ("weight", "bias"):
            weights[f"{name}.{kind}"] = weights[f"{name}.{kind}"][2:]  # the last of its three classes
    file = write(root / "detector.pdparams", weights)
    import_paddle(DETECTOR, file, root / "small", scale=0.25)
    return root / "small"


def test_a_detector_gives_8500_boxes_and_scores_at_640(small_detector: Path) -> None:
    folder = load_model_folder(small_detector)
    assert (folder.card.name, folder.card.input.width) == (f"{DETECTOR}-x0.25", 640)
    assert folder.card.resize.interpolation == "bicubic"
    detector = open_detector(folder, SessionSettings())
    outputs = detector._session.run({"pixels": np.zeros((1, 3, 640, 640), np.float32)})
    assert outputs["boxes"].shape == (1, 8500, 4)
    assert outputs["scores"].shape == (1, 8500, 1)
    assert 0 <= outputs["scores"].min() <= outputs["scores"].max() <= 1
    picture = seeded_picture()
    found = detector.detect(DecodedImage(picture, picture.shape[1], picture.shape[0], "PNG"))
    assert 0 < len(found) <= 100


def test_a_detectors_proof_is_its_boxes_and_scores(small_detector: Path) -> None:
    file = small_detector.parent / "detector.pdparams"
    network, _ = build(DETECTOR, file, scale=0.25)
    assert isinstance(network, PicoDet)
    folder, pictures = load_model_folder(small_detector), [seeded_picture()]
    assert check_against_pytorch(DetectorGraph(network), folder, pictures) < 0.05
    network.heads[0].predict.bias.data[0] += 0.1
    with pytest.raises(ExportRefused, match=r"and 0\.\d+ in scores, wanted at most 0\.5 and 0\.001"):
        check_against_pytorch(DetectorGraph(network), folder, pictures)


def test_a_detector_of_several_classes_says_so_in_its_card() -> None:
    network = PicoDet(PPLCNetTrunk(scale=0.25), n_classes=3)
    card = describe(DETECTOR, network, WRITTEN_BY_PADDLE, scale=0.25, side=128, version="2")
    assert card.detection is not None
    assert len(card.detection.classes) == 3
    assert (card.name, card.version) == (f"{DETECTOR}-x0.25-128", "2")


@pytest.mark.django_db
def test_general_rec_v2_is_installed_activated_and_recognises(
    tmp_path: Path, small_detector: Path, settings, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    settings.MODELS_ROOT, settings.MEDIA_ROOT = tmp_path / "models", tmp_path / "media"
    monkeypatch.setattr(generations, "_collection_name", lambda _: f"test_import_{uuid4().hex}")
    file = write(tmp_path / "general_rec_v2.pdparams", weights_of("general_rec_v2"))
    import_paddle("general_rec_v2", file, tmp_path / "v2")
    call_command("install_model", tmp_path / "v2", "--activate")
    call_command("install_model", small_detector, "--activate")
    generation = get_active_generation()
    assert generation is not None
    try:
        Image.fromarray(seeded_picture()).save(tmp_path / "query.png")
        call_command("recognise", tmp_path / "query.png", "--json", tmp_path / "answer.json")
        assert "general_rec_v2" in (tmp_path / "answer.json").read_text()
    finally:
        get_gallery(generation).drop()
    assert "general_rec_v2" in capsys.readouterr().out
