"""Train what a configuration says.

    python -m training.train -c training/configs/smoke_embedder.toml -o epochs=3
    torchrun --nproc-per-node 8 -m training.train -c training/configs/general_rec_v2.toml

The configuration's `program` says which of the programs runs: embedder, pair or detector.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recognition.errors import RecognitionError
from training.checkpoint import Checkpoint, CheckpointRefused, seed_random_numbers
from training.config import ConfigRefused, read_settings
from training.data.faults import BadData
from training.distributed import Process, started
from training.loop import Task, run
from training.pdparams import WeightsRefused
from training.run_folder import RunFolder, TrainingStopped
from training.settings import EmbedderSettings, PairSettings, Settings
from training.train_detector import detector_task
from training.train_embedder import embedder_task
from training.train_pair import pair_task

# An OSError is the machine's: a full disk, a folder that may not be written. It names the file.
REFUSALS = (
    BadData,
    CheckpointRefused,
    ConfigRefused,
    RecognitionError,
    TrainingStopped,
    WeightsRefused,
    OSError,
    ValueError,
)


def train(
    settings: Settings, process: Process, *, resume: bool = False, until_epoch: int | None = None
) -> Path:
    """Run a program.

    Args:
        settings: of the run.
        process: this one; each has to call it.
        resume: go on from the folder's latest checkpoint.
        until_epoch: stop after so many epochs, as if the machine were needed; the schedule stays that of all.
    Returns:
        The run's folder.
    Raises:
        BadData, CheckpointRefused, TrainingStopped, ValueError: as their messages say.
    """
    folder = RunFolder(settings, process)
    before = folder.open(resume=resume)
    seed_random_numbers(settings.seed, process)
    return run(build_task(settings, process, before), folder, before, until_epoch=until_epoch)


def build_task(settings: Settings, process: Process, before: Checkpoint | None = None) -> Task:
    """What a program trains; arguments and errors as for the three."""
    if isinstance(settings, EmbedderSettings):
        return embedder_task(settings, process, before)
    if isinstance(settings, PairSettings):
        return pair_task(settings, process, before)
    return detector_task(settings, process, before)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"found {text}, wanted a number of 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description="Train an embedder, a pair of them, or a detector."
    )
    parser.add_argument("-c", "--config", type=Path, required=True, help="the settings, a TOML file")
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting that differs from the file's: -o epochs=3 -o data.train.0.rate=4; may come more than once",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's latest checkpoint")
    parser.add_argument(
        "--until-epoch", type=_count, metavar="N", help="stop after N epochs; --resume goes on"
    )
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(given.config, given.override)
        with started(settings.device) as process:
            train(settings, process, resume=given.resume, until_epoch=given.until_epoch)
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "stopped; what it did since its last checkpoint is lost, --resume goes on from there",
            file=sys.stderr,
        )
        return 130  # as a shell has it
    return 0


if __name__ == "__main__":
    sys.exit(main())
