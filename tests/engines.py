"""pytest plugin: one set of real engines for the whole run, up before Django reads its settings.

CHECKLANE_TEST_DATA names a folder whose engines stay up between runs, for whoever runs single tests all day;
without it the set lives in a folder of its own and is stopped and removed at the end. Where tests run in several
processes (`pytest -n 2`), the first starts the set and the others find it by that name; each has its own database,
by pytest-django, and its own space of the broker.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from backend.engines import embedded

KEPT = os.environ.get("CHECKLANE_TEST_DATA")
DATA_DIR = Path(KEPT or tempfile.mkdtemp(prefix="checklane-test-"))

os.environ["CHECKLANE_TEST_DATA"] = str(DATA_DIR)
os.environ["CHECKLANE_DATA"] = str(DATA_DIR)
os.environ["SECRET_KEY"] = "only-for-tests-" * 4
os.environ.setdefault("LOG_LEVEL", "WARNING")
embedded.provide(DATA_DIR)
# Space 1 is the live service's.
SPACES = {"gw0": 0, "gw1": 2, "gw2": 3, "gw3": 4}
os.environ["BROKER_URL"] = re.sub(
    r"(/\d*)?$", f"/{SPACES[os.environ.get('PYTEST_XDIST_WORKER', 'gw0')]}", os.environ["BROKER_URL"], count=1
)


def pytest_unconfigure(config: pytest.Config) -> None:
    if KEPT is None:
        embedded.down(DATA_DIR)
        shutil.rmtree(DATA_DIR, ignore_errors=True)
