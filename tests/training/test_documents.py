"""What docs/training.md tells a reader to paste, pasted in its order; and its tables against the code."""

import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from recognition.model_card import load_model_folder
from tests.docs.test_docs import DOCS, SPAN, rows, shell_blocks
from tests.live import REPOSITORY, make_database
from training import settings
from training.checkpoint import load
from training.components import BACKBONES, DISTILLATION_LOSSES, HEADS, LOSSES, NECKS, TRUNKS
from training.import_paddle import PUBLISHED

PAGE = DOCS / "training.md"
CONFIGS = REPOSITORY / "training" / "configs"
# What is not pasted: packages that are here already, GPUs that are not, weights from elsewhere (test_import_paddle.py
# imports such by the same command), and minutes of training what ships (test_unfold.py has its first step).
ELSEWHERE = ("pip install", "torchrun", "curl ", "training.import_paddle", "model.start_from=")
PROGRAM = ".venv/bin/python -m "
COMPONENTS: dict[str, dict[str, type[Any]]] = {
    "`model.backbone`": BACKBONES,
    "`model.backbone`, of a detector": TRUNKS,
    "`model.neck`": NECKS,
    "`model.head`": HEADS,
    "`losses`, of an embedder": LOSSES,
    "`losses`, of a pair": DISTILLATION_LOSSES,
}
KINDS = {
    "`model.start_from`": settings.StartChoice,
    "`data.train` of an embedder, a list": settings.PictureSource,
    "`data.train` of a detector, a list": settings.SceneSource,
    "`data.sampler`": settings.SamplerChoice,
    "`data.augmentation`": settings.AugmentationChoice,
    "`optimiser`": settings.Optimiser,
    "`schedule`": settings.ScheduleChoice,
    "`evaluation.source` of an embedder": settings.RetrievalSource,
    "`evaluation.source` of a detector": settings.SceneSource,
}


def paste(block: str, folder: Path, **environment: str) -> None:
    """Run a block of the page; each of its commands must end well.

    The training programs run in this process, which has PyTorch already; all else in a shell.

    Args:
        block: of commands.
        folder: stands for /tmp.
        environment: further variables of the shell.
    """
    block = block.replace("/tmp/", f"{folder}/")  # noqa: S108
    lines = block.splitlines()
    if all(line.startswith(PROGRAM) for line in lines):
        for line in lines:
            name, *arguments = shlex.split(line.removeprefix(PROGRAM))
            inner = f"{name}.__main__" if name == "training.export" else name
            assert importlib.import_module(inner).main(arguments) in (0, None), line
        return
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace(".venv/bin/python", sys.executable)],
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=200,
        check=True,
    )


def test_the_walk_from_photos_to_a_served_model_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    folder = tmp_path / "my-training"
    *training_blocks, serving = [
        block for block in shell_blocks(PAGE) if not any(word in block for word in ELSEWHERE)
    ]
    for block in training_blocks:
        paste(block, tmp_path)
    said, complained = capfd.readouterr()
    assert complained == ""

    best = load(folder / "run" / "best.pt")
    assert best.best is not None
    assert best.best > 0.3  # what stands on the page, less a margin
    assert f"mAP  {best.best:.4f}" in said  # as evaluate says it
    assert load(folder / "run" / "latest.pt").epoch == 2
    listed = {SPAN.findall(cells[0])[0] for cells in rows(PAGE, "4. Train") if cells[0].startswith("`")}
    assert listed == {path.name for path in (folder / "run").iterdir()}
    [embedded] = [line for line in said.splitlines() if line.startswith("{")]
    embedding = json.loads(embedded)["embedding"]
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    model, int8 = load_model_folder(folder / "model").card, load_model_folder(folder / "model-int8").card
    assert (model.name, model.dimension, model.precision) == ("my-embedder", len(embedding), "fp32")
    assert (int8.name, int8.precision) == ("my-embedder-int8", "int8")

    paste(serving, tmp_path, DATABASE_URL=make_database("by_the_book"))
    said = capfd.readouterr().out
    assert "my-embedder 1 is active" in said
    line = next(line for line in said.splitlines() if "exact (NumPy)" in line)  # of the first table
    # OpenVINO adds up in another order than PyTorch: one query of 90 may fall to the other side.
    assert float(line.split("│")[4]) == pytest.approx(100 * best.figures["recall@1"], abs=1.2)


# --- tables -----------------------------------------------------------------------------------------------
def test_each_configuration_has_its_line_and_figures_of_its_head() -> None:
    told = set()
    for cells in rows(PAGE, "What each configuration gave"):
        names = SPAN.findall(cells[0])
        heads = [re.findall(r"^#.*", (CONFIGS / f"{name}.toml").read_text(), re.M) for name in names]
        given = " ".join(line for head in heads for line in head)
        assert all(figure in given for figure in re.findall(r"\d+\.\d+", cells[-1])), cells
        told |= set(names)
    assert told == {path.stem for path in CONFIGS.glob("*.toml")}


def test_the_table_of_components_is_what_can_be_named() -> None:
    told: dict[str, dict[str, dict[str, str]]] = {}
    for part, *cells in rows(PAGE, "A configuration of your own"):
        if len(cells) == 2 and cells[0].startswith("`"):
            arguments = re.findall(r"`(\w+)` ([^,]+)", cells[1])
            told.setdefault(part, {})[SPAN.findall(cells[0])[0]] = dict(arguments)
    assert told.keys() == COMPONENTS.keys()
    for part, table in COMPONENTS.items():
        assert told[part].keys() == table.keys()
        for name, component in table.items():
            wanted = {
                argument.name: argument.default
                for argument in inspect.signature(component).parameters.values()
                if argument.kind is argument.KEYWORD_ONLY and argument.name != "n_classes"
            }
            assert told[part][name].keys() == wanted.keys(), name
            for argument, default in wanted.items():  # none, and one of None, are told in words
                assert default in (None, inspect.Parameter.empty) or told[part][name][argument] == json.dumps(
                    default
                ), (name, argument)


def test_the_table_of_kinds_is_what_can_be_chosen() -> None:
    told = {
        cells[0]: set(SPAN.findall(cells[1]))
        for cells in rows(PAGE, "A configuration of your own")
        if len(cells) == 2 and cells[0].startswith("`")
    }
    assert told == {table: kinds(choice) for table, choice in KINDS.items()}


def kinds(choice: Any) -> set[str]:
    """What the key `kind` may say in a table of settings."""
    tables = get_args(get_args(choice)[0]) if get_args(choice) else (choice,)
    return {kind for table in tables for kind in get_args(get_type_hints(table)["kind"])}


def test_the_published_files_are_told_by_the_importers_names() -> None:
    addresses = {
        name: cells[1]
        for cells in rows(PAGE, "PP-ShiTu's published weights")
        for name in SPAN.findall(cells[0])
        if name in PUBLISHED
    }
    between = {name for name in PUBLISHED if re.fullmatch(r"pplcnet_x\d_\d+", name)}
    assert PUBLISHED.keys() == addresses.keys() | between
    assert all(re.match(r"<https://\S+\.pdparams>", address) for address in addresses.values())
