"""The embedder's program: it goes on as if it had never stopped, and says why where it stops."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import EMBEDDER, ONE_PROCESS, PAIR, REPOSITORY, same_weights, trained, written
from training.checkpoint import Checkpoint, load
from training.config import read_settings
from training.curves import read_rows
from training.run_folder import RunFolder, TrainingStopped
from training.train import main


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    """A run that nothing interrupted: its folder and its end."""
    config = written(tmp_path_factory.mktemp("straight"))
    return config.parent / "run", trained(config)


def test_a_run_leaves_all_that_is_promised(straight: tuple[Path, Checkpoint]) -> None:
    folder, end = straight
    names = {path.name for path in folder.iterdir()}
    assert names == {"latest.pt", "best.pt", "settings.json", "metrics.csv", "curves.png", "train.log"}
    assert (end.step, end.epoch, end.classes) == (16, 4, 8)
    assert end.settings["model"]["backbone"]["name"] == "PPLCNet"
    assert end.code
    assert "8 classes" in end.trained_on
    rows = read_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert ["recall@1" in row for row in rows] == [False, True, False, True]
    assert end.best == pytest.approx(max(row["recall@1"] for row in rows if "recall@1" in row))
    assert "epoch 4/4" in (folder / "train.log").read_text()
    assert all(
        row["loss"] == pytest.approx(row["CrossEntropy"] + row["TripletAngularMargin"]) for row in rows
    )


def test_two_epochs_and_two_more_are_four(straight: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    config = written(tmp_path)
    half = trained(config, "--until-epoch", "2")
    assert half.epoch == 2
    whole = trained(config, "--resume")
    assert same_weights(whole, straight[1])
    assert not same_weights(half, straight[1])
    assert whole.best == straight[1].best
    with (tmp_path / "run" / "metrics.csv").open() as one, (straight[0] / "metrics.csv").open() as other:
        for row, wanted in zip(csv.DictReader(one), csv.DictReader(other), strict=True):
            for column in ("epoch", "learning_rate", "loss", "recall@1", "mAP"):
                assert row[column] == wanted[column]


# Dies when the second epoch's figures are in the table, and its checkpoint is not there yet.
KILLED = """
import os, signal, sys
from training.run_folder import RunFolder
from training.train import main
keep = RunFolder.keep
def first_alone(folder, checkpoint, *, is_best):
    if checkpoint.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    keep(folder, checkpoint, is_best=is_best)
