"""The embedded engines from the shell."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from backend.engines import embedded
from backend.engines.errors import EngineFailed


class Command(BaseCommand):
    help = "Start, show or stop the embedded PostgreSQL, Valkey and Milvus of the data folder."
    requires_system_checks: list[str] = []  # they may ask the database, which may be down

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            choices=["up", "status", "down"],
            help="up: start those whose URL is not set in the environment; down: stop all, their data stays",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console()
        try:
            if options["action"] == "up":
                embedded.up(settings.DATA_DIR, embedded.missing())
            elif options["action"] == "down":
                embedded.down(settings.DATA_DIR)
            _show(console)
        except EngineFailed as error:
            raise CommandError(str(error)) from error


def _show(console: Console) -> None:
    table = Table(title=f"Embedded engines in {settings.DATA_DIR}")
    for column in ("engine", "version", "state", "pid", "address", "data"):
        table.add_column(column)
    names = embedded.missing()
    milvus_up = False
    for status in embedded.status(settings.DATA_DIR):
        state = "[green]up[/green]" if status.up else "starting" if status.pid else "[red]down[/red]"
        if status.name not in names:
            state += f" ({embedded.ENGINES[status.name].variable} is set)"
        milvus_up = milvus_up or (status.name == "milvus" and status.up)
        table.add_row(
            status.name,
            status.version,
            state,
            str(status.pid or "-"),
            urlsplit(status.url).netloc.rpartition("@")[2] if status.url else "-",
            decimal(status.data_bytes),
        )
    console.print(table)
    if milvus_up:
        console.print(
            "Milvus listens on all of this machine's addresses, without a password: not for production."
        )
