"""pytest plugin: one set of real engines for the whole run, up before Django reads its settings.

CHECKLANE_TEST_DATA names a folder whose engines stay up between runs, for whoever runs single tests all day;
without it the set lives in a folder of its own and is stopped and removed at the end. Where tests run in several
processes (`pytest -n 3`), the first starts the set and the others find it by that name; each has its own database,
by pytest-django, and its own space of the broker.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from backend.engines import embedded
from tests.live import broker_space

KEPT = os.environ.get("CHECKLANE_TEST_DATA")
DATA_DIR = Path(KEPT or tempfile.mkdtemp(prefix="checklane-test-"))

os.environ["CHECKLANE_TEST_DATA"] = str(DATA_DIR)
os.environ["CHECKLANE_DATA"] = str(DATA_DIR)
os.environ["SECRET_KEY"] = "only-for-tests-" * 4
os.environ.setdefault("LOG_LEVEL", "WARNING")
embedded.provide(DATA_DIR)
NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["BROKER_URL"] = broker_space(
    os.environ["BROKER_URL"], NUMBER + 1 if NUMBER else 0
)  # 1 is the live service's


def pytest_unconfigure(config: pytest.Config) -> None:
    if KEPT is None:
        embedded.down(DATA_DIR)
        shutil.rmtree(DATA_DIR, ignore_errors=True)
