"""A run's folder: its settings, log, metrics, curves and checkpoints; and what a run says while it goes on."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from training.checkpoint import BEST_FILE, LATEST_FILE, Checkpoint, CheckpointRefused, is_finite, load, save
from training.config import settings_to_dict
from training.curves import (
    CURVES_FILE,
    EPOCH,
    METRICS_FILE,
    append_row,
    draw_curves,
    drop_rows_after,
    read_rows,
)
from training.distributed import Process
from training.settings import Settings

SETTINGS_FILE, LOG_FILE = "settings.json", "train.log"
# Pictures of a batch that a message names; a batch has hundreds.
NAMED_PICTURES = 16
# Drawing the curves takes a second, an epoch of a small run less.
SECONDS_BETWEEN_CURVES = 20.0
# These may change between a run and its continuation: they say where and how fast, not what.
FREE_SETTINGS = ("out", "workers", "device")

Batch = TypeVar("Batch")


class TrainingStopped(Exception):
    """The run cannot go on; the message says at which step, on what, and from where it can be resumed."""


class RunFolder:
    """Where a run writes; only the first process does."""

    def __init__(self, settings: Settings, process: Process) -> None:
        self.settings, self.process = settings, process
        self.path: Path = settings.out
        self.console = Console(quiet=not process.is_first, highlight=False, soft_wrap=True)
        self._drawn_at = time.monotonic()

    def open(self, *, resume: bool) -> Checkpoint | None:
        """Make the folder, or find the run that shall go on in it.

        Returns:
            The latest checkpoint when resuming.
        Raises:
            CheckpointRefused: there is a run already and it shall not be resumed, or there is none to resume, or it
                was begun with other settings.
        """
        latest = self.path / LATEST_FILE
        if not resume:
            if latest.exists():
                raise CheckpointRefused(
                    f"{self.path}: holds a run already; go on with it by --resume, or name another folder by -o out=."
                )
            if self.process.is_first:
                self.path.mkdir(parents=True, exist_ok=True)
                written = json.dumps(settings_to_dict(self.settings), indent=2) + "\n"
                (self.path / SETTINGS_FILE).write_text(written, encoding="utf-8")
                (self.path / METRICS_FILE).unlink(missing_ok=True)
            return None
        checkpoint = load(latest, self.settings.program)
        self._refuse_other_settings(checkpoint, latest)
        if self.process.is_first:
            drop_rows_after(self.path / METRICS_FILE, checkpoint.epoch)
        return checkpoint

    def _refuse_other_settings(self, checkpoint: Checkpoint, path: Path) -> None:
        now, then = settings_to_dict(self.settings), dict(checkpoint.settings)
        keys = [key for key in {**then, **now} if key not in FREE_SETTINGS and then.get(key) != now.get(key)]
        if keys:
            differing = "; ".join(f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in keys)
            raise CheckpointRefused(
                f"{path}: was begun with other settings ({differing}). Resume with the same ones; or begin a run of "
                f'its own, with model.start_from={{kind="checkpoint", path="{path}"}}.'
            )

    def say(self, sentence: str) -> None:
        """Tell the person who looks on, and the log."""
        if self.process.is_first:
            self.console.print(sentence, markup=False)
            with (self.path / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n")

    def record(self, row: dict[str, float]) -> None:
        """Add an epoch's figures to the table, and draw the curves anew if that was not done just now."""
        if self.process.is_first:
            append_row(self.path / METRICS_FILE, row)
            if time.monotonic() - self._drawn_at >= SECONDS_BETWEEN_CURVES:
                self.draw()
            shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != EPOCH)
            self.say(f"epoch {row[EPOCH]:.0f}/{self.settings.epochs}  {shown}")

    def draw(self) -> None:
        """Draw the curves of all epochs that the table has."""
        if self.process.is_first:
            draw_curves(read_rows(self.path / METRICS_FILE), self.path / CURVES_FILE)
            self._drawn_at = time.monotonic()

    def keep(self, checkpoint: Checkpoint, *, is_best: bool) -> None:
        """Write `latest`, and `best` where it is.

        Raises:
            TrainingStopped: a weight is infinite or not a number, which no run comes back from.
        """
        if not is_finite(checkpoint.weights):
            raise TrainingStopped(
                f"step {checkpoint.step}: found weights that are infinite or not a number. "
                f"{self.last_good()} A lower learning rate or clip_norm may help."
            )
        if self.process.is_first:
            if is_best:
                save(checkpoint, self.path / BEST_FILE)
            save(checkpoint, self.path / LATEST_FILE)

    def last_good(self) -> str:
        """Where the run can be resumed, in a sentence."""
        latest = self.path / LATEST_FILE
        if not latest.exists():
            return "There is no checkpoint yet."
        return f"The last good checkpoint is {latest}, after step {load(latest).step}."

    def refuse_infinite(
        self, loss: Tensor, parts: Mapping[str, Tensor], step: int, pictures: Iterable[str]
    ) -> None:
        """Stop when a loss is infinite or not a number.

        Args:
            loss: scalar.
            parts: its terms.
            step: 0 is the first.
            pictures: of the batch, where they are listed; only looked at if the run stops.
        Raises:
            TrainingStopped: it is.
        """
        if bool(loss.isfinite()):
            return
        named = list(pictures)
        shown = "".join(f"\n  {name}" for name in named[:NAMED_PICTURES])
        more = f"\n  and {len(named) - NAMED_PICTURES} more" if len(named) > NAMED_PICTURES else ""
        terms = ", ".join(f"{name} {value.item():g}" for name, value in parts.items())
        raise TrainingStopped(
            f"step {step}: found a loss of {loss.item():g} ({terms}). {self.last_good()} The batch was:{shown}{more}"
        )


@dataclass
class Watch:
    """How an epoch's time goes by.

    Attributes:
        waited: seconds for data.
        worked: seconds for all else.
        pictures: seen by this process.
        steps: done.
        sums: of the loss and its terms, over steps.
    """

    waited: float = 0.0
    worked: float = 0.0
    pictures: int = 0
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, pictures: int, **losses: float) -> None:
        """Count a step."""
        self.pictures += pictures
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def figures(self, process: Process) -> dict[str, float]:
        """Means of the losses (this process'), pictures a second over all processes, the share of waiting; and the
        most memory that PyTorch has held on this process' GPU so far, if it has one.
        """
        seconds = max(self.waited + self.worked, 1e-9)
        gpu = process.device if process.device.type == "cuda" else None
        return {
            **{name: value / self.steps for name, value in self.sums.items()},
            "images_per_second": self.pictures * process.count / seconds,
            "data_wait_share": self.waited / seconds,
            **({} if gpu is None else {"gpu_peak_mb": torch.cuda.max_memory_reserved(gpu) / 1e6}),
        }


def watched_batches(
    batches: Iterable[Batch], n_batches: int, title: str, watch: Watch, console: Console
) -> Iterator[Batch]:
    """The batches, with a progress bar on a terminal; `watch` learns how long they were waited for."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=n_batches)
        asked = time.perf_counter()
        for batch in batches:
            given = time.perf_counter()
            watch.waited += given - asked
            yield batch
            asked = time.perf_counter()
            watch.worked += asked - given
            mean = watch.sums.get("loss", 0.0) / max(1, watch.steps)
            bar.update(task, advance=1, description=f"{title}  loss {mean:.3f}")
