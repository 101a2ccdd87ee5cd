"""PostgreSQL and Valkey out of their wheels, in data folders of their own: started once, killed, healed, stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from backend.engines import embedded
from backend.engines.engine import wheel_folder
from backend.engines.errors import EngineFailed
from backend.engines.processes import read_pid_file

REPOSITORY = Path(__file__).parents[3]
STORES = ("postgres", "valkey")
NO_MILVUS = {"MILVUS_URI": "http://192.0.2.1:19530"}  # an address of documentation: nobody asks it


@pytest.fixture(scope="module")
def data_dir(module_folder: Path) -> Iterator[Path]:
    """A set that the module's tests share, in a folder deeper than a unix socket's path may be long."""
    folder = module_folder / ("a-folder-with-a-long-name" * 3) / ("and-another-one" * 4)
    assert len(str(folder)) > 107
    embedded.up(folder, STORES)
    yield folder
    embedded.down(folder)


def urls(data_dir: Path) -> embedded.EngineUrls:
    return embedded.provide(data_dir, dict(NO_MILVUS))


def kill(data_dir: Path, name: str) -> None:
    process = read_pid_file(data_dir / name / "pid")
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    while process.alive():
        time.sleep(0.001)


def query(data_dir: Path, sql: str, *, fetch: bool = True) -> object:
    with psycopg2.connect(urls(data_dir).database) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if fetch else None


def broker(data_dir: Path) -> "redis.Redis":
    return redis.Redis.from_url(urls(data_dir).broker)


def test_provide_sets_only_what_is_missing(data_dir: Path) -> None:
    environ = {**NO_MILVUS, "BROKER_URL": "redis://broker.example:6379/0", "DATABASE_URL": ""}
    found = embedded.provide(data_dir, environ)
    assert found.broker == environ["BROKER_URL"] == "redis://broker.example:6379/0"
    assert found.milvus == NO_MILVUS["MILVUS_URI"]
    assert found.database == environ["DATABASE_URL"]
    assert found.database.startswith("postgresql://checklane:")


def test_server_named_in_a_file_is_not_missing(tmp_path: Path) -> None:
    environ = dict(NO_MILVUS)
    for variable, url in (
        ("DATABASE_URL", "postgresql://db.example/checklane"),
        ("BROKER_URL", "redis://b.example/0"),
    ):
        (tmp_path / variable).write_text(url + "\n")
        environ[variable + "_FILE"] = str(tmp_path / variable)
    assert embedded.missing(environ) == []
    found = embedded.provide(tmp_path / "unused", environ)
    assert (found.database, found.broker) == ("postgresql://db.example/checklane", "redis://b.example/0")
    assert not (tmp_path / "unused").exists()


def test_provide_is_fast_when_all_are_up(data_dir: Path) -> None:
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        urls(data_dir)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.02


def test_they_ask_for_a_password_and_listen_on_localhost_only(data_dir: Path) -> None:
    found = urls(data_dir)
    database_port = int(found.database.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(host="127.0.0.1", port=database_port, user="checklane", password="guess")
    broker_port = int(found.broker.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=broker_port).ping()
    for port in (database_port, broker_port):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=2)  # another address of this machine
    secrets = (
        (data_dir / "engines.json").stat().st_mode & 0o077,
        (data_dir / "valkey" / "valkey.conf").stat().st_mode & 0o077,
    )
    assert secrets == (0, 0)


def test_database_knows_upper_and_lower_case_of_every_alphabet(data_dir: Path) -> None:
    assert query(data_dir, "SELECT upper('äpfel, žluté')") == "ÄPFEL, ŽLUTÉ"


def test_broker_never_forgets_to_make_room(data_dir: Path) -> None:
    settings = broker(data_dir).config_get("maxmemory-policy", "appendonly")
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes"}


@pytest.mark.parametrize("name", STORES)
def test_killed_engine_comes_back_with_its_data_at_its_address(data_dir: Path, name: str) -> None:
    before = urls(data_dir)
    query(data_dir, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer", fetch=False)
    broker(data_dir).delete("queue")
    broker(data_dir).lpush("queue", "one", "two")

    kill(data_dir, name)

    assert embedded.ensure(data_dir) == [name]
    assert embedded.ensure(data_dir) == []
    assert urls(data_dir) == before
    assert query(data_dir, "SELECT answer FROM kept") == 42
    assert broker(data_dir).llen("queue") == 2


def test_backend_that_outlived_its_killed_server_does_not_stand_in_the_way(data_dir: Path) -> None:
    """A backend in the middle of a query does not notice its server's death; the next server must not wait for it."""
    connection = psycopg2.connect(urls(data_dir).database)
    backend = connection.get_backend_pid()
    os.kill(backend, signal.SIGSTOP)
    kill(data_dir, "postgres")
    assert embedded.ensure(data_dir) == ["postgres"]
    assert query(data_dir, "SELECT 1") == 1
    assert "postgres" not in _program_of(backend)


