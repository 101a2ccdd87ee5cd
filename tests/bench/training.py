"""`make bench-training`: what a training costs, and what of it is the network's own work; figures within one run.

Each training is a run of `training.train` on a published configuration, with its network, losses, sampler and
augmentation; overridden is only what asks for data or machines that nobody has at hand. Machines are shared and noisy:
a speed is given as its share of that of bare forward and backward passes of the same network, which take turns with it.

    make bench-training ARGS="--json FILE"
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tests.live import REPOSITORY
from tests.training.published_weights import weights_of, write
from training.checkpoint import LATEST_FILE
from training.config import read_settings
from training.curves import METRICS_FILE, read_rows
from training.distributed import Process, started
from training.loop import loader_of
from training.optimiser import autocast
from training.settings import DetectorSettings, EmbedderSettings
from training.train import build_task

CONFIGS = REPOSITORY / "training" / "configs"
CATALOGUE = REPOSITORY / "fixtures" / "demo_catalogue"
# Of each run: the first starts the loader processes and fills the caches, the last is counted.
EPOCHS = 2
WARM_UP_BATCHES = 2
# What is taken from the counted epoch's row; a GPU's only where there is one.
FIGURES = ("images_per_second", "data_wait_share", "gpu_peak_mb")
BARE_SECONDS = 5.0
MEMORY_EVERY_SECONDS = 1.0  # asking takes 20 ms a GB
MOST_WAITING = 0.05

Settings = EmbedderSettings | DetectorSettings


@dataclass(frozen=True)
class Training:
    """A training that is measured.

    Attributes:
        config: its file's name.
        overrides: of it, as for `training.train`.
        rounds: turns of it and of bare passes. Each gives a ratio, for a machine's noise comes and goes.
    """

    config: str
    overrides: tuple[str, ...]
    rounds: int = 3

    def arguments(self, out: Path) -> list[str]:
        """All overrides, those that every measured training has among them.

        Args:
            out: the run's folder.
        """
        # bfloat16 is slower than float32 on a CPU that does not compute in it.
        precision = () if torch.cuda.is_available() else ("precision=full",)
        return ["workers=2", f"epochs={EPOCHS}", f"out={out}", *precision, *self.overrides]

    def settings(self, out: Path) -> Settings:
        """What the run makes of the file and the overrides."""
        settings = read_settings(CONFIGS / self.config, self.arguments(out))
        assert isinstance(settings, EmbedderSettings | DetectorSettings)
        return settings


# 225 JPEG files of 320 x 320, of 45 products; the evaluation at a run's end is not measured, and kept short.
PICTURES = (
    "batch_size=32",
    f'data.train=[{{kind="folder", folder="{CATALOGUE}"}}]',
    'evaluation.source={kind="generated", products=2, gallery_views=1, query_views=1}',
)
# Six JPEG files of 1280 x 800, of five products each, sixteen times an epoch.
SCENES = (
    "batch_size=8",
    f'data.train=[{{kind="coco", annotations="{CATALOGUE / "scenes.json"}", rate=16.0}}]',
    'evaluation.source={kind="generated", scenes=2}',
)
FULL_SIZE = "general_rec_v2"
TRAININGS = {
    FULL_SIZE: Training("general_rec_v2.toml", PICTURES, rounds=1),  # slow, and its waiting is a share anyway
    "general_rec_v2 x0.5": Training("general_rec_v2.toml", (*PICTURES, "model.backbone.scale=0.5")),
    "picodet x0.5, 320 px": Training(
        "picodet_mainbody.toml",
        (*SCENES, "model.backbone.scale=0.5", "model.neck_channels=64", "input.side=320"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="checklane-bench-") as temporary,
        started() as process,
    ):
        folder = Path(temporary)
        report = {
            "settings": {
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "device": torch.cuda.get_device_name() if process.device.type == "cuda" else "cpu",
                "torch": torch.__version__,
                "load_before": os.getloadavg()[0],
            },
            "trainings": {
                name: measure_training(training, folder / name, process)
                for name, training in TRAININGS.items()
            },
            "model_folders": measure_model_folders(folder / FULL_SIZE / "0" / LATEST_FILE, folder),
        }
    report["settings"]["load_after"] = os.getloadavg()[0]
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


# --- programs ---------------------------------------------------------------------------------------------
def run(*command: str, memory_every_seconds: float = MEMORY_EVERY_SECONDS) -> tuple[float, int]:
    """Run a program to its end.

    Args:
        command: its words.
        memory_every_seconds: how often it is asked for.
    Returns:
        Its seconds, and the bytes of memory that it and its children held together at the most.
    Raises:
        RuntimeError: it failed; with what it said.
    """
    most = 0
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=said, stderr=subprocess.STDOUT) as program:
            while program.returncode is None:
                most = max(most, held_bytes(program.pid))
                try:
                    program.wait(memory_every_seconds)
                except subprocess.TimeoutExpired:
                    continue
        seconds = time.perf_counter() - began
        if program.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: ended with {program.returncode}:\n{said.read()}")
    return seconds, most


def held_bytes(pid: int) -> int:
    """Of a process and all below it; one that ends meanwhile holds none.

    A page that several share counts once, in parts (PSS): by resident memory each loader process, a fork of the
    program, would seem to hold all that the program does.
    """
    total = 0
    with suppress(psutil.NoSuchProcess):
        program = psutil.Process(pid)
        for process in (program, *program.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
    return total


def python(module: str, *arguments: str) -> tuple[float, int]:
    """`run` for `python -m`."""
    return run(sys.executable, "-m", module, *arguments)


# --- a training -------------------------------------------------------------------------------------------
def measure_training(training: Training, folder: Path, process: Process) -> dict[str, float]:
    """Runs of a training, in turns with bare passes of its network; and what its loader processes give alone."""
    settings = training.settings(folder)
    found: list[dict[str, float]] = []
    for turn in range(training.rounds):
        out = folder / str(turn)
        overrides = [word for override in training.arguments(out) for word in ("-o", override)]
        _, most = python("training.train", "-c", str(CONFIGS / training.config), *overrides)
        counted = read_rows(out / METRICS_FILE)[-1]
        bare = bare_images_per_second(settings, process)
        found.append(
            {
                **{name: counted[name] for name in FIGURES if name in counted},
                "peak_mb": most / 1e6,
                "bare_images_per_second": bare,
                "share_of_bare": counted["images_per_second"] / bare,
            }
        )
    loaded = loaded_images_per_second(settings, process)
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    return {
        **medians,
        "loaded_images_per_second": loaded,
        "loaded_to_trained": loaded / medians["images_per_second"],
    }


def bare_images_per_second(settings: Settings, process: Process, seconds: float = BARE_SECONDS) -> float:
    """Forward and backward passes of a run's network on random pixels: no data, no loss, no optimiser.

    Args:
        settings: of the run.
        process: this one.
        seconds: for which it is measured, once warm.
    """
    network = build_task(settings, process).network.train()
    side, n = settings.input.side, settings.batch_size
    pixels = torch.randn(n, 3, side, side, device=process.device)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with autocast(process.device, settings.precision):
            outputs = network(pixels)
        total = torch.stack([output.float().square().mean() for output in tensors(outputs)]).sum()
        total.backward()
        total.item()  # waits for a GPU

    for _ in range(WARM_UP_BATCHES):
        step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * n / (time.perf_counter() - began)


def tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors of a network's outputs, which may be tuples of tuples, and of other things between."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, tuple):
        for output in outputs:
            yield from tensors(output)


def loaded_images_per_second(settings: Settings, process: Process) -> float:
    """What a run's loader processes give when nothing else computes."""
    task = build_task(settings, process)
    loader = loader_of(task, settings, process)
    for epoch in range(EPOCHS):
        task.sampler.start(epoch)
        began = time.perf_counter()
        loaded = sum(len(batch[0]) for batch in loader)
    return loaded / (time.perf_counter() - began)


