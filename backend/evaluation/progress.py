"""What the evaluation's commands show while they run: a bar for each stage, and what was left out at the end."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from backend.evaluation.pictures import Refusal

REFUSALS_SHOWN = 20


class Bars(Progress):
    """A bar for each stage."""

    def over(self, stage: str, steps: Sequence[Any]) -> Iterable[Any]:
        yield from self.track(steps, description=stage)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s")


def progress_bars() -> Bars:
    """Bars on standard error; none where that is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=console, disable=not console.is_terminal)


def name_refused(refused: Sequence[Refusal], out: OutputWrapper) -> None:
    """The first of what was left out, each with its reason."""
    for one in refused[:REFUSALS_SHOWN]:
        out.write(f"{one.file}:{one.row}: {one.picture}: {one.reason}")
    if len(refused) > REFUSALS_SHOWN:
        out.write(f"... {len(refused):,} in all")
