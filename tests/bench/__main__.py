"""`make bench`: what an answer costs, and what of it is ours; each figure a ratio within one run.

Brings up the demo with a gallery of 50,000 embeddings and asks it over HTTP, as a till would. Machines are shared and
noisy: only the ratios are worth quoting, with this command beside them (docs/performance.md).

    make bench ARGS="--detector DIR"      with another detector than the one that ships
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from backend.engines import embedded
from tests.bench.asking import SCENE, percentiles, recognise
from tests.bench.milvus import resident_megabytes
from tests.bench.reembedding import measure_reembedding
from tests.live import REPOSITORY, LiveService, start_live_service

WORK = ("decode", "detect", "embed", "search")
# What is compared takes turns so often, and each turn gives a ratio: a machine's noise comes and goes.
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", type=Path, help="model folder; the one that ships unless given")
    parser.add_argument("--embeddings", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=200, help="for the latency of one client")
    parser.add_argument("--seconds", type=float, default=40, help="of each load, in all its turns")
    parser.add_argument(
        "--soak", type=int, default=2_000, help="recognitions for the memory figure; 0 leaves it out"
    )
    parser.add_argument("--pictures", type=int, default=2_000, help="that are embedded anew; 0 leaves it out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="checklane-bench-") as folder,
        running(Path(folder), options) as service,
    ):
        report: dict[str, Any] = {
            "settings": {
                "embeddings": options.embeddings,
                "detector": str(options.detector or "shipped"),
                "cores": os.cpu_count(),
            },
        }
        if options.pictures:  # before the gallery is full of strangers, which have no picture to embed
            report["reembedding"] = measure_reembedding(service, Path(folder) / "bulk", options.pictures)
        fill = [sys.executable, "-m", "tests.bench.fill", str(options.embeddings)]
        subprocess.run(fill, cwd=REPOSITORY, env=service.environ, check=True)
        for _ in range(20):
            recognise(service)
        report["latency"] = measure_latency(service, options.requests)
        report["throughput"] = measure_throughput(service, options.seconds)
        report["overload"] = measure_overload(service, options.seconds)
        if options.soak:
            report["memory"] = measure_memory(service, options.soak)
            report["milvus_mb"] = resident_megabytes(Path(folder))
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


@contextmanager
def running(folder: Path, options: argparse.Namespace) -> Iterator[LiveService]:
    """The demo on its own engines."""
    os.environ |= {"CHECKLANE_DATA": str(folder), "SECRET_KEY": "only-for-the-benchmark-" * 3}
    embedded.provide(folder)
    try:
        # A search that a busy machine holds up is a slow one here, and no failure.
        service = start_live_service(
            folder / "live", "bench", LOG_LEVEL="WARNING", MILVUS_TIMEOUT_SECONDS="10"
        )
        try:
            if options.detector:
                done = service.manage("install_model", str(options.detector.resolve()), "--activate")
                done.check_returncode()
            yield service
        finally:
            service.stop()
    finally:
        embedded.down(folder)


def echo(service: LiveService, session: requests.Session) -> float:
    started = time.perf_counter()
    session.post(f"{service.url}/api/v1/echo", headers=service.headers, timeout=30).raise_for_status()
    return 1000 * (time.perf_counter() - started)


def measure_latency(service: LiveService, n: int) -> dict[str, Any]:
    """One client: the whole answer, each stage, and the rest beside an echo, asked in turn so that noise hits both."""
    whole, rest, echoes, stages = [], [], [], {}
    items = 0
    with requests.Session() as session:
        for _ in range(n):
            status, spent, answer = recognise(service, session)
            assert status == 201, answer
            timings = answer["timings_ms"]
            whole.append(spent)
            rest.append(spent - sum(timings.get(stage, 0.0) for stage in WORK))
            for stage, milliseconds in timings.items():
                stages.setdefault(stage, []).append(milliseconds)
            echoes.append(echo(service, session))
            items = len(answer["items"])
    return {
        "items": items,
        "whole_ms": percentiles(whole),
        "stages_ms": {stage: percentiles(values) for stage, values in stages.items()},
        "rest_ms": percentiles(rest),
        "echo_ms": percentiles(echoes),
        "rest_to_echo": statistics.median(rest) / statistics.median(echoes),
    }


@dataclass(frozen=True)
class Load:
    """What became of a load: (status, ms) of every request, and the seconds that all of it took."""

    requests: list[tuple[int, float]]
    seconds: float

    @property
    def admitted_ms(self) -> list[float]:
        return [spent for status, spent in self.requests if status == 201]


def load(service: LiveService, clients: int, seconds: float) -> Load:
    """So many clients, each sending as soon as it has its answer; a refused one waits as long as it is told to."""
    started = time.monotonic()

    def client(_: int) -> list[tuple[int, float]]:
        seen = []
        with requests.Session() as session:
            while time.monotonic() < started + seconds:
                status, spent, _answer = recognise(service, session)
                seen.append((status, spent))
                if status == 429:
                    time.sleep(1.0)  # Retry-After
        return seen

    with ThreadPoolExecutor(clients) as pool:
        seen = [one for seen in pool.map(client, range(clients)) for one in seen]
    return Load(seen, time.monotonic() - started)


def measure_throughput(service: LiveService, seconds: float) -> dict[str, Any]:
    """Four clients, beside what decode, models and search alone reach in as many processes on the same cores."""
    over_http, alone = [], []
    command = [sys.executable, "-m", "tests.bench.alone", str(SCENE), str(seconds / ROUNDS)]
    for _ in range(ROUNDS):
        answered = load(service, 4, seconds / ROUNDS)
        over_http.append(len(answered.admitted_ms) / answered.seconds)
        bare = subprocess.run(
            command, cwd=REPOSITORY, env=service.environ, check=True, stdout=subprocess.PIPE, text=True
        )
        alone.append(float(bare.stdout))
    return {
        "over_http_per_s": statistics.median(over_http),
        "alone_per_s": statistics.median(alone),
        "share": statistics.median(ours / bare for ours, bare in zip(over_http, alone, strict=True)),
    }


def measure_overload(service: LiveService, seconds: float) -> dict[str, Any]:
    """Four clients, then forty, in turns; then four again: how much slower the admitted are, how soon it is over."""
    calm: list[list[float]] = []
    under: list[Load] = []
    for _ in range(ROUNDS):
        calm.append(load(service, 4, seconds / ROUNDS).admitted_ms)
        under.append(load(service, 40, seconds / ROUNDS))
    started = time.monotonic()
    limit = 1.2 * statistics.median(calm[-1])
    while statistics.median(load(service, 4, 1.0).admitted_ms) > limit and time.monotonic() < started + 30:
        pass
    return {
        "four_clients_ms": percentiles([spent for one in calm for spent in one]),
        "admitted_ms": percentiles([spent for one in under for spent in one.admitted_ms]),
        "slowdown": statistics.median(
            statistics.median(loaded.admitted_ms) / statistics.median(quiet)
            for quiet, loaded in zip(calm, under, strict=True)
        ),
        "statuses": dict(Counter(str(status) for one in under for status, _ in one.requests)),
        "recovered_after_s": time.monotonic() - started,
    }


def measure_memory(service: LiveService, n: int) -> dict[str, Any]:
    """Resident memory of web and recognition worker after n recognitions, beside that after the first 200."""

    def resident() -> dict[str, int]:
        return {
            name: sum(process.memory_info().rss for process in service.processes(name))
            for name in ("web", "recognition")
        }

    def send(count: int) -> None:
        left = iter(range(count))
        lock = threading.Lock()

        def client(_: int) -> None:
            with requests.Session() as session:
                while True:
                    with lock:
                        if next(left, None) is None:
                            return
                    recognise(service, session)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(client, range(4)))

    send(200)
    first = resident()
    send(n - 200)
    last = resident()
    return {
        kind: {
            "after_200_mb": first[kind] / 1e6,
            f"after_{n}_mb": last[kind] / 1e6,
            "growth": last[kind] / first[kind] - 1,
        }
        for kind in first
    }


def show(report: dict[str, Any]) -> None:
    console = Console()
    latency = report["latency"]
    table = Table(title=f"One client, {latency['items']} items, {report['settings']}")
    for column in ("", "p50 ms", "p95 ms"):
        table.add_column(column)
    rows: list[tuple[str, dict[str, float]]] = [("whole answer", latency["whole_ms"])]
    rows += [(f"  {stage}", values) for stage, values in latency["stages_ms"].items()]
    rows += [("neither decode, model nor search", latency["rest_ms"]), ("echo", latency["echo_ms"])]
    for name, values in rows:
        table.add_row(name, f"{values['p50']:.1f}", f"{values['p95']:.1f}")
    console.print(table)
    wanted: list[tuple[str, float, Callable[[float], bool], str]] = [
        ("rest / echo", latency["rest_to_echo"], lambda ratio: ratio <= 1.5, "at most 1.5"),
        (
            "throughput of 4 clients / alone",
            report["throughput"]["share"],
            lambda ratio: ratio >= 0.7,
            "at least 0.7",
        ),
        (
            "admitted under 40 clients / 4 clients",
            report["overload"]["slowdown"],
            lambda r: r <= 2,
            "at most 2",
        ),
        ("recovered after, s", report["overload"]["recovered_after_s"], lambda s: s <= 10, "at most 10"),
    ]
    wanted += [
        (f"memory growth of {kind}", values["growth"], lambda growth: growth <= 0.05, "at most 0.05")
        for kind, values in report.get("memory", {}).items()
    ]
    if "reembedding" in report:
        bulk = report["reembedding"]
        wanted += [
            (
                "re-embedding / decoding and embedder alone",
                bulk["share"],
                lambda r: r >= 0.85,
                "at least 0.85",
            ),
            ("p95 beside a re-embedding / at rest", bulk["slowdown"], lambda r: r <= 2, "at most 2"),
        ]
    for name, value, holds, limit in wanted:
        console.print(f"{name}: {value:.3f} ({limit}: {'yes' if holds(value) else 'NO'})")
    console.print(
        report["throughput"],
        report["overload"]["statuses"],
        report.get("memory", ""),
        {"milvus_mb": report["milvus_mb"]} if "milvus_mb" in report else "",
        report.get("reembedding", ""),
    )


if __name__ == "__main__":
    main()
