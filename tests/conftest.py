"""Fixtures that several packages' tests share. The engines are started by tests/engines.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.live import LiveService, start_live_service

REPOSITORY = Path(__file__).resolve().parent.parent
# On a busy machine a draw takes as long as it takes: time says nothing of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
CHROMIUM = next(
    (path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.path.exists(path)), None
)

# Folders, and fixtures of others, whose tests share the engines, so that one process has to run them one by one.
ON_ENGINES = {"backend", "end_to_end"}
ENGINES = {"db", "live_service", "milvus_uri"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `pytest -n 2 --dist loadgroup`: what needs the engines in one process, the rest file by file in another."""
    for item in items:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        shared = folder in ON_ENGINES or not ENGINES.isdisjoint(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group("engines" if shared else item.path.stem))


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
