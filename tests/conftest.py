"""Fixtures that several packages' tests share. The engines are started by tests/engines.py."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import faults
from tests.live import LiveService, shipped_embedder, start_live_service

REPOSITORY = Path(__file__).resolve().parent.parent
# On a busy machine a draw takes as long as it takes: time says nothing of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
CHROMIUM = next(
    (path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.path.exists(path)), None
)

# Units of work, each for one process: the live service is one, so its tests are; those of its last file take the
# engines away from under it, and so from under whoever else uses them. All others go file by file.
LIVE = "the live service"
FAULTS = "faults of the engines"
UNITS = {"tests/end_to_end/test_faults.py": FAULTS, "tests/end_to_end/": LIVE}
# In the order in which they are done: what takes minutes first, so that no process is left with it alone at the end.
ON_ENGINES = (
    "tests/backend/gallery/test_reembedding.py",
    "tests/backend/evaluation/",
    "tests/training/test_documents.py",
    "tests/training/test_import_paddle.py",
    "tests/recognition/test_gallery.py",
    "tests/recognition/test_pipeline.py",
    "tests/bench/test_scale.py",
    "tests/backend/",
)


class UnitScheduling(LoadScopeScheduling):
    """With `pytest -n 3`, in processes on the one set of engines: the live service's tests and then the faults in one
    of them, beside what needs no engine in another; the rest wait, for a fault has its time to be told in. When the
    engines are there for good, what needs them, in all: they wait more than they compute."""

    def _split_scope(self, nodeid: str) -> str:
        return next(
            (unit for start, unit in UNITS.items() if nodeid.startswith(start)), nodeid.partition("::")[0]
        )

    def _next_unit(self, node: Any) -> str | None:
        """What a process is to do next; None while it has to wait."""
        if LIVE in self.workqueue:
            return LIVE
        live = next((one for one, work in self.assigned_work.items() if LIVE in work), node)
        if FAULTS in self.workqueue and node is live:
            return FAULTS
        over = self._faults_are_over_beside(node)
        others = [work for one, work in self.assigned_work.items() if one not in (node, live)]
        if not over and any(map(self._pending_of, others)):
            return None
        anywhere = next((unit for unit in self.workqueue if not unit.startswith((FAULTS, *ON_ENGINES))), None)
        if anywhere is not None or not over:
            return anywhere
        return min(
            self.workqueue, key=lambda unit: [unit.startswith(start) for start in ON_ENGINES].index(True)
        )

    def _faults_are_over_beside(self, node: Any) -> bool:
        """No other process has them before it or at work; what one gets behind its own comes after them."""
        elsewhere = [
            work[FAULTS] for one, work in self.assigned_work.items() if FAULTS in work and one is not node
        ]
        return FAULTS not in self.workqueue and all(all(unit.values()) for unit in elsewhere)

    def _assign_work_unit(self, node: Any) -> None:
        unit = self._next_unit(node)
        if unit is not None:
            self.workqueue.move_to_end(unit, last=False)
            super()._assign_work_unit(node)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        for other in self.nodes:  # which may have waited for it
            if other is not node:
                self._reschedule(other)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> UnitScheduling:
    return UnitScheduling(config, log)


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
    return shipped_embedder()


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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure, and at the full counts a figure, when it happens: whoever stops a long run knows them by then."""
    if os.environ.get("PYTEST_XDIST_WORKER") is not None:
        return
    if report.failed:
        print(f"\n{report.when} of {report.nodeid} failed", file=sys.__stderr__, flush=True)
    if faults.FULL:
        for test, text in figures([report]):
            print(f"\n{test}: {text} ({report.duration:.0f} s)", file=sys.__stderr__, flush=True)


def figures(reports: Iterable[pytest.TestReport]) -> list[tuple[str, str]]:
    """What tests told by the fixture `figure`: (test's name, text)."""
    return [
        (report.nodeid.rpartition("::")[2], str(text))
        for report in reports
        for name, text in report.user_properties
        if name == "figure" and report.when == "call"
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    told = figures(report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ()))
    if told:
        terminalreporter.section("figures")
    for test, text in told:
        terminalreporter.write_line(f"{test}\n    {text}")
