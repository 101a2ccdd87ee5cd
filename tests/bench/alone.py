"""Decode, models and search with no service around them: recognitions a second of as many processes as the service
has workers, each with the same threads. `python -m tests.bench.alone PHOTO SECONDS` prints the rate."""

import multiprocessing
import sys
import time
from pathlib import Path

from backend.bootstrap import prepare_environment


def work(photo: str, seconds: float, ready: "multiprocessing.synchronize.Barrier") -> float:
    """One process's rate, over its own time, counted after all are warm."""
    prepare_environment()
    import django

    django.setup()
    from backend.checkout.recogniser import get_recogniser, get_serving

    recogniser = get_recogniser(get_serving())
    data = Path(photo).read_bytes()
    for _ in range(5):
        recogniser.recognize(data, keep=lambda product_of: product_of)
    ready.wait()
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        recogniser.recognize(data, keep=lambda product_of: product_of)
        n += 1
    return n / (time.perf_counter() - started)


def main(photo: str, seconds: float) -> None:
    prepare_environment()
    import django

    django.setup()
    from django.conf import settings

    context = multiprocessing.get_context("spawn")
    n = settings.RECOGNITION_WORKERS
    with context.Manager() as manager, context.Pool(n) as pool:
        ready = manager.Barrier(n)
        print(sum(pool.starmap(work, [(photo, seconds, ready)] * n)))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
