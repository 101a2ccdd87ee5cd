"""Two embedders at once: both learn, or the teacher stays as it is; only the student is judged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import EMBEDDER, PAIR, same_weights, trained, written
from training.checkpoint import Checkpoint
from training.curves import read_rows
from training.data.augment import normalised
from training.networks import open_embedder_checkpoint
from training.train import main
from training.train_pair import Pair

PLAIN = EMBEDDER.replace("epochs = 4", "epochs = 1").replace("TripletAngularMargin = {{}}", "")
SSLD = PAIR.replace("UDML", "SSLD").replace("epochs = 2", "epochs = 1")


@pytest.fixture(scope="module")
def udml(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    config = written(tmp_path_factory.mktemp("udml"), PAIR)
    return config.parent / "run", trained(config)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    config = written(tmp_path_factory.mktemp("teacher"), PLAIN)
    return config.parent / "run" / "latest.pt", trained(config)


def test_both_of_a_pair_start_otherwise_and_learn(udml: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    folder, end = udml
    still = ("-o", "optimiser.learning_rate=1e-30", "-o", "epochs=1")
    begun = trained(written(tmp_path, PAIR), *still)
    assert begun.teacher is not None
    assert end.teacher is not None
    name = "backbone.last_conv.weight"
    assert not torch.equal(begun.weights[name], begun.teacher[name])
    assert not torch.equal(end.weights[name], begun.weights[name])
    assert not torch.equal(end.teacher[name], begun.teacher[name])
    assert all(0 <= row["agreement"] <= 1 for row in read_rows(folder / "metrics.csv"))


def test_a_pair_goes_on_as_if_it_had_never_stopped(udml: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    config = written(tmp_path, PAIR)
    trained(config, "--until-epoch", "1")
    end = trained(config, "--resume")
    assert same_weights(end, udml[1])
    assert end.teacher is not None
    assert udml[1].teacher is not None
    assert all(torch.equal(value, udml[1].teacher[name]) for name, value in end.teacher.items())


def test_the_student_is_what_a_pairs_checkpoint_embeds_with(udml: tuple[Path, Checkpoint]) -> None:
    folder, end = udml
    network, _, _ = open_embedder_checkpoint(folder / "latest.pt")
    assert torch.equal(
        network.state_dict()["backbone.last_conv.weight"], end.weights["backbone.last_conv.weight"]
    )


def test_a_fixed_teacher_stays_as_it_is(teacher: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    path, before = teacher
    end = trained(written(tmp_path, SSLD), "-o", f"teacher_checkpoint={path}")
    assert end.teacher is not None
    assert all(torch.equal(value, before.weights[name]) for name, value in end.teacher.items())


def test_a_student_of_another_architecture_learns_from_what_its_teacher_says_of_the_same_pictures(
    teacher: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    path, before = teacher
    arguments = ("-o", f"teacher_checkpoint={path}", "-o", "model.backbone={name='EfficientNetLite'}")
    end = trained(written(tmp_path, SSLD), *arguments)
    assert all(torch.equal(value, before.weights[name]) for name, value in (end.teacher or {}).items())
    fixed, _, _ = open_embedder_checkpoint(path)
    student, _, _ = open_embedder_checkpoint(tmp_path / "run" / "latest.pt")
    assert student.backbone.normalisation != fixed.backbone.normalisation
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    given, wanted = (normalised(picture, one.backbone.normalisation)[None] for one in (student, fixed))
    _, said = Pair(student, fixed, is_fixed=True).eval()(given)
    torch.testing.assert_close(said.logits, fixed.eval()(wanted).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("data.train.0.products=9", "tells 8 classes apart, the data has 9"),
        ("model.head.name=ArcMargin", "a margin head gives plain cosines in inference"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    teacher: tuple[Path, Checkpoint],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    override: str,
    wanted: str,
) -> None:
    arguments = ["-c", str(written(tmp_path, SSLD)), "-o", f"teacher_checkpoint={teacher[0]}", "-o", override]
    assert main(arguments) == 1
    assert wanted in capsys.readouterr().err
