"""Milvus out of its wheel, in a data folder of its own: killed, it comes back with what it had answered."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from backend.engines import embedded
from backend.engines.processes import read_pid_file

N_FLUSHED, N_NEW, DIMENSION = 1500, 200, 32


@pytest.fixture(scope="module")
def data_dir(module_folder: Path) -> Path:
    embedded.up(module_folder, ["milvus"])
    return module_folder


def milvus(data_dir: Path) -> embedded.EngineStatus:
    return embedded.status(data_dir)[-1]


def test_killed_milvus_comes_back_with_its_rows_and_is_searchable_soon(data_dir: Path) -> None:
    client = MilvusClient(milvus(data_dir).url)
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIMENSION)
    indexes = client.prepare_index_params()
    indexes.add_index(
        "embedding", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 64}
    )
    client.create_collection("kept", schema=schema, index_params=indexes)
    vectors = np.random.default_rng(1).normal(size=(N_FLUSHED + N_NEW, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [{"id": number, "embedding": vector} for number, vector in enumerate(vectors)]
    client.insert("kept", rows[:N_FLUSHED])
    client.flush("kept")
    client.insert("kept", rows[N_FLUSHED:])  # answered, not flushed
    client.close()

    process = read_pid_file(data_dir / "milvus" / "pid")
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    while process.alive():
        time.sleep(0.01)
    assert embedded.ensure(data_dir) == ["milvus"]
    back = time.monotonic()

    client = MilvusClient(milvus(data_dir).url)
    while True:
        try:
            (found,) = client.query("kept", output_fields=["count(*)"], consistency_level="Strong")
            break
        except MilvusException:  # its collections are loaded again a moment after it answers
            assert time.monotonic() - back < 15  # the dead one's registrations would hold it up for 30 s
            time.sleep(0.2)
    assert found["count(*)"] == N_FLUSHED + N_NEW
    for number in (3, N_FLUSHED + 3):
        ((match,),) = client.search("kept", [vectors[number].tolist()], limit=1)
        assert match["id"] == number
    client.close()


def test_its_etcd_listens_on_localhost_only(data_dir: Path) -> None:
    """The rest listens on all addresses, which no setting of 2.3.5 changes; the documentation says so."""
    pid = milvus(data_dir).pid
    listening = subprocess.check_output(["ss", "-Hltnp"], text=True).splitlines()
    addresses = [line.split()[3] for line in listening if f"pid={pid}," in line]
    assert sum(address.startswith("127.0.0.1:") for address in addresses) == 2
    assert len(addresses) == 11


def test_interim_index_is_off(data_dir: Path) -> None:
    settings = json.loads((data_dir / "milvus" / "configuration" / "milvus.yaml").read_text())
    assert settings["queryNode"]["segcore"]["interimIndex"]["enableIndex"] is False
    assert settings["dataCoord"]["segment"]["maxSize"] == 512  # the wheel's own settings are kept beside ours
