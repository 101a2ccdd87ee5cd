"""What happens before Django: which engines are ours to start, and when."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.bootstrap import prepare_environment
from tests.live import REPOSITORY

ENGINE_VARIABLES = ("DATABASE_URL", "BROKER_URL", "MILVUS_URI")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with a data folder of its own, that names no engine."""
    monkeypatch.setenv("CHECKLANE_DATA", str(tmp_path))
    for name in (*ENGINE_VARIABLES, "CHECKLANE_EMBEDDED_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_engines_named_in_files_are_not_embedded(environ, tmp_path):
    """Else a secret key that was forgotten in production would be made up instead of asked for."""
    for name in ENGINE_VARIABLES:
        file = tmp_path / name
        file.write_text("scheme://elsewhere")
        environ.setenv(f"{name}_FILE", str(file))
    prepare_environment()
    assert "CHECKLANE_EMBEDDED_ENGINES" not in os.environ


def test_one_missing_engine_is_embedded(environ):
    environ.setenv("DATABASE_URL", "postgresql://elsewhere/checklane")
    environ.setenv("BROKER_URL", "redis://elsewhere")
    prepare_environment(start_engines=False)
    assert "CHECKLANE_EMBEDDED_ENGINES" in os.environ


@pytest.mark.parametrize("arguments", [["recognise", "--help"], []])
def test_who_asks_for_help_waits_for_no_engine(environ, tmp_path, arguments):
    asked = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    assert not (tmp_path / "engines.json").exists()
