"""Checkpoints: whole or refused by name, and never a pickle that runs something."""

import os
import pickle
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.runs import ONE_PROCESS
from training.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointRefused,
    load,
    load_weights,
    random_states,
    restore_random_state,
    save,
)


def small(**more: object) -> Checkpoint:
    facts: dict[str, object] = {
        "program": "embedder",
        "settings": {"name": "small"},
        "code": "0.1",
        "classes": 3,
        "trained_on": "nothing",
        "step": 12,
        "steps_per_epoch": 4,
        "weights": nn.Linear(2, 2).state_dict(),
        **more,
    }
    return Checkpoint(**facts)  # type: ignore[arg-type]


def test_a_checkpoint_comes_back_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    kept = small(random=random_states(), best=0.5)
    save(kept, tmp_path / "latest.pt")
    found = load(tmp_path / "latest.pt", "embedder")
    assert (found.epoch, found.best, found.settings) == (3, 0.5, {"name": "small"})
    torch.testing.assert_close(dict(found.weights), dict(kept.weights), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["latest.pt"]


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(_: object, file: BinaryIO) -> None:
    file.write(b"half of it")
    file.flush()
    killed()


@pytest.mark.parametrize(
    ("place", "name", "fate"),
    [(torch, "save", half_written), (os, "fsync", killed), (Path, "replace", killed)],
    ids=["while it is written", "before it is on the disk", "before it is renamed"],
)
def test_a_process_that_is_killed_leaves_the_old_checkpoint(
    tmp_path: Path, place: object, name: str, fate: Callable[..., None]
) -> None:
    path, later = tmp_path / "latest.pt", small(step=16)
    save(small(), path)
    child = os.fork()
    if child == 0:
        try:
            setattr(place, name, fate)
            save(later, path)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert load(path).step == 12
    save(later, path)  # what was left beside it is in nobody's way
    assert load(path).step == 16
    assert [one.name for one in tmp_path.iterdir()] == ["latest.pt"]


def test_random_numbers_go_on_where_they_were() -> None:
    states = random_states()
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    restore_random_state(states, ONE_PROCESS)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn


@pytest.mark.parametrize("kept", [0, 1, 100, 1500])
def test_a_cut_off_checkpoint_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "latest.pt"
    save(small(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointRefused, match=r"latest\.pt: cannot be read as a checkpoint"):
        load(path)


class Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/nowhere/at/all",))


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    plain, torchs = tmp_path / "plain.pt", tmp_path / "torchs.pt"
    plain.write_bytes(pickle.dumps(Malice(), protocol=2))
    torch.save({"format": Malice()}, torchs)
    with pytest.raises(CheckpointRefused, match=r"plain\.pt: cannot be read as a checkpoint"):
        load(plain)
    with pytest.raises(
        CheckpointRefused, match=r"torchs\.pt: cannot be read as a checkpoint, it wants \w+\.open"
    ):
        load(torchs)


def test_a_damaged_checkpoint_is_refused_whatever_is_damaged(tmp_path: Path) -> None:
    path, kept = tmp_path / "latest.pt", small(weights=nn.Linear(20, 20).state_dict())
    save(kept, path)
    whole = path.read_bytes()
    random_ = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        start = int(random_.integers(len(whole)))
        damaged[start : start + 3] = random_.bytes(len(damaged[start : start + 3]))
        path.write_bytes(damaged)
        try:
            found = load(path)
        except CheckpointRefused:
            refused += 1
        else:  # between the parts of the file, where nothing lies
            torch.testing.assert_close(dict(found.weights), dict(kept.weights), rtol=0, atol=0)
            assert found.step == kept.step
    assert refused > 100


def test_other_files_and_other_programs_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointRefused, match="holds no Checklane training checkpoint"):
        load(tmp_path / "weights.pt")
    with pytest.raises(CheckpointRefused, match="found no such file"):
        load(tmp_path / "none.pt")
    torch.save({"format": FORMAT, "program": "embedder"}, tmp_path / "half.pt")
    with pytest.raises(CheckpointRefused, match=r"half\.pt: holds other facts .*'settings'"):
        load(tmp_path / "half.pt")
    save(small(), tmp_path / "latest.pt")
    with pytest.raises(CheckpointRefused, match="is of the program embedder, wanted one of detector"):
        load(tmp_path / "latest.pt", "detector")


def test_another_models_weights_are_refused_and_none_is_taken() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    other = nn.Sequential(nn.Linear(2, 4), nn.Linear(3, 1), nn.Linear(1, 1)).state_dict()
    with pytest.raises(CheckpointRefused) as refused:
        load_weights(network, other, "latest.pt")
    for fault in (
        "unexpected 2.weight",
        "0.weight is (4, 2), wanted (3, 2)",
        "latest.pt: is of another model",
    ):
        assert fault in str(refused.value)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
