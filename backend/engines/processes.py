"""Detached server processes: started once, found again by any process, stopped by pid.

A pid alone is no identity, for the kernel hands it out again: a process is known here by boot, pid and start
time. Linux only, for it reads /proc.
"""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from backend.engines.errors import EngineFailed

_POLL_SECONDS = 0.05
_LOG_BYTES_KEPT = 20_000_000

# The process writes its own pid file and then becomes the server, so there is no moment in which a server
# runs and no file says so. It is a shell's background job, so that its parent is init and not who started it.
_LAUNCHER = """
sh -c '
read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat || exit 1
echo "$boot $stat" >"$0" && exec "$@"
' "$0" "$@" &
"""


@dataclass(frozen=True)
class ProcessId:
    """One process of this boot: pid and start time in clock ticks since boot (field 22 of /proc/PID/stat)."""

    boot: str
    pid: int
    started: int

    @classmethod
    def from_line(cls, line: str) -> "ProcessId":
        """Parse `BOOT_ID` and the line of /proc/PID/stat behind it, as the pid file holds them.

        Raises:
            ValueError: the line is not one of those, as in a file cut short by a kill.
        """
        boot, _, stat = line.partition(" ")
        pid, _, rest = stat.partition(" (")
        fields = rest.rpartition(") ")[2].split()  # the command's name may hold spaces and brackets
        if len(fields) < 20:
            raise ValueError(f"not a pid file: {line!r}")
        return cls(boot, int(pid), int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process runs: a zombie and another process with its pid do not count."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            fields = stat.rpartition(") ")[2].split()
            return fields[0] not in "ZX" and int(fields[19]) == self.started and self.boot == _boot_id()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def stop(self, first: signal.Signals, grace_seconds: float) -> None:
        """Send `first`, wait, and send SIGKILL if the process still runs.

        Raises:
            TimeoutError: it survived SIGKILL for five seconds (it hangs in the kernel).
        """
        for number, seconds in ((first, grace_seconds), (signal.SIGKILL, 5.0)):
            if not self.alive():
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            deadline = time.monotonic() + seconds
            while self.alive() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        if self.alive():
            raise TimeoutError(
                f"process {self.pid} did not end within 5 s of SIGKILL: look at its state in /proc"
            )


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_pid_file(path: Path) -> ProcessId | None:
    """The process that the pid file names, running or not; None without a file, or with one cut short."""
    try:
        return ProcessId.from_line(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def start_detached(
    argv: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    log: Path,
    pid_file: Path,
    user: str | None,
) -> ProcessId:
    """Start a server that outlives this process, in a session of its own.

    Args:
        argv: the server's command line; its first part an absolute path.
        folder: its working folder.
        environ: its whole environment.
        log: file that its output is appended to; one that has grown past 20 MB is put aside as `.1` first.
        pid_file: written by the server's own process; `user` must be able to write into its folder.
        user: name of the account to run as; None for this process's own.
    Raises:
        EngineFailed: the process did not come to life within five seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES_KEPT:
        log.replace(log.with_suffix(".log.1"))
    pid_file.unlink(missing_ok=True)
    with log.open("ab") as output:
        subprocess.run(
            ["/bin/sh", "-c", _LAUNCHER, str(pid_file), *argv],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            check=True,
            **as_user(user),
        )
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        process = read_pid_file(pid_file)
        if process is not None:
            return process
        time.sleep(_POLL_SECONDS)
    raise EngineFailed(f"{argv[0]} could not be started; see {log}")


def as_user(user: str | None) -> dict[str, Any]:
    """subprocess' arguments for running as another account, without this one's groups; empty for None."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def leftovers(folder: Path, programs: frozenset[str]) -> list[ProcessId]:
    """Processes of these programs that work inside the folder: what a killed server or starter left behind.

    Args:
        folder: absolute, without links.
        programs: file names of executables; others (a person's shell, say) are never listed.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # A folder or a program that was removed meanwhile (`rm -r var`, a new .venv) is still the one we mean.
            working_folder, program = (
                Path(os.readlink(entry / link).removesuffix(" (deleted)")) for link in ("cwd", "exe")
            )
            if program.name in programs and working_folder.is_relative_to(folder):
                found.append(ProcessId.from_line(f"{_boot_id()} {(entry / 'stat').read_text()}"))
        except (FileNotFoundError, ProcessLookupError, PermissionError, ValueError):
            continue  # gone meanwhile, or another account's: not started by us
    return found


def open_private(path: Path) -> TextIO:
    """Open a text file for writing, emptied, that only its owner may read."""
    return open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file alone, among threads and processes; the kernel frees it if its holder is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the TCP port, on any address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: closed connections don't block
        try:
            probe.bind(("", port))  # Milvus listens on all addresses
            probe.listen(1)
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that nobody listens on.

    They lie below the range that Linux gives to outgoing connections (32768 to 60999), so that none of those
    takes the port while a server restarts.

    Raises:
        EngineFailed: there are too few.
    """
    ports: list[int] = []
    for port in random.sample(range(20000, 32000), 2000):
        if port_is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise EngineFailed(f"{count} free TCP ports wanted between 20000 and 32000, found {len(ports)}")