# --- model folders ----------------------------------------------------------------------------------------
def measure_model_folders(checkpoint: Path, folder: Path) -> dict[str, dict[str, float]]:
    """The seconds of an export and of an import of general_rec_v2, each proof included, and of their mere start."""
    published = write(folder / "general_rec_v2.pdparams", weights_of("general_rec_v2"))
    made = {
        "export": ("training.export", "--checkpoint", str(checkpoint), "--out", str(folder / "exported")),
        "import": (
            *("training.import_paddle", "--model", "general_rec_v2"),
            *("--weights", str(published), "--out", str(folder / "imported")),
        ),
    }  # fmt: skip
    found = {}
    for act, (module, *arguments) in made.items():
        start, _ = python(module, "--help")
        seconds, most = python(module, *arguments)
        found[act] = {"seconds": seconds, "start_seconds": start, "peak_mb": most / 1e6}
    return found


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    console = Console()
    table = Table()
    table.add_column("training", no_wrap=True)
    for column in ("images/s", "/ bare passes", "waiting for data", "loaders alone / training", "peak MB"):
        table.add_column(column)
    for name, found in report["trainings"].items():
        gpu = f", GPU {found['gpu_peak_mb']:.0f}" if "gpu_peak_mb" in found else ""
        table.add_row(
            name,
            f"{found['images_per_second']:.1f}",
            f"{found['share_of_bare']:.2f}",
            f"{found['data_wait_share']:.2%}",
            f"{found['loaded_to_trained']:.1f}",
            f"{found['peak_mb']:.0f}{gpu}",
        )
    console.print(report["settings"])
    console.print(table)
    for act, found in report["model_folders"].items():
        console.print(
            f"{act}: {found['seconds']:.1f} s, {found['start_seconds']:.1f} s of them to start; "
            f"{found['peak_mb']:.0f} MB"
        )
    share = report["trainings"][FULL_SIZE]["data_wait_share"]
    console.print(
        f"waiting for data, full size: {share:.4f} (at most {MOST_WAITING}: "
        f"{'yes' if share <= MOST_WAITING else 'NO'})"
    )


if __name__ == "__main__":
    main()
