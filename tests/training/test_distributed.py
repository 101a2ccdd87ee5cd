"""Two processes over gloo: they train one network, and judge it to the same figures as one process does."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.data.drawing import write_coco
from tests.training.folders import SIDE, patches, pictures, small_detector
from tests.training.runs import DETECTOR, ONE_PROCESS, REPOSITORY, written
from tests.training.two_processes import CHECKPOINT, SCENES, figures
from training.checkpoint import Checkpoint, load, save
from training.coco_ap import find_all
from training.config import settings_from_dict, settings_to_dict
from training.data.coco import read_coco
from training.evaluate import main as evaluate
from training.networks import detector_card
from training.settings import DetectorSettings
from training.train import main as train


def under_torchrun(*arguments: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_processes_train_and_judge_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path)
    both = ("-o", "evaluation.every_epochs=1", "-o", "evaluation.batch_size=5")
    said = under_torchrun(
        "training.train", "-c", str(config), "--until-epoch", "1", "-o", "batch_size=4", *both
    )
    assert said.count("epoch 1/4") == 1  # the second process is silent
    assert "4 steps of 8 an epoch, learning rate 0.05; 2 process(es)" in said
    latest = tmp_path / "run" / "latest.pt"
    checkpoint = load(latest)
    assert len(checkpoint.random) == 2
    assert not torch.equal(checkpoint.random[0]["torch"], checkpoint.random[1]["torch"])

    # What the two found while training is what one finds in the checkpoint, to the last bit.
    alone = tmp_path / "alone.json"
    common = ["--checkpoint", str(latest), "--device", "cpu", "--batch-size", "5"]
    assert evaluate([*common, "--json", str(alone)]) == 0
    assert json.loads(alone.read_text()) == checkpoint.figures

    # One process goes on where the two were; its epochs have as many pictures in more steps.
    assert train(["-c", str(config), "--resume", "--until-epoch", "2", "-o", "batch_size=4", *both]) == 0
    assert "8 steps of 4 an epoch" in capsys.readouterr().out
    assert load(latest).epoch == 2
    assert load(latest).step == 16


def detector_and_its_scenes(folder: Path) -> None:
    """Write a detector's checkpoint, and scenes whose truth is every other box that it finds, a little off."""
    settings = settings_from_dict(tomllib.loads(DETECTOR.format(out="run")), "the test")
    assert isinstance(settings, DetectorSettings)
    network = small_detector()
    for head in network.heads:  # as sure of some cells as a trained one
        head.predict.weight.data *= 10
        head.predict.bias.data[0] = 0
    facts = {"code": "", "classes": 1, "trained_on": "", "step": 1, "steps_per_epoch": 1}
    save(
        Checkpoint(
            program="detector",
            settings=settings_to_dict(settings),
            weights=network.state_dict(),
            **facts,  # type: ignore[arg-type]
        ),
        folder / CHECKPOINT,
    )
    listed = []
    for number, pixels in enumerate(pictures(7)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        listed.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
    whole = [
        {"id": image, "image_id": image, "category_id": 10, "bbox": [0, 0, SIDE, SIDE]} for image in range(7)
    ]
    scenes = read_coco(write_coco(folder / SCENES, listed, whole, ["jar"]))
    found = find_all(network, scenes, detector_card(settings, network), ONE_PROCESS, batch_size=2)
    boxes = [
        {"id": 100 * image + number, "image_id": image, "category_id": 10, "iscrowd": int(number == 6)}
        | {"bbox": [x1, y1, 0.9 * (x2 - x1), y2 - y1]}
        for image, one in enumerate(found)
        for number, (x1, y1, x2, y2) in enumerate(one.boxes[::2].tolist())
    ]
    write_coco(folder / SCENES, listed, boxes, ["jar"])


def test_two_processes_judge_a_detector_as_one_and_cut_off_alike_under_pact(tmp_path: Path) -> None:
    detector_and_its_scenes(tmp_path)
    under_torchrun("tests.training.two_processes", str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = figures(tmp_path, ONE_PROCESS)
    assert 0 < alone["AP"] < alone["AP50"] < 1
    assert first["figures"] == second["figures"] == alone

    assert first["alphas"] == second["alphas"]
    begun, *_, learned = first["alphas"]
    assert begun[0] == pytest.approx(2 * patches(1, n=4).abs().max().item())  # the larger of the two
    assert sum(one != other for one, other in zip(begun, learned, strict=True)) > 5
