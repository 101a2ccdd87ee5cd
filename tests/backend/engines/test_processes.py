"""Real processes: what is started is found again, what is not ours is never touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backend.engines.processes import (
    ProcessId,
    free_ports,
    leftovers,
    locked,
    port_is_free,
    read_pid_file,
    start_detached,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> ProcessId:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ProcessId.from_line(f"{boot} {Path(f'/proc/{pid}/stat').read_text()}")


def start(folder: Path, *argv: str) -> ProcessId:
    return start_detached(
        argv, folder=folder, environ={}, log=folder / "log", pid_file=folder / "pid", user=None
    )


def wait_for(condition: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_process_is_known_by_more_than_its_pid(sleeper: subprocess.Popen[bytes]) -> None:
    process = identity(sleeper.pid)
    assert process.alive()
    assert not replace(process, started=process.started - 1).alive()
    assert not replace(process, boot="of the day before").alive()


def test_recycled_pid_is_not_stopped(sleeper: subprocess.Popen[bytes]) -> None:
    replace(identity(sleeper.pid), started=1).stop(signal.SIGTERM, grace_seconds=0)
    time.sleep(0.1)
    assert sleeper.poll() is None


def test_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["/bin/true"])
    process = identity(child.pid)
    wait_for(lambda: not process.alive())
    child.wait()


def test_stop_kills_what_ignores_the_first_signal(tmp_path: Path) -> None:
    process = start(tmp_path, "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(lambda: "ready" in (tmp_path / "log").read_text())
    process.stop(signal.SIGTERM, grace_seconds=0.2)
    assert not process.alive()


def test_detached_process_outlives_its_starter_and_is_found_by_its_pid_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.engines.processes import start_detached;"
        "f = Path(sys.argv[1]);"
        "start_detached(['/bin/sleep', '60'], folder=f, environ={}, log=f / 'log', pid_file=f / 'pid', user=None)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    process = read_pid_file(tmp_path / "pid")
    assert process is not None
    assert process.alive()
    assert os.getsid(process.pid) != os.getsid(0)
    process.stop(signal.SIGTERM, grace_seconds=5)
    assert not process.alive()


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    for word in ("one", "two"):
        start(tmp_path, "/bin/sh", "-c", f"echo {word}; echo {word} >&2")
        wait_for(lambda word=word: (tmp_path / "log").read_text().count(word) == 2)


def test_pid_file_cut_short_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("0e9f 123 (sle")
    assert read_pid_file(tmp_path / "pid") is None
    assert read_pid_file(tmp_path / "none") is None


def test_name_with_spaces_and_brackets_does_not_confuse(tmp_path: Path) -> None:
    program = tmp_path / "a ) R 1 (b"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    process = start(tmp_path, str(program), "60")
    assert process == identity(process.pid)
    assert process.alive()
    process.stop(signal.SIGTERM, grace_seconds=5)


def test_leftovers_are_only_the_named_programs_inside_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    ours = subprocess.Popen(["/bin/sleep", "60"], cwd=inside / "deep")
    elsewhere = subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path)
    persons_shell = subprocess.Popen(["/bin/sh", "-c", "read line"], cwd=inside, stdin=subprocess.PIPE)
    try:
        program = Path("/bin/sleep").resolve().name
        wait_for(lambda: leftovers(inside, frozenset({program})))
        assert [found.pid for found in leftovers(inside, frozenset({program}))] == [ours.pid]
    finally:
        for process in (ours, elsewhere, persons_shell):
            process.kill()
            process.communicate()


def test_lock_is_exclusive_and_freed_by_the_death_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from backend.engines.processes import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    waiting = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        time.sleep(0.5)
        assert waiting.poll() is None
        holder.kill()
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"held\n"
    finally:
        for process in (holder, waiting):
            process.kill()
            process.communicate()
    with locked(path):
        pass


def test_free_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    ports = free_ports(12)
    assert len(set(ports)) == 12
    assert max(ports) < 32768
    assert all(map(port_is_free, ports))
