"""Runs Checklane's processes in the foreground and starts again what dies: what `manage.py demo` stands on.

Production has its own supervisor (docker/). The embedded engines are not its children: they stay up when it ends.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from backend.engines import embedded
from backend.engines.errors import EngineFailed

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_ENSURE_SECONDS = 5.0

# Becomes the program, after it has asked the kernel for a SIGTERM when the supervisor is gone (1 is PR_SET_PDEATHSIG).
# It stands in a process of its own and not in Popen's preexec_fn, which may deadlock where the parent has threads.
_TIED_TO_US = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the supervisor has gone")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} could not be started: {error}")
"""


@dataclass(frozen=True)
class Child:
    """One process to keep running: its name for messages, command line, whole environment, file for its output."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    log: Path


@dataclass(frozen=True)
class Patience:
    """In seconds: the first and the longest pause before a restart, and the life after which pauses start anew."""

    first_pause: float = 0.5
    longest_pause: float = 30.0
    stable_after: float = 30.0
    grace: float = 15.0  # from SIGTERM to SIGKILL


class Supervisor:
    """Runs the children while a `with supervisor.running():` block lasts, and looks after them in `watch`.

    Use it in the main thread: its end is what the kernel tells the children.

    Args:
        children: started and stopped in this order.
        data_dir: folder of the embedded engines; those that die are started again too.
        report: called with a sentence whenever something died or came back.
        patience: the pauses.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        data_dir: Path,
        report: Callable[[str], None] = _log.warning,
        patience: Patience = Patience(),
    ) -> None:
        self._children = [_Running(child, patience) for child in children]
        self._data_dir = data_dir
        self._report = report
        self._engines_looked_at = time.monotonic()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the children; stop them, and all they have started, when the block is left.

        Inside the block SIGTERM does what Ctrl-C does: it raises KeyboardInterrupt.
        """
        handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for child in self._children:
                child.start()
            yield
        finally:
            for number in handlers:
                signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C must leave nothing running
            for child in self._children:
                child.stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def watch(
        self, until: Callable[[], bool] = lambda: False, *, timeout_seconds: float = float("inf")
    ) -> bool:
        """Start again what dies, children and engines, until something holds: by default, for ever.

        Args:
            until: asked ten times a second.
            timeout_seconds: give up after this long.
        Returns:
            Whether `until` came to hold.
        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM.
        """
        deadline = time.monotonic() + timeout_seconds
        while not until():
            if time.monotonic() > deadline:
                return False
            for child in self._children:
                child.look_after(self._report)
            if time.monotonic() > self._engines_looked_at + _ENSURE_SECONDS:
                self._look_after_engines()
            time.sleep(_POLL_SECONDS)
        return True

    def _look_after_engines(self) -> None:
        try:
            for name in embedded.ensure(self._data_dir):
                self._report(f"{name} had died and is up again")
        except (EngineFailed, OSError) as error:
            self._report(f"an embedded engine does not come up and is tried again: {error}")
        self._engines_looked_at = time.monotonic()


class _Running:
    """A child and its process, which leads a process group of its own."""

    def __init__(self, child: Child, patience: Patience) -> None:
        self._child = child
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = patience.first_pause
        self._started = self._start_again = 0.0

    def start(self) -> None:
        self._child.log.parent.mkdir(parents=True, exist_ok=True)
        with self._child.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TIED_TO_US, str(os.getpid()), *self._child.argv],
                env=dict(self._child.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C at the terminal reaches us alone: we stop them, in order
            )
        self._started = time.monotonic()

    def look_after(self, report: Callable[[str], None]) -> None:
        """Start it again if it has died and the pause is over."""
        if self._process is not None and self._has_ended():
            code = self._process.returncode
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self._process = None
            if time.monotonic() - self._started > self._patience.stable_after:
                self._pause = self._patience.first_pause
            self._start_again = time.monotonic() + self._pause
            report(
                f"{self._child.name} ended {how} and is started again in {self._pause:g} s; "
                f"its log: {self._child.log}"
            )
            self._pause = min(2 * self._pause, self._patience.longest_pause)
        if self._process is None and time.monotonic() >= self._start_again:
            self.start()

    def stop(self) -> None:
        if self._process is None:
            return
        os.kill(self._process.pid, signal.SIGTERM)  # not Popen's way, which reaps it when it has just ended
        deadline = time.monotonic() + self._patience.grace
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._process.returncode is None:
            self._kill_group()
            self._process.wait()
        self._process = None

    def _has_ended(self) -> bool:
        """Whether it has ended; if so, its own children are killed, for they'd hold ports and queues."""
        assert self._process is not None
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        if ended:
            self._kill_group()  # before it is reaped: until then nobody else can have its number
            self._process.wait()
        return ended

    def _kill_group(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
