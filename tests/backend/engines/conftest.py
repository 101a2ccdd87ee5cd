"""A folder for engines' data."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.engines import embedded


def _folder() -> Iterator[Path]:
    # Not pytest's tmp_path: each run of pytest closes the parent of all of those to other accounts, and where tests
    # run as root PostgreSQL has another account.
    folder = Path(tempfile.mkdtemp(prefix="checklane-engines-"))
    yield folder
    embedded.down(folder)
    shutil.rmtree(folder)


folder = pytest.fixture(_folder, name="folder")
"""Empty; whatever engines a test starts in it are stopped at its end."""

module_folder = pytest.fixture(_folder, name="module_folder", scope="module")
"""The same, for all tests of a module."""