RunFolder.keep = first_alone
main(sys.argv[1:])
"""


def test_a_run_that_was_killed_ends_as_one_that_was_not(
    straight: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    config = written(tmp_path)
    command = [sys.executable, "-c", KILLED, "-c", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load(tmp_path / "run" / "latest.pt").epoch == 1
    assert [row["epoch"] for row in read_rows(tmp_path / "run" / "metrics.csv")] == [1, 2]
    assert same_weights(trained(config, "--resume"), straight[1])
    assert [row["epoch"] for row in read_rows(tmp_path / "run" / "metrics.csv")] == [1, 2, 3, 4]


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path)
    trained(config, "--until-epoch", "1")
    calls = []

    def poisoned(*_: object) -> torch.Tensor:
        calls.append(1)
        return torch.tensor(float("nan") if len(calls) == 2 else 1.0, requires_grad=True)

    monkeypatch.setattr("training.losses.triplet.TripletAngularMargin.forward", poisoned)
    assert main(["-c", str(config), "--resume"]) == 1
    said = capsys.readouterr().err
    assert "step 5: found a loss of nan" in said
    assert "TripletAngularMargin nan" in said
    assert said.count("generated ") == 8  # the batch
    assert f"The last good checkpoint is {tmp_path / 'run' / 'latest.pt'}, after step 4." in said
    assert load(tmp_path / "run" / "latest.pt").step == 4


def test_ctrl_c_ends_in_a_sentence_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path)
    trained(config, "--until-epoch", "1")

    def interrupted(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.losses.triplet.TripletAngularMargin.forward", interrupted)
    assert main(["-c", str(config), "--resume"]) == 130
    assert "--resume goes on from there" in capsys.readouterr().err
    assert load(tmp_path / "run" / "latest.pt").epoch == 1


def test_weights_that_are_no_numbers_are_never_kept(
    straight: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    folder = RunFolder(read_settings(written(tmp_path)), ONE_PROCESS)
    folder.open(resume=False)
    spoilt = {name: value * float("inf") for name, value in straight[1].weights.items()}
    with pytest.raises(
        TrainingStopped, match=r"step 16: found weights that are infinite .* no checkpoint yet"
    ):
        folder.keep(replace(straight[1], weights=spoilt), is_best=True)
    assert not list((tmp_path / "run").glob("*.pt"))


def test_a_run_is_neither_overwritten_nor_resumed_as_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path)
    assert main(["-c", str(config), "--resume"]) == 1
    assert "latest.pt: found no such file" in capsys.readouterr().err
    trained(config, "--until-epoch", "1")
    assert main(["-c", str(config)]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert main(["-c", str(config), "--resume", "-o", "optimiser.learning_rate=0.2"]) == 1
    said = capsys.readouterr().err
    assert "begun with other settings (optimiser was {" in said
    assert "'learning_rate': 0.1" in said


def test_what_is_wrong_with_the_data_is_said_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("a.jpg 0\nb.jpg x\n")
    text = EMBEDDER.replace(
        '{{ kind = "generated", products = 8, views = 4, side = 40 }}',
        f'{{{{ kind = "list", list = "{listed}" }}}}',
    )
    assert main(["-c", str(written(tmp_path, text))]) == 1
    assert f"{listed}:2: found the label 'x'" in capsys.readouterr().err
    listed.write_text("a.jpg 0\nb.jpg 0\n")
    assert main(["-c", str(written(tmp_path, text))]) == 1
    assert f"{listed}:1: a.jpg: found no file" in capsys.readouterr().err


def test_a_hash_branch_learns_codes_and_leaves_the_embedding_as_it_would_be(tmp_path: Path) -> None:
    # No dropout: the branch's weights by chance draw numbers that its masks would get.
    two = ("-o", "model.backbone.dropout=0.0", "--until-epoch", "2")
    plain = trained(written(tmp_path / "plain"), *two)
    branch = 'model.hash_branch={neck={name="Hash", bits=24}, head={name="FC"}, losses={CrossEntropy={}}}'
    config = written(tmp_path)
    end = trained(config, "-o", branch, *two)
    own = {name: value for name, value in end.weights.items() if not name.startswith("hash_branch.")}
    assert own.keys() == plain.weights.keys()
    assert all(torch.equal(value, plain.weights[name]) for name, value in own.items())
    assert {"hash_CrossEntropy", "hash_recall@1"} <= read_rows(config.parent / "run" / "metrics.csv")[
        -1
    ].keys()
    still = trained(written(tmp_path / "still"), "-o", branch, "-o", "optimiser.learning_rate=1e-30", *two)
    assert not torch.equal(
        end.weights["hash_branch.neck.fc.weight"], still.weights["hash_branch.neck.fc.weight"]
    )
    assert main(["-c", str(written(tmp_path / "pair", PAIR)), "-o", branch]) == 1


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["batch_size=7"], "batch size: found 7, wanted a multiple of 2 pictures a class in 1 processes"),
        (["batch_size=32"], "found 8 classes, wanted 16 or more for batches of 32"),
        (["data.train.0.views=1"], "has 1 picture, wanted 2 or more for PKSampler"),
        (["data.train.0.products=100000"], "n is 100000; want 0 to 99999"),
        (["model.hashes=true", "model.neck={name='FC', dimension=50}"], "hash codes of 50 bits"),
        (["model.start_from={kind='imagenet', weights='/no/file'}"], "/no/file"),
        (["model.neck={name='FC', dimension=0}"], "dimension: found 0, wanted 1 or more"),
        (["out={file}/run"], "{file}/run"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], wanted: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = ["-c", str(written(tmp_path))]
    for override in overrides:
        arguments += ["-o", override.replace("{file}", str(file))]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert wanted.format(file=file) in said.err
    assert "epoch" not in said.out
    assert not list(tmp_path.glob("**/*.pt"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(written(tmp_path)), "-o", "device=cuda"]) == 1
    assert "device: found no GPU that PyTorch can use" in capsys.readouterr().err


def test_no_epochs_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "-1", "x"):
        with pytest.raises(SystemExit):
            main(["-c", str(written(tmp_path)), "--until-epoch", number])
        assert f"found {number}, wanted a number of 1 or more" in capsys.readouterr().err


def test_bfloat16_on_a_cpu_trains_in_mixed_precision(tmp_path: Path) -> None:
    end = trained(written(tmp_path), "-o", "precision=mixed", "--until-epoch", "1")
    assert all(value.dtype != torch.bfloat16 for value in end.weights.values())


def test_a_start_from_a_checkpoint_takes_all_but_a_head_of_other_classes(
    straight: tuple[Path, Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, end = straight
    start = f'model.start_from={{kind="checkpoint", path="{folder / "latest.pt"}"}}'
    config = written(tmp_path)
    still = ("-o", "optimiser.learning_rate=1e-30", "--until-epoch", "1")
    begun = trained(config, "-o", start, "-o", "data.train.0.products=9", *still)
    assert begun.classes == 9
    assert torch.equal(begun.weights["backbone.last_conv.weight"], end.weights["backbone.last_conv.weight"])
    assert "but for the head" in capsys.readouterr().out
    other = written(tmp_path / "other")
    assert main(["-c", str(other), "-o", start, "-o", "model.backbone.scale=0.5"]) == 1
    assert "of another model than this EmbedderModel: backbone.trunk.stages" in capsys.readouterr().err
