"""Fixtures that several packages' tests share. The engines are started by tests/engines.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import LiveService, start_live_service

REPOSITORY = Path(__file__).resolve().parent.parent
CHROMIUM = next(
    (path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.path.exists(path)), None
)


@pytest.fixture(scope="session")
def milvus_uri() -> str:
    """The run's Milvus."""
    return os.environ["MILVUS_URI"]


@pytest.fixture(scope="session")
def demo_catalogue() -> Path:
    """The shipped demo catalogue, in the folder format."""
    return REPOSITORY / "fixtures" / "demo_catalogue"


@pytest.fixture(scope="session")
def embedder_folder() -> Path:
    """The shipped embedder's model folder."""
    folders = sorted((REPOSITORY / "fixtures" / "models").glob("*/card.json"))
    return next(card.parent for card in folders if '"embedder"' in card.read_text())


@pytest.fixture(scope="session")
def live_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """Web, workers and beat with the demo catalogue, shared by the run: tests leave it as they found it."""
    service = start_live_service(tmp_path_factory.mktemp("live"), "live")
    yield service
    service.stop()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium; without one browser tests are skipped, but in CI they must run."""
    if CHROMIUM is None:
        message = "no Chromium at /usr/bin/chromium: install the system's package 'chromium'"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return CHROMIUM
