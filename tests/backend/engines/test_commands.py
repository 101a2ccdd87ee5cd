"""manage.py engines, backup and restore, as an operator runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
DATABASE = "commands_of_engines"

Manage = Callable[..., "subprocess.CompletedProcess[str]"]


def database_url() -> str:
    return os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{DATABASE}"


def run_manage(environ: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=REPOSITORY,
        env=os.environ | environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def manage(tmp_path: Path) -> Iterator[Manage]:
    """manage.py on a database and a data folder of its own, both empty for each new name of the folder."""
    server = psycopg2.connect(os.environ["DATABASE_URL"])
    server.autocommit = True

    def drop() -> None:
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")

    def run(*arguments: str, data: str = "data") -> "subprocess.CompletedProcess[str]":
        if not (tmp_path / data).exists():  # a new data folder stands for a new machine
            drop()
            with server.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
            (tmp_path / data).mkdir()
        return run_manage(
            {"DATABASE_URL": database_url(), "CHECKLANE_DATA": str(tmp_path / data)}, *arguments
        )

    yield run
    drop()
    server.close()


def test_engines_up_status_down(folder: Path) -> None:
    environ = {"CHECKLANE_DATA": str(folder), "BROKER_URL": ""}  # the other two are the run's
    up = run_manage(environ, "engines", "up")
    assert up.returncode == 0, up.stderr
    rows = [line for line in up.stdout.splitlines() if "│" in line]
    assert ["9.1.2" in row and " up " in row for row in rows] == [False, True, False]
    assert "down (DATABASE_URL is set)" in rows[0]
    assert (json.loads((folder / "engines.json").read_text())["valkey"]["password"]) not in up.stdout
    status = run_manage(environ, "engines", "status")
    assert " up " in status.stdout
    down = run_manage(environ, "engines", "down")
    assert down.returncode == 0, down.stderr
    assert " up " not in down.stdout


def test_a_database_without_tables_is_told_in_a_line(manage: Manage) -> None:
    refused = manage("evaluate_recall")
    assert refused.returncode == 1
    assert "run manage.py migrate first" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_backup_is_restored_on_another_machine(manage: Manage, tmp_path: Path) -> None:
    assert manage("migrate").returncode == 0
    create = "from backend.catalogue.models import Product; Product.objects.create(sku='4711', name='Kölnisch Wasser')"
    assert manage("shell", "-c", create).returncode == 0
    (tmp_path / "data" / "media").mkdir()
    (tmp_path / "data" / "media" / "picture.jpg").write_bytes(b"picture")
    backup = manage("backup", str(tmp_path / "backup"))
    assert backup.returncode == 0, backup.stderr
    assert "2 files" in backup.stdout

    restored = manage("restore", str(tmp_path / "backup"), data="new")
    assert restored.returncode == 0, restored.stderr
    with psycopg2.connect(database_url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM catalogue_product WHERE sku = '4711'")
        assert cursor.fetchall() == [("Kölnisch Wasser",)]
    connection.close()
    assert (tmp_path / "new" / "media" / "picture.jpg").read_bytes() == b"picture"

    again = manage("restore", str(tmp_path / "backup"), data="new")
    assert again.returncode == 1
    assert "--force" in again.stderr

    manifest = tmp_path / "backup" / "manifest.json"
    stored = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(stored | {"migrations": ["catalogue.9999_of_tomorrow"]}))
    newer = manage("restore", str(tmp_path / "backup"), "--force", data="new")
    assert newer.returncode == 1
    assert "catalogue.9999_of_tomorrow: upgrade first" in newer.stderr
