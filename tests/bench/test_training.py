"""What `make bench-training` measures is what it says, before minutes are spent on it."""

import sys
from pathlib import Path

import pytest
import torch

from tests.bench.training import (
    CONFIGS,
    FULL_SIZE,
    TRAININGS,
    bare_images_per_second,
    loaded_images_per_second,
    run,
    tensors,
)
from tests.training.runs import DETECTOR, EMBEDDER, ONE_PROCESS, written
from training.config import read_settings
from training.settings import DetectorSettings, EmbedderSettings
from training.train import build_task


def test_the_full_size_is_the_recipe_but_for_data_and_machine(tmp_path: Path) -> None:
    measured = TRAININGS[FULL_SIZE].settings(tmp_path)
    recipe = read_settings(CONFIGS / "general_rec_v2.toml")
    assert isinstance(measured, EmbedderSettings)
    assert isinstance(recipe, EmbedderSettings)
    for part in ("model", "losses", "input", "optimiser", "schedule"):
        assert getattr(measured, part) == getattr(recipe, part), part
    assert measured.data.augmentation == recipe.data.augmentation
    assert measured.data.sampler == recipe.data.sampler
    assert (measured.workers, measured.out) == (2, tmp_path)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_finds_its_data_and_gives_whole_batches(name: str, tmp_path: Path) -> None:
    settings = TRAININGS[name].settings(tmp_path)
    task = build_task(settings, ONE_PROCESS)
    assert settings.workers == 2
    assert task.sampler.batches_per_epoch >= 8
    assert len(next(iter(task.sampler))) == settings.batch_size


def test_memory_is_that_of_all_processes_at_once_and_no_page_counts_twice() -> None:
    """A program that holds 100 MB and forks while its child holds 150 MB; the fork holds nothing of its own."""
    child = "import time; held = bytearray(b'x') * 150_000_000; time.sleep(1.0)"
    program = f"""
import os, subprocess, sys, time
held = bytearray(b"x") * 100_000_000
if os.fork():
    subprocess.run([sys.executable, "-c", {child!r}], check=True)
else:
    time.sleep(1.0)
"""
    seconds, most = run(sys.executable, "-c", program, memory_every_seconds=0.1)
    assert 250e6 < most < 320e6
    assert seconds > 1.0


def test_a_program_that_fails_is_heard() -> None:
    with pytest.raises(RuntimeError, match="ended with 3:\nthe reason"):
        run(sys.executable, "-c", "print('the reason'); raise SystemExit(3)")


@pytest.mark.parametrize(("text", "kind"), [(EMBEDDER, EmbedderSettings), (DETECTOR, DetectorSettings)])
def test_bare_passes_and_loaders_are_measured(text: str, kind: type, tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, text))
    assert isinstance(settings, kind)
    assert bare_images_per_second(settings, ONE_PROCESS, seconds=0.05) > 0
    assert loaded_images_per_second(settings, ONE_PROCESS) > 0


def test_outputs_of_any_form_are_found() -> None:
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    assert [len(found) for found in tensors((one, None, ((two, 8), three)))] == [1, 2, 3]
