"""Restore a backup."""

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from backend.engines.backups import BackupRefused, restore_backup, verify_backup
from backend.engines.errors import EngineFailed
from backend.engines.management.commands.backup import database_environ, kept_folders


class Command(BaseCommand):
    help = (
        "Put a backup in the place of the database, the pictures and the models; Milvus is rebuilt from them. "
        "Stop web and workers first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="what `backup` has written")
        parser.add_argument("--force", action="store_true", help="replace what is there")

    def handle(self, *args: Any, **options: Any) -> None:
        # The one app that this one needs, and only here.
        from backend.gallery.reembedding import rebuild
        from backend.gallery.selectors import list_live_generations

        folder = options["folder"].resolve()
        try:
            manifest = verify_backup(folder)
            _refuse_newer(manifest.migrations)
            if not options["force"]:
                _refuse_occupied()
            connection.close()
            restore_backup(folder, database=database_environ(), folders=kept_folders())
        except (BackupRefused, EngineFailed) as error:
            raise CommandError(str(error)) from error
        call_command("migrate", verbosity=0)  # the backup may be an older version's
        # Nothing is dropped: a backup may be rehearsed beside the Milvus of others.
        jobs = [rebuild(generation, drop=False, asked_by="restore") for generation in list_live_generations()]
        self.stdout.write(
            f"restored the backup of {manifest.created}: {len(manifest.files)} files; all pictures of"
            f" {len(jobs)} generations are embedded again as soon as a worker runs"
        )


def _refuse_newer(migrations: tuple[str, ...]) -> None:
    known = {".".join(key) for key in MigrationLoader(None).disk_migrations}
    unknown = sorted(set(migrations) - known)
    if unknown:
        raise BackupRefused(
            f"the backup is of a newer Checklane, for it has {', '.join(unknown[:3])}: upgrade first"
        )


def _refuse_occupied() -> None:
    occupied = [
        str(folder) for folder in kept_folders().values() if folder.exists() and any(folder.iterdir())
    ]
    if connection.introspection.table_names():
        occupied.append(f"the database {connection.settings_dict['NAME']}")
    if occupied:
        raise BackupRefused(f"{' and '.join(occupied)} would be replaced: pass --force if that is meant")
