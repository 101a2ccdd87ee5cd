"""A job's progress in the terminal of whoever waits for it; the job goes on without."""

from datetime import timedelta
from time import monotonic, sleep

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from backend.jobs.models import FINISHED, Job, JobState

ASKED_EVERY_SECONDS = 0.5
# Where there is no terminal to draw on: a line whenever the stage changes, and so often.
TOLD_EVERY_SECONDS = 10.0
FAILURES_SHOWN = 20


def follow_job(job: Job, console: Console) -> Job:
    """Show how far it is until it is finished, or paused.

    Raises:
        KeyboardInterrupt: Ctrl-C; the job goes on.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    told, told_at = "", 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(job.state, total=None, pace="")
        while True:
            job.refresh_from_db()
            stage = job.result.get("stage") or job.state
            bars.update(bar, description=stage, completed=job.cursor, total=job.total, pace=_pace(job))
            if not console.is_terminal and (stage != told or monotonic() - told_at > TOLD_EVERY_SECONDS):
                console.print(f"{stage}: {job.cursor:,} of {job.total or 0:,} {_pace(job)}", soft_wrap=True)
                told, told_at = stage, monotonic()
            if job.state in (*FINISHED, JobState.PAUSED):
                break
            sleep(ASKED_EVERY_SECONDS)
    for failure in job.failures[:FAILURES_SHOWN]:
        where = f"picture {failure['picture']} of {failure['product']}: " if "picture" in failure else ""
        console.print(f"{where}{failure['reason']}", style="red", soft_wrap=True)
    if job.failed > FAILURES_SHOWN:
        console.print(f"... {job.failed:,} failed in all; the job's page in the admin names them")
    return job


def _pace(job: Job) -> str:
    failed = f", {job.failed:,} failed" if job.failed else ""
    if job.seconds_left is None:
        return failed.removeprefix(", ")
    return f"{job.rate:,.1f} a second, {timedelta(seconds=round(job.seconds_left))} left{failed}"
