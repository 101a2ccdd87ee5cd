"""The detector's program: its running mean is judged and kept, and it goes on as if it had never stopped."""

from pathlib import Path

import pytest
import torch

from tests.training.runs import DETECTOR, same_weights, trained, written
from training.checkpoint import Checkpoint
from training.curves import read_rows
from training.evaluate import main as evaluate
from training.networks import open_detector_checkpoint
from training.train import main


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    config = written(tmp_path_factory.mktemp("detector"), DETECTOR)
    return config.parent / "run", trained(config)


def test_the_figures_of_every_epoch_are_there(straight: tuple[Path, Checkpoint]) -> None:
    rows = read_rows(straight[0] / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    terms = ("varifocal", "generalised_iou", "distribution_focal")
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row[term] for term in terms))
        assert 0 <= row["AP"] <= row["AP50"] <= 1


def test_the_running_mean_is_what_inference_takes(straight: tuple[Path, Checkpoint]) -> None:
    folder, end = straight
    assert end.average is not None
    assert end.average["steps"] == 2  # it started anew before the second epoch
    network, _, _ = open_detector_checkpoint(folder / "latest.pt")
    name = "heads.0.predict.weight"
    mean = end.average["sums"][name] / end.average["mass"]
    torch.testing.assert_close(network.state_dict()[name], mean)
    assert not torch.equal(mean, end.weights[name])


def test_a_detector_goes_on_as_if_it_had_never_stopped(
    straight: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    config = written(tmp_path, DETECTOR)
    trained(config, "--until-epoch", "1")
    end = trained(config, "--resume")
    assert same_weights(end, straight[1])
    assert end.average is not None
    assert straight[1].average is not None
    sums = straight[1].average["sums"]
    assert all(torch.equal(value, sums[name]) for name, value in end.average["sums"].items())


def test_evaluation_of_the_checkpoint_gives_the_runs_own_figure(
    straight: tuple[Path, Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, end = straight
    assert evaluate(["--checkpoint", str(folder / "latest.pt"), "--device", "cpu", "--batch-size", "16"]) == 0
    said = capsys.readouterr().out
    assert f"AP50  {end.figures['AP50']:.4f}" in said


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--batch-size", "0"], "--batch-size: found 0, wanted 1 or more"),
        (["--workers", "-1"], "--workers: found -1, wanted 0 or more"),
        (["--json", "/no/where/figures.json"], "--json: found no folder /no/where"),
    ],
)
def test_what_would_fail_after_the_evaluation_is_refused_before_it(
    capsys: pytest.CaptureFixture[str], arguments: list[str], wanted: str
) -> None:
    with pytest.raises(SystemExit):
        evaluate(["--checkpoint", "none.pt", *arguments])
    assert wanted in capsys.readouterr().err


def test_another_programs_checkpoint_and_arguments_are_refused(
    straight: tuple[Path, Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = straight[0] / "latest.pt"
    assert evaluate(["--checkpoint", str(latest), "--query", "query.txt"]) == 1
    assert "--query: " in capsys.readouterr().err
    start = f'model.start_from={{kind="checkpoint", path="{latest}"}}'
    assert main(["-c", str(written(tmp_path, DETECTOR)), "-o", start, "-o", "model.backbone.scale=0.5"]) == 1
    assert "of another model than this PicoDet" in capsys.readouterr().err
