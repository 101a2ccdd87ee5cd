"""A running Checklane for tests: `manage.py demo` on the run's engines, with its own database and broker space."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2

REPOSITORY = Path(__file__).resolve().parent.parent
UP_WITHIN_SECONDS = 600
# A word of the command line that tells the demo's processes apart.
COMMANDS = {"web": "gunicorn", "recognition": "recognition", "bulk": "bulk,shadow", "beat": "beat"}


@dataclass
class LiveService:
    """The demo, up. `environ` reaches its database and engines from another process."""

    url: str
    key: str
    username: str
    password: str
    environ: dict[str, str]
    data_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        """Of the demo's device, which has every scope."""
        return {"Authorization": f"Bearer {self.key}"}

    def manage(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py beside it."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def install(self, folder: Path) -> str:
        """Install the embedder in a folder; how the API calls it."""
        installed = self.manage("install_model", str(folder))
        assert installed.returncode == 0, installed.stderr
        card = json.loads((folder / "card.json").read_text())
        return f"{card['name']}:{card['version']}"

    def install_again(self, embedder: Path, folder: Path) -> str:
        """Install an embedder under another version, by a copy in `folder`: its gallery is embedded and not copied."""
        shutil.copytree(embedder, folder)
        card = json.loads((folder / "card.json").read_text()) | {"version": "again"}
        (folder / "card.json").write_text(json.dumps(card))
        return self.install(folder)

    def processes(self, name: str) -> list[psutil.Process]:
        """Of "web", "recognition", "bulk" or "beat": the first is the one that the demo looks after, then its own."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # killed a moment ago
                if COMMANDS[name] in child.cmdline():
                    return [child, *child.children(recursive=True)]
        return []

    def peak_memory(self) -> dict[str, int]:
        """Bytes that the processes of web and recognition had resident at the most, each at its own time."""
        return {name: sum(map(_peak, self.processes(name))) for name in ("web", "recognition")}

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)


def _peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def start_live_service(data_dir: Path, name: str, **settings: str) -> LiveService:
    """Start the demo in a database of its own, and wait until it has shown its recognition.

    Args:
        data_dir: for pictures, models and logs.
        name: of the database; made anew.
        settings: further environment variables.
    """
    database_url = make_database(name)
    environ = (
        dict(os.environ)
        | {
            "CHECKLANE_DATA": str(data_dir),
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_space(os.environ["BROKER_URL"], 1),
            "LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }
        | settings
    )
    environ.pop("CHECKLANE_EMBEDDED_ENGINES", None)
    log = data_dir / "demo.log"
    data_dir.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "demo"],
            cwd=REPOSITORY,
            env=environ,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    while "Ctrl-C" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"the demo did not come up:\n{log.read_text()}")
        time.sleep(0.2)
    known = json.loads((data_dir / "demo.json").read_text())
    return LiveService(
        known["url"], known["key"], "admin", known["password"], environ, data_dir, process, log
    )


def shipped_embedder() -> Path:
    """The model folder of the embedder that the demo takes."""
    return REPOSITORY / "fixtures" / "models" / "checklane-embedder-int8"


def broker_space(url: str, number: int) -> str:
    """The URL of one of the broker's numbered spaces."""
    return re.sub(r"(/\d*)?$", f"/{number}", url, count=1)


def make_database(name: str) -> str:
    """The URL of an empty database on the run's server, made anew."""
    url = os.environ["DATABASE_URL"]
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return url.rsplit("/", 1)[0] + f"/{name}"
