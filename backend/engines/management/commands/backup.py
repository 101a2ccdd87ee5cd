"""Back up the database, the pictures and the models."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from rich.filesize import decimal

from backend.engines.backups import BackupRefused, write_backup
from backend.engines.errors import EngineFailed


class Command(BaseCommand):
    help = (
        "Write the database, the pictures and the installed models into a new folder, with their SHA-256s. "
        "Milvus is not in it, for it can be rebuilt."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="must not exist, or be empty")

    def handle(self, *args: Any, **options: Any) -> None:
        folder = options["folder"].resolve()
        try:
            manifest = write_backup(
                folder,
                database=database_environ(),
                folders=kept_folders(),
                migrations=[".".join(key) for key in MigrationRecorder(connection).applied_migrations()],
            )
        except (BackupRefused, EngineFailed) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{len(manifest.files)} files, {decimal(manifest.size)}, in {folder}")
        if settings.S3_BUCKET:
            self.stdout.write(
                f"not in it: the pictures in the bucket {settings.S3_BUCKET}, which has its own backup"
            )


def database_environ() -> dict[str, str]:
    """The database's address as libpq's programs read it; a command line would show the password to everyone."""
    configured = connection.settings_dict
    values = {
        "PGHOST": configured["HOST"],
        "PGPORT": configured["PORT"],
        "PGUSER": configured["USER"],
        "PGPASSWORD": configured["PASSWORD"],
        "PGDATABASE": configured["NAME"],
        "PGSSLMODE": configured["OPTIONS"].get("sslmode"),
        "PGSSLROOTCERT": configured["OPTIONS"].get("sslrootcert"),
    }
    return {name: str(value) for name, value in values.items() if value}


def kept_folders() -> dict[str, Path]:
    """The folders that a backup keeps, by their names in it."""
    folders = {"models": Path(settings.MODELS_ROOT)}
    if not settings.S3_BUCKET:
        folders["media"] = Path(settings.MEDIA_ROOT)
    return folders
