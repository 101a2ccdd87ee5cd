"""A run's state in a file: all that is needed to go on as if it had never stopped, and to know what it was.

Files are written aside and renamed, so that there is always a whole one. They hold plain values and tensors and are
read as such: a pickle that would run something is refused.
"""

import os
import pickle
import random
import re
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.distributed import Process, gathered
from training.mismatch import describe_mismatch, shapes_of

LATEST_FILE, BEST_FILE = "latest.pt", "best.pt"
FORMAT = "Checklane training checkpoint 1"

State = Mapping[str, Any]


class CheckpointRefused(Exception):
    """A checkpoint cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some step.

    Attributes:
        program: which one wrote it.
        settings: of the run, as `training.config.settings_to_dict` gives them.
        code: version of the code that wrote it.
        classes: how many the head tells apart.
        trained_on: what the data was, in words.
        step: steps done.
        steps_per_epoch: of the run.
        weights: of the network that the run is for.
        teacher: weights of a pair's other network.
        average: the running mean's state.
        optimiser: its state.
        scaler: of the float16 loss scale.
        random: states of the random numbers, of each process.
        figures: of the last evaluation.
        best: of the figure by which `best` is chosen, so far.
    """

    program: str
    settings: State
    code: str
    classes: int
    trained_on: str
    step: int
    steps_per_epoch: int
    weights: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor] | None = None
    average: State | None = None
    optimiser: State = field(default_factory=dict)
    scaler: State = field(default_factory=dict)
    random: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    best: float | None = None

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, such that `path` holds the old one or the new one whatever happens."""
    content = {"format": FORMAT, **{one.name: getattr(checkpoint, one.name) for one in fields(checkpoint)}}
    aside = path.with_name(f".{path.name}")
    with aside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load(path: Path, program: str | None = None) -> Checkpoint:
    """Read a checkpoint, its tensors on the CPU.

    Args:
        path: of the file.
        program: that must have written it; None is any.
    Raises:
        CheckpointRefused: the file is missing, cut off, holds more than plain values, or is another program's.
    """
    try:
        with zipfile.ZipFile(
            path
        ) as file:  # what torch.save writes; torch.load does not look at its checksums
            damaged = file.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"another checksum in {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointRefused(f"{path}: found no such file, wanted a checkpoint.") from error
    except pickle.UnpicklingError as error:
        stranger = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointRefused(
            f"{path}: cannot be read as a checkpoint, it wants {stranger[1] if stranger else 'something'}, which is no "
            "part of one; do not open it with anything else."
        ) from error
    except (OSError, zipfile.BadZipFile, EOFError, LookupError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointRefused(
            f"{path}: cannot be read as a checkpoint, it is cut off, damaged or something else ({reason}); "
            "take another one."
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise CheckpointRefused(f"{path}: holds no {FORMAT}; wanted a file that training.train wrote.")
    try:
        checkpoint = Checkpoint(**content)
    except TypeError as error:
        raise CheckpointRefused(f"{path}: holds other facts than a {FORMAT} does ({error}).") from error
    if program not in (None, checkpoint.program):
        raise CheckpointRefused(f"{path}: is of the program {checkpoint.program}, wanted one of {program}.")
    return checkpoint


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a network, all of them or none.

    Args:
        network: of the same form.
        weights: by name.
        source: of them, for the message.
    Raises:
        CheckpointRefused: names are missing, left over, or of another shape; the first of them are named.
    """
    faults = describe_mismatch(shapes_of(network.state_dict()), shapes_of(weights))
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise CheckpointRefused(f"{source}: is of another model than this {type(network).__name__}: {shown}.")
    network.load_state_dict(weights)


def is_finite(weights: Mapping[str, Tensor]) -> bool:
    """Whether every number is one."""
    return all(bool(value.isfinite().all()) for value in weights.values() if value.is_floating_point())


def random_states() -> list[dict[str, Any]]:
    """The random numbers' states of all processes, as plain values and tensors; every process has to ask."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return gathered(state)


def restore_random_state(states: list[dict[str, Any]], process: Process) -> None:
    """Go on with the random numbers of this process; with another number of processes, leave them as seeded."""
    if len(states) != process.count:
        return
    state = states[process.rank]
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and process.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"])


def seed_random_numbers(seed: int, process: Process) -> None:
    """Seed what draws without naming a stream: weights by chance, and dropout; each process otherwise."""
    random.seed(seed + process.rank)
    np.random.seed((seed + process.rank) % 2**32)
    torch.manual_seed(seed + process.rank)


def code_version() -> str:
    """The package's version, and the commit where the code lies in a repository."""
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join(filter(None, (version("checklane"), commit.stdout.strip())))
