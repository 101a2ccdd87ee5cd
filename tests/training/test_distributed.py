"""Two processes over gloo: they train one network, and judge it to the same figures as one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.training.runs import REPOSITORY, written
from training.checkpoint import load
from training.evaluate import main as evaluate


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


def test_two_processes_train_and_judge_as_one(tmp_path: Path) -> None:
    config = written(tmp_path)
    said = under_torchrun("training.train", "-c", str(config), "--until-epoch", "1", "-o", "batch_size=4")
    assert said.count("epoch 1/4") == 1  # the second process is silent
    assert "4 steps of 8 an epoch, learning rate 0.05; 2 process(es)" in said
    latest = tmp_path / "run" / "latest.pt"
    checkpoint = load(latest)
    assert len(checkpoint.random) == 2
    assert not torch.equal(checkpoint.random[0]["torch"], checkpoint.random[1]["torch"])

    one, two = tmp_path / "one.json", tmp_path / "two.json"
    common = ["--checkpoint", str(latest), "--device", "cpu", "--batch-size", "5"]
    under_torchrun("training.evaluate", *common, "--json", str(two))
    assert evaluate([*common, "--json", str(one)]) == 0
    assert json.loads(one.read_text()) == json.loads(two.read_text())
