"""What the embedded engines have in common: a folder, kept ports and password, a pid file, a ready mark."""

import importlib.util
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import ClassVar

from backend.engines.errors import EngineFailed
from backend.engines.processes import ProcessId, leftovers, port_is_free, read_pid_file, start_detached

_POLL_SECONDS = 0.05
_PORTS_SECONDS = 5.0


@dataclass(frozen=True)
class Address:
    """What an engine keeps from its first start to the next: its TCP ports by name, and its password."""

    ports: dict[str, int]
    password: str


@dataclass(frozen=True)
class Launch:
    """How the server is started: command line, environment, account to run as (None: our own)."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    user: str | None = None


class Engine(ABC):
    """One embedded server under one folder.

    The folder holds `data`, `pid` (written by the server's process itself) and `ready` (a copy of `pid`,
    written once the server has answered). Callers hold the data folder's lock around `start` and `stop`.
    """

    name: ClassVar[str]
    variable: ClassVar[str]  # the environment variable that names such a server by URL
    programs: ClassVar[frozenset[str]]  # file names of its executables
    port_names: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[Signals]
    grace_seconds: ClassVar[float]  # from that signal to SIGKILL
    start_seconds: ClassVar[float]  # it must answer within

    def __init__(self, data_dir: Path, address: Address) -> None:
        self.folder = data_dir / self.name
        self.data = self.folder / "data"
        self.log = data_dir / "logs" / f"{self.name}.log"
        self.address = address
        self._pid_file = self.folder / "pid"
        self._ready_file = self.folder / "ready"

    @property
    @abstractmethod
    def url(self) -> str:
        """What the environment variable is set to."""

    @abstractmethod
    def version(self) -> str:
        """The server's version."""

    @abstractmethod
    def _prepare(self) -> Launch:
        """Make the data folder if there is none, heal what a kill left, write the configuration."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server serves now; must not raise when it does not."""

    def process(self) -> ProcessId | None:
        """The running server's process, or None."""
        process = read_pid_file(self._pid_file)
        return process if process is not None and process.alive() else None

    def wanted(self) -> bool:
        """Whether it was started and not stopped since, however it may be doing."""
        return self._pid_file.exists()

    def is_up(self) -> bool:
        """Whether it runs and has answered since its start. Costs three small files, no connection."""
        return self.process() is not None and read_pid_file(self._ready_file) == read_pid_file(self._pid_file)

    def free_its_ports(self) -> bool:
        """Clear away what a killed server left, and see whether its ports are free then.

        The threads and children of a killed server hold its ports for a moment longer than it lives.
        """
        self._stop_leftovers()
        deadline = time.monotonic() + (_PORTS_SECONDS if self.wanted() else 0)
        while not all(map(port_is_free, self.address.ports.values())):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers.

        Raises:
            EngineFailed: its wheel is missing, it ended, or it did not answer in time.
        """
        process = self.process()
        if process is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._stop_leftovers()
            launch = self._prepare()
            self._ready_file.unlink(missing_ok=True)
            process = start_detached(
                launch.argv,
                folder=self.folder,
                # Not ours: Milvus would take settings from it, and our secrets are no business of theirs.
                environ={"PATH": os.defpath, "HOME": str(self.folder), **launch.environ},
                log=self.log,
                pid_file=self._pid_file,
                user=launch.user,
            )
        deadline = time.monotonic() + self.start_seconds
        while not self._answers():
            if not process.alive():
                raise EngineFailed(f"{self.name} ended while starting. {self._end_of_log()}")
            if time.monotonic() > deadline:
                raise EngineFailed(
                    f"{self.name} (process {process.pid}) did not answer within {self.start_seconds:.0f} s. "
                    f"{self._end_of_log()}"
                )
            time.sleep(_POLL_SECONDS)
        self._ready_file.write_text(self._pid_file.read_text())

    def stop(self) -> None:
        """Stop it by pid, and what it left behind; afterwards it is no longer wanted."""
        process = self.process()
        if process is not None:
            process.stop(self.stop_signal, self.grace_seconds)
        self._stop_leftovers()
        self._ready_file.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)

    def _stop_leftovers(self) -> None:
        for process in leftovers(self.folder, self.programs):
            process.stop(self.stop_signal, grace_seconds=5)

    def _end_of_log(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-15:]
        except FileNotFoundError:
            lines = []
        return f"The end of {self.log}:\n" + "\n".join(lines)


def wheel_folder(package: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        EngineFailed: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EngineFailed(
            f"the embedded engines need the package {package!r}, which is not installed: "
            "pip install 'checklane[embedded]', or name a server by DATABASE_URL, BROKER_URL and MILVUS_URI"
        )
    return Path(spec.submodule_search_locations[0])
