"""A real file system that is soon full."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DISK_BYTES = 4 << 20
MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo up && exec sleep infinity'


@contextmanager
def small_disk(folder: Path, size_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """A file system of 4 MiB or so, mounted over a folder; where it is reached from any process of this account.

    It lives in a mount namespace of its own, which root may make, and most other accounts within a user namespace. So
    nothing stays mounted: it ends with the process that holds it.
    """
    account = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    holder = subprocess.Popen(
        ["unshare", "--mount", *account, "sh", "-c", MOUNT, "sh", str(size_bytes), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"up\n":
            pytest.skip(f"no file system can be mounted here: {holder.communicate()[1].decode().strip()}")
        yield Path(f"/proc/{holder.pid}/root{folder}")
    finally:
        holder.kill()
        holder.communicate()


@contextmanager
def filled(disk: Path, *, but_bytes: int = 0) -> Iterator[None]:
    """With nothing left on it but so many bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        file.write(bytes(max(shutil.disk_usage(disk).free - but_bytes, 0)))
    try:
        yield
    finally:
        ballast.unlink()
