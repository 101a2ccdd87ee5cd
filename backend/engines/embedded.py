"""The embedded engines as one set under one data folder, shared by every process that names the folder.

`provide` is all that a program needs; `up`, `down`, `status` and `ensure` serve the commands, the tests and
the supervisor.
"""

import json
import os
import secrets
from collections.abc import Collection, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.engines.engine import Address, Engine
from backend.engines.milvus import Milvus
from backend.engines.postgres import Postgres
from backend.engines.processes import free_ports, locked, open_private
from backend.engines.valkey import Valkey

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Postgres, Valkey, Milvus)}


@dataclass(frozen=True)
class EngineUrls:
    """What the settings read as DATABASE_URL, BROKER_URL and MILVUS_URI."""

    database: str
    broker: str
    milvus: str


@dataclass(frozen=True)
class EngineStatus:
    """One embedded engine, as `manage.py engines status` shows it."""

    name: str
    version: str
    up: bool
    pid: int | None
    url: str | None  # with its password; None before the first start
    data_bytes: int  # disk used by its folder


def missing(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The engines that the environment names no server for, neither by URL nor by a file that holds the URL.

    Args:
        environ: may hold DATABASE_URL or DATABASE_URL_FILE, and so on. An empty value counts as missing.
    Returns:
        Names out of ENGINES.
    """
    return [
        name
        for name, engine in ENGINES.items()
        if not environ.get(engine.variable) and not environ.get(engine.variable + "_FILE")
    ]


def provide(data_dir: Path, environ: MutableMapping[str, str] = os.environ) -> EngineUrls:
    """Set each of DATABASE_URL, BROKER_URL and MILVUS_URI that is missing, to an embedded engine that is up.

    Args:
        data_dir: folder of the engines' data; made if missing.
        environ: read and completed.
    Returns:
        The three, whoever named them.
    Raises:
        EngineFailed: an engine could not be started.
    """
    names = missing(environ)
    if names:
        up(data_dir, names)
        addresses = _read_addresses(data_dir)
        for name in names:
            engine = ENGINES[name](data_dir.resolve(), addresses[name])
            environ[engine.variable] = engine.url
    return EngineUrls(*(_named(engine.variable, environ) for engine in (Postgres, Valkey, Milvus)))


def up(data_dir: Path, only: Collection[str] = tuple(ENGINES)) -> None:
    """Start the engines that are not up, side by side, and wait until they answer.

    Interrupted, it stops those that it began to start: half a start is of no use to anybody.

    Args:
        data_dir: folder of the engines' data; made if missing.
        only: names out of ENGINES.
    Raises:
        EngineFailed: an engine could not be started.
    """
    data_dir = data_dir.resolve()
    known = _read_addresses(data_dir)
    if all(name in known and ENGINES[name](data_dir, known[name]).is_up() for name in only):
        return
    with _lock(data_dir), ThreadPoolExecutor(len(ENGINES)) as pool:
        fallen = [engine for engine in _addressed(data_dir, only) if not engine.is_up()]
        starts = [pool.submit(engine.start) for engine in fallen]
        try:
            for start in starts:
                start.result()
        except KeyboardInterrupt:
            # A start ends when its process is gone; one that had none yet makes one first.
            while wait(starts, timeout=0.2).not_done:
                for engine in fallen:
                    engine.stop()
            raise


def down(data_dir: Path) -> None:
    """Stop the engines of the folder, by pid; their data stays."""
    data_dir = data_dir.resolve()
    if not data_dir.exists():
        return
    with _lock(data_dir), ThreadPoolExecutor(len(ENGINES)) as pool:
        list(pool.map(Engine.stop, _known(data_dir)))


def status(data_dir: Path) -> list[EngineStatus]:
    """How each engine of the folder is doing, whether or not it was ever started."""
    data_dir = data_dir.resolve()
    addresses = _read_addresses(data_dir)
    found = []
    for name, engine_class in ENGINES.items():
        engine = engine_class(data_dir, addresses.get(name, Address({}, "")))
        process = engine.process()
        found.append(
            EngineStatus(
                name=name,
                version=engine.version(),
                up=engine.is_up(),
                pid=process.pid if process else None,
                url=engine.url if name in addresses else None,
                data_bytes=_disk_use(engine.folder),
            )
        )
    return found


def ensure(data_dir: Path) -> list[str]:
    """Start again the engines that were up and have died since.

    Returns:
        The names of those.
    Raises:
        EngineFailed: one could not be started.
    """
    data_dir = data_dir.resolve()
    if all(engine.is_up() for engine in _known(data_dir) if engine.wanted()):
        return []
    with _lock(data_dir), ThreadPoolExecutor(len(ENGINES)) as pool:
        fallen = [engine.name for engine in _known(data_dir) if engine.wanted() and not engine.is_up()]
        list(pool.map(Engine.start, _addressed(data_dir, fallen)))
    return fallen


def _named(variable: str, environ: Mapping[str, str]) -> str:
    file = environ.get(variable + "_FILE")
    return Path(file).read_text().strip() if file else environ[variable]


def _lock(data_dir: Path) -> AbstractContextManager[None]:
    return locked(data_dir / "engines.lock")


def _known(data_dir: Path) -> list[Engine]:
    return [ENGINES[name](data_dir, address) for name, address in _read_addresses(data_dir).items()]


def _addressed(data_dir: Path, names: Collection[str]) -> list[Engine]:
    """These engines at their kept addresses; at a new one where another program listens on one of the ports.

    The caller holds the lock.
    """
    addresses = _read_addresses(data_dir)
    engines = []
    for name in names:
        engine_class = ENGINES[name]
        address = addresses.get(name)
        if address is None or not _usable(engine_class(data_dir, address)):
            ports = dict(zip(engine_class.port_names, free_ports(len(engine_class.port_names)), strict=True))
            # A cluster knows its password: that one is kept for good.
            address = Address(ports, address.password if address else secrets.token_urlsafe(24))
            addresses[name] = address
        engines.append(engine_class(data_dir, address))
    _write_addresses(data_dir, addresses)
    return engines


def _usable(engine: Engine) -> bool:
    """Whether the engine has its ports, or can have them."""
    return engine.process() is not None or engine.free_its_ports()


def _read_addresses(data_dir: Path) -> dict[str, Address]:
    try:
        stored = json.loads((data_dir / "engines.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: Address(**entry) for name, entry in stored.items()}


def _write_addresses(data_dir: Path, addresses: dict[str, Address]) -> None:
    unfinished = data_dir / "engines.json.unfinished"
    with open_private(unfinished) as file:
        json.dump({name: asdict(address) for name, address in addresses.items()}, file, indent=2)
    unfinished.replace(data_dir / "engines.json")


def _disk_use(folder: Path) -> int:
    total = 0
    for directory, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(directory, file)).st_blocks * 512
            except FileNotFoundError:
                continue  # servers remove files while we look
    return total
