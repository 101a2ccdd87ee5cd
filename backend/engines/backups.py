"""Backup and restore of what cannot be rebuilt: the database and the folders of pictures and models.

A backup is a folder:

    manifest.json   when and by what it was made, and the SHA-256 and size of every other file
    database.dump   pg_dump's custom format
    <name>/...      one folder for each name that was given, a plain copy

Milvus is not in it: its collections are rebuilt from the other two.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from backend.engines.postgres import find_client_program

FORMAT = 1
_MANIFEST = "manifest.json"
_DUMP = "database.dump"
_CHUNK = 1 << 20

# Emptied and filled again in one transaction: a restore that fails leaves what was there. It does not wait for long
# where a running web or worker process holds a table.
_EMPTY_THE_DATABASE = """
SET LOCAL lock_timeout = '5s';
DROP SCHEMA public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""


class BackupRefused(Exception):
    """The backup or the restore was not made; the message says what was found and what to do."""


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of a file."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. Paths are relative to its folder, with `/`."""

    created: str  # ISO 8601, UTC
    checklane: str  # version that made it
    migrations: tuple[str, ...]  # "app.name" of those applied to its database
    files: Mapping[str, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files.values())


def write_backup(
    target: Path, *, database: Mapping[str, str], folders: Mapping[str, Path], migrations: Collection[str]
) -> Manifest:
    """Write a backup. It is written aside and renamed when whole, so a folder of that name is a whole backup.

    The database comes first: a picture that arrives meanwhile is then copied without its row, never missing.

    Args:
        target: the backup's folder; must not exist, or be empty.
        database: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and what else libpq reads.
        folders: by the name that they get in the backup; one that does not exist counts as empty.
        migrations: "app.name" of those applied.
    Raises:
        BackupRefused: the target is not empty, or pg_dump failed.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackupRefused(f"{target} exists already: name a new folder for each backup")
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)  # it holds password hashes and keys' hashes
    _run("pg_dump", "--format=custom", f"--file={unfinished / _DUMP}", database=database)
    for name, folder in folders.items():
        _copy(folder, unfinished / name)
    files = {path: _entry(unfinished / path) for path in sorted(_files(unfinished))}
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checklane=version("checklane"),
        migrations=tuple(sorted(migrations)),
        files=files,
    )
    (unfinished / _MANIFEST).write_text(json.dumps({"format": FORMAT} | asdict(manifest), indent=1))
    if target.exists():
        target.rmdir()
    unfinished.rename(target)
    return manifest


def verify_backup(source: Path) -> Manifest:
    """Read the manifest and compare every file with it.

    Raises:
        BackupRefused: something is missing, changed or too much, or it is no backup that we can read.
    """
    try:
        stored = json.loads((source / _MANIFEST).read_text())
        found_format = stored.pop("format")
    except (OSError, ValueError, KeyError) as error:
        raise BackupRefused(f"{source} is no backup: its {_MANIFEST} cannot be read ({error})") from error
    if found_format != FORMAT:
        raise BackupRefused(f"{source} has format {found_format}, this version reads {FORMAT}")
    entries = {path: FileEntry(**entry) for path, entry in stored.pop("files").items()}
    manifest = Manifest(files=entries, **stored)
    found = set(_files(source)) - {_MANIFEST}
    for what, paths in (("missing", entries.keys() - found), ("not in the manifest", found - entries.keys())):
        if paths:
            raise BackupRefused(f"{source} is damaged: {', '.join(sorted(paths)[:5])} {what}")
    for path, entry in entries.items():
        if _entry(source / path) != entry:
            raise BackupRefused(f"{source} is damaged: {path} is not what its SHA-256 in the manifest says")
    return manifest


def restore_backup(source: Path, *, database: Mapping[str, str], folders: Mapping[str, Path]) -> None:
    """Put a verified backup in the place of what is there. The database's part happens wholly or not at all.

    Args:
        source: folder that `verify_backup` has accepted.
        database: as for `write_backup`; its public schema is replaced.
        folders: as for `write_backup`; their contents are replaced.
    Raises:
        BackupRefused: pg_restore or psql failed; nothing has changed then.
    """
    try:
        for name, folder in folders.items():
            shutil.rmtree(_aside(folder), ignore_errors=True)
            _copy(source / name, _aside(folder))
        _restore_database(source / _DUMP, database)
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
            _aside(folder).rename(folder)
    finally:
        for folder in folders.values():
            shutil.rmtree(_aside(folder), ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".restoring")


def _restore_database(dump: Path, database: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "database.sql")
        _run("pg_restore", "--no-owner", "--no-privileges", f"--file={script}", str(dump))
        _run(
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            f"--command={_EMPTY_THE_DATABASE}",
            f"--file={script}",
            database=database,
        )


def _run(program: str, *arguments: str, database: Mapping[str, str] | None = None) -> None:
    result = subprocess.run(
        [find_client_program(program), *arguments],
        env={"PATH": os.environ.get("PATH", os.defpath), **(database or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise BackupRefused(f"{program} ended with code {result.returncode}: {result.stderr.strip()}")


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's plain files; one that vanishes meanwhile (an old query image, purged) is left out."""
    target.mkdir(parents=True)
    for path in _files(source):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(source / path, target / path)


def _files(folder: Path) -> Iterator[str]:
    """Relative paths of the plain files below a folder; links are not followed and not listed."""
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def _entry(path: Path) -> FileEntry:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return FileEntry(digest.hexdigest(), path.stat().st_size)
