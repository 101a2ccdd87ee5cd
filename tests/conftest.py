"""Fixtures that several packages' tests share. The engines are started by tests/engines.py."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.live import LiveService, start_live_service

REPOSITORY = Path(__file__).resolve().parent.parent
# On a busy machine a draw takes as long as it takes: time says nothing of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
CHROMIUM = next(
    (path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.path.exists(path)), None
)

# What shares the engines, and so has to run in one process, one by one.
ON_ENGINES = (
    "tests/backend/",
    "tests/bench/test_scale.py",
    "tests/end_to_end/",
    "tests/recognition/test_gallery.py",
    "tests/recognition/test_pipeline.py",
    "tests/training/test_documents.py",
    "tests/training/test_import_paddle.py",
)


class EnginesInOneProcess(LoadScopeScheduling):
    """With `pytest -n 2`: what needs the engines in one process, the rest file by file in the other."""

    def _split_scope(self, nodeid: str) -> str:
        return "engines" if nodeid.startswith(ON_ENGINES) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> EnginesInOneProcess:
    return EnginesInOneProcess(config, log)


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


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tell what a test saw; the run ends with a list of all that was told."""

    def tell(text: str) -> None:
        record_property("figure", text)

    return tell


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    told = [
        (report.nodeid.rpartition("::")[2], text)
        for report in reports
        for name, text in report.user_properties
        if name == "figure" and report.when == "call"
    ]
    if told:
        terminalreporter.section("figures")
    for test, text in told:
        terminalreporter.write_line(f"{test}\n    {text}")