def test_servers_pid_file_with_a_number_that_is_another_programs_by_now(data_dir: Path) -> None:
    kill(data_dir, "postgres")
    stale = data_dir / "postgres" / "data" / "postmaster.pid"
    lines = stale.read_text().splitlines()
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        stale.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert embedded.ensure(data_dir) == ["postgres"]
        assert query(data_dir, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_recycled_pid_in_our_own_pid_file_is_never_stopped(folder: Path) -> None:
    embedded.up(folder, ["valkey"])
    embedded.down(folder)
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        line = Path(f"/proc/{stranger.pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = line.split()
        fields[21] = str(int(fields[21]) - 1)  # as if an earlier process had had this pid
        (folder / "valkey" / "pid").write_text(f"{boot} {' '.join(fields)}")
        embedded.down(folder)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_ten_processes_at_once_start_each_engine_once(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.engines import embedded;"
        f"print(embedded.provide(Path(sys.argv[1]), {NO_MILVUS!r}))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(10)]
    answers = {starter.communicate(timeout=60)[0] for starter in starters}
    assert len(answers) == 1
    assert "postgresql://" in answers.pop()
    assert (folder / "logs" / "valkey.log").read_text().count("Ready to accept connections") == 1
    assert (folder / "logs" / "postgres.log").read_text().count("ready to accept connections") == 1


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["starter", "starter-and-its-initdb"])
def test_first_start_killed_half_way_heals(folder: Path, kill: Callable[[int, int], None]) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.engines import embedded;"
        "embedded.up(Path(sys.argv[1]), ['postgres'])"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True)
    while not (folder / "postgres" / "data.unfinished" / "base").exists():
        assert starter.poll() is None
        time.sleep(0.005)
    kill(starter.pid, signal.SIGKILL)
    starter.wait()
    embedded.up(folder, ["postgres"])
    assert query(folder, "SELECT current_database()") == "checklane"


@pytest.mark.parametrize("begun", ["postgres/data.unfinished", "milvus/pid"])
def test_demo_interrupted_before_it_is_up_leaves_no_engine(folder: Path, begun: str) -> None:
    """As by Ctrl-C at a terminal: every process of the foreground group hears it."""
    urls = {engine.variable for engine in embedded.ENGINES.values()}
    environ = {name: value for name, value in os.environ.items() if name not in urls}
    demo = subprocess.Popen(
        [sys.executable, "manage.py", "demo"],
        cwd=REPOSITORY,
        env=environ | {"CHECKLANE_DATA": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell in the background ignores it, and with it all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (folder / begun).exists():
        assert demo.poll() is None
        time.sleep(0.01)
    os.killpg(demo.pid, signal.SIGINT)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode != 0
    assert "Traceback" not in said
    assert not any(status.up or status.pid for status in embedded.status(folder))


def test_port_taken_by_another_program_while_stopped(folder: Path) -> None:
    embedded.up(folder, ["valkey"])
    first = broker(folder)
    first.set("kept", "yes")
    port = int(first.connection_pool.connection_kwargs["port"])
    embedded.down(folder)
    with socket.create_server(("127.0.0.1", port)):
        embedded.up(folder, ["valkey"])
        assert broker(folder).connection_pool.connection_kwargs["port"] != port
        assert broker(folder).get("kept") == b"yes"


def test_down_leaves_no_process_and_keeps_the_data(folder: Path) -> None:
    embedded.up(folder, STORES)
    query(folder, "CREATE TABLE kept AS SELECT 7 AS answer", fetch=False)
    processes = [read_pid_file(folder / name / "pid") for name in STORES]
    embedded.down(folder)
    assert all(process is not None and not process.alive() for process in processes)
    assert not any(status.up or status.pid for status in embedded.status(folder))
    assert embedded.ensure(folder) == []  # what was stopped on purpose stays down
    embedded.up(folder, ["postgres"])
    assert query(folder, "SELECT answer FROM kept") == 7
    embedded.down(folder)


def test_down_where_nothing_was_ever_started(folder: Path) -> None:
    embedded.down(folder / "none")
    assert not (folder / "none").exists()


def test_status_tells_version_pid_url_and_size(data_dir: Path) -> None:
    found = {status.name: status for status in embedded.status(data_dir)}
    assert found["postgres"].version.startswith("18.")
    assert found["postgres"].up
    assert found["postgres"].data_bytes > 20_000_000
    assert found["valkey"].url == urls(data_dir).broker
    milvus = found["milvus"]
    assert (milvus.version, milvus.up, milvus.pid, milvus.url) == ("2.3.5", False, None, None)


def test_starter_killed_while_it_waited_leaves_a_server_that_the_next_one_takes_over(folder: Path) -> None:
    embedded.up(folder, ["valkey"])
    first = read_pid_file(folder / "valkey" / "pid")
    (folder / "valkey" / "ready").unlink()  # as if its starter had not lived to see it answer
    assert not any(status.up for status in embedded.status(folder))
    embedded.up(folder, ["valkey"])
    assert read_pid_file(folder / "valkey" / "pid") == first
    assert any(status.up for status in embedded.status(folder))


def test_server_whose_folder_was_removed_under_it_is_stopped_before_the_next(folder: Path) -> None:
    embedded.up(folder, ["valkey"])
    first = read_pid_file(folder / "valkey" / "pid")
    shutil.rmtree(folder / "valkey")
    (folder / "engines.json").unlink()
    embedded.up(folder, ["valkey"])
    assert first is not None
    assert not first.alive()
    assert broker(folder).ping()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="the other tests run as a plain user"
)
def test_a_plain_user_can_have_them_too(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.engines import embedded; data = Path(sys.argv[1]);"
        "embedded.up(data, ['postgres', 'valkey']); print([s.up for s in embedded.status(data)]); embedded.down(data)"
    )
    folder.chmod(0o777)
    # The capability lets it read this Python where that lies in root's home; it cannot write anywhere more.
    capability = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        *capability,
        sys.executable,
        "-c",
        code,
    ]
    result = subprocess.run([*command, str(folder / "data")], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[True, True, False]", result.stderr


def test_failing_start_says_why(folder: Path) -> None:
    embedded.up(folder, ["valkey"])
    embedded.down(folder)
    next((folder / "valkey" / "data" / "appendonlydir").glob("*.manifest")).write_text("not a manifest\n")
    with pytest.raises(EngineFailed, match=r"valkey ended while starting(.|\n)*manifest"):
        embedded.up(folder, ["valkey"])


def test_missing_wheel_says_what_to_install() -> None:
    with pytest.raises(EngineFailed, match=r"pip install 'checklane\[embedded\]'"):
        wheel_folder("no_such_wheel")


def _program_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
