"""The supervisor with real child processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.engines import embedded
from backend.engines.supervisor import Child, Patience, Supervisor

QUICK = Patience(first_pause=0.1, longest_pause=0.4, stable_after=60, grace=0.5)

# Says its pid and that of a child of its own, then waits.
PARENT = """
import subprocess, sys, os, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(60)
"""
SHORT_LIVED = "print('born', flush=True)"

# A supervisor in a process of its own, so that signals can be sent to it.
SUPERVISOR = """
import sys
from pathlib import Path
from backend.engines.supervisor import Child, Patience, Supervisor
folder, *codes = sys.argv[1:]
programs = [
    Child(f"p{n}", [sys.executable, "-c", code], {"PATH": "/usr/bin:/bin"}, Path(folder) / f"p{n}.log")
    for n, code in enumerate(codes)
]
try:
    supervisor = Supervisor(programs, data_dir=Path(folder), patience=Patience(0.1, 0.4, 60, 0.5))
    with supervisor.running():
        print("up", flush=True)
        supervisor.watch()
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def child(tmp_path: Path, code: str, name: str = "child") -> Child:
    return Child(name, [sys.executable, "-c", code], {"PATH": os.defpath}, tmp_path / f"{name}.log")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def said(log: Path) -> list[int]:
    """The numbers in the log so far."""
    return [int(word) for word in log.read_text().split()] if log.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def supervisor_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*codes: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", SUPERVISOR, str(tmp_path), *codes]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_killed_child_is_started_again_and_its_own_children_are_gone(tmp_path: Path) -> None:
    reports: list[str] = []
    log = tmp_path / "child.log"
    supervisor = Supervisor(
        [child(tmp_path, PARENT)], data_dir=tmp_path, report=reports.append, patience=QUICK
    )
    with supervisor.running():
        assert supervisor.watch(lambda: len(said(log)) == 2, timeout_seconds=10)
        first, grandchild = said(log)
        os.kill(first, signal.SIGKILL)
        assert supervisor.watch(lambda: len(said(log)) == 4, timeout_seconds=10)
        wait_for(lambda: not running(grandchild))
        assert reports == [f"child ended by signal 9 and is started again in 0.1 s; its log: {log}"]
    wait_for(lambda: not any(map(running, said(log))))


def test_pause_grows_up_to_its_limit(tmp_path: Path) -> None:
    reports: list[str] = []
    supervisor = Supervisor(
        [child(tmp_path, SHORT_LIVED)], data_dir=tmp_path, report=reports.append, patience=QUICK
    )
    with supervisor.running():
        supervisor.watch(lambda: len(reports) >= 4, timeout_seconds=20)
    pauses = [report.split(" again in ")[1].split(" s")[0] for report in reports]
    assert pauses == ["0.1", "0.2", "0.4", "0.4"]
    assert "with exit code 0" in reports[0]


def test_pause_starts_anew_after_a_stable_life(tmp_path: Path) -> None:
    reports: list[str] = []
    patience = Patience(first_pause=0.1, longest_pause=5, stable_after=0, grace=0.5)
    supervisor = Supervisor(
        [child(tmp_path, SHORT_LIVED)], data_dir=tmp_path, report=reports.append, patience=patience
    )
    with supervisor.running():
        supervisor.watch(lambda: len(reports) >= 3, timeout_seconds=20)
    assert all("again in 0.1 s" in report for report in reports)


def test_watch_gives_up_in_time(tmp_path: Path) -> None:
    supervisor = Supervisor([], data_dir=tmp_path, report=print)
    with supervisor.running():
        assert not supervisor.watch(lambda: False, timeout_seconds=0.2)


def test_program_that_does_not_exist_leaves_the_others_stopped(tmp_path: Path) -> None:
    reports: list[str] = []
    missing = Child("missing", ["/no/such/program"], {}, tmp_path / "missing.log")
    programs = [child(tmp_path, PARENT), missing]
    supervisor = Supervisor(programs, data_dir=tmp_path, report=reports.append, patience=QUICK)
    with supervisor.running():
        supervisor.watch(lambda: bool(reports) and len(said(tmp_path / "child.log")) == 2, timeout_seconds=10)
    assert reports[0].startswith("missing ended with exit code 1")
    assert "/no/such/program could not be started" in (tmp_path / "missing.log").read_text()
    wait_for(lambda: not any(map(running, said(tmp_path / "child.log"))))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_all_even_the_stubborn(
    tmp_path: Path, number: int, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = supervisor_process(PARENT, STUBBORN)
    wait_for(lambda: len(said(tmp_path / "p0.log")) == 2 and len(said(tmp_path / "p1.log")) == 1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert output == "stopped\n"
    assert process.returncode == 0
    wait_for(lambda: not any(map(running, said(tmp_path / "p0.log") + said(tmp_path / "p1.log"))))


def test_ctrl_c_at_the_terminal_reaches_the_supervisor_alone(
    tmp_path: Path, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = supervisor_process(PARENT)
    wait_for(lambda: len(said(tmp_path / "p0.log")) == 2)
    child = said(tmp_path / "p0.log")[0]
    assert os.getpgid(child) == child != os.getpgid(process.pid)


def test_killed_supervisor_leaves_no_orphans(
    tmp_path: Path, supervisor_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = supervisor_process(PARENT, PARENT)
    wait_for(lambda: len(said(tmp_path / "p0.log")) == len(said(tmp_path / "p1.log")) == 2)
    children = [said(tmp_path / name)[0] for name in ("p0.log", "p1.log")]
    grandchildren = [said(tmp_path / name)[1] for name in ("p0.log", "p1.log")]
    process.kill()
    wait_for(lambda: not any(map(running, children)))
    for pid in (
        grandchildren
    ):  # a program sees to its own children when it gets SIGTERM; this one of the test doesn't
        os.kill(pid, signal.SIGKILL)


def test_engine_that_died_is_started_again(folder: Path) -> None:
    embedded.up(folder, ["valkey"])
    reports: list[str] = []
    (pid,) = [status.pid for status in embedded.status(folder) if status.name == "valkey"]
    assert pid is not None
    supervisor = Supervisor([], data_dir=folder, report=reports.append)
    with supervisor.running():
        os.kill(pid, signal.SIGKILL)
        assert supervisor.watch(lambda: bool(reports), timeout_seconds=20)
    assert reports == ["valkey had died and is up again"]
    assert any(status.up for status in embedded.status(folder))  # it stays up when the supervisor ends
