"""The main job, shown: engines, catalogue, models, web and workers, one recognition."""

import json
import os
import secrets
import socket
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import close_old_connections
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from backend.access.models import Device, Scope
from backend.access.services import create_device, find_device
from backend.bootstrap import BASE_DIR
from backend.catalogue.models import Product, ProductSet
from backend.engines import embedded
from backend.engines.supervisor import Child, Supervisor
from backend.gallery import enrolment
from backend.gallery.selectors import get_active_detector, get_active_generation
from backend.gallery.services import activate_model, install_model, plan_missing
from backend.gallery.thresholds import fit_thresholds, needs_fit
from recognition.metrics import basket_figures

FIXTURES = BASE_DIR / "fixtures"
CATALOGUE = FIXTURES / "demo_catalogue"
SCENE = CATALOGUE / "images" / "scenes" / "02.jpg"
# The fast ones; their fp32 originals lie beside them.
SHIPPED = ("checklane-detector-int8", "checklane-embedder-int8")
READY_WITHIN_SECONDS = 120
SECRETS_FILE = "demo.json"


class Command(BaseCommand):
    help = "Bring everything up with the demo catalogue, recognise one photo, and stay until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="stop everything after the recognition")

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console()
        try:
            self._run(console, once=options["once"])
        finally:
            if settings.EMBEDDED:
                console.print("stopping the engines ...")
                embedded.down(settings.DATA_DIR)

    def _run(self, console: Console, *, once: bool) -> None:
        console.print("engines are up; preparing the database ...")
        call_command("migrate", verbosity=0)
        known = _load_secrets()
        _see_to_models(console)
        _see_to_catalogue(console)
        # That of the last demo, if it can be: people paste commands with it.
        address = f"127.0.0.1:{_free_port(urlsplit(known.get('url', '')).port or 8000)}"
        _save_secrets(known | {"url": f"http://{address}"})
        supervisor = Supervisor(_children(address), data_dir=settings.DATA_DIR, report=console.print)
        with supervisor.running():
            with console.status("starting web and workers ..."):
                if not supervisor.watch(lambda: _is_ready(address), timeout_seconds=READY_WITHIN_SECONDS):
                    raise CommandError(
                        f"not ready after {READY_WITHIN_SECONDS} s; see {settings.DATA_DIR}/logs"
                    )
            with console.status("recognising a photo ..."):
                answer = _recognise(address, known["key"])
            _show(console, answer)
            _judge(console, answer)
            _tell(console, address, known)
            if not once:
                console.print("[bold]Ctrl-C stops everything.[/bold]")
                try:
                    supervisor.watch()
                except KeyboardInterrupt:
                    console.print()
            console.print("stopping web and workers ...")


def _load_secrets() -> dict[str, str]:
    """The demo's admin and device, made once; kept in the data folder so that the next demo prints the same.

    Raises:
        CommandError: the database has accounts that no demo made: it would take their `admin` over.
    """
    path = Path(settings.DATA_DIR) / SECRETS_FILE
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    users = get_user_model().objects
    if not path.exists() and users.exists():
        raise CommandError(
            f"found accounts in the database and no {path}, so this is no demo's: the demo would make the account"
            " 'admin' anew. Start web and workers one by one (docs/operating.md), or name another CHECKLANE_DATA"
        )
    if "password" not in known or not users.filter(username="admin").exists():
        known["password"] = secrets.token_urlsafe(9)
        users.filter(username="admin").delete()
        users.create_superuser("admin", password=known["password"])
        manager, _ = users.get_or_create(username="manager", defaults={"is_staff": True})
        manager.set_password(known["password"])
        manager.save()
        manager.groups.set([Group.objects.get(name="manager")])
    if "key" not in known or find_device(known["key"]) is None:
        Device.objects.filter(name="demo till").delete()
        _, known["key"] = create_device(name="demo till", scopes=list(Scope.values))
    _save_secrets(known)
    return known


def _save_secrets(known: dict[str, str]) -> None:
    path = Path(settings.DATA_DIR) / SECRETS_FILE
    path.touch(mode=0o600)
    path.write_text(json.dumps(known))


def _see_to_models(console: Console) -> None:
    for name in SHIPPED:
        model = install_model(FIXTURES / "models" / name)
        if model.task == "embedder" and get_active_generation() is None:
            activate_model(model)
            console.print(f"opened a gallery of {model}")
        elif model.task == "detector" and get_active_detector() is None:
            activate_model(model)


def _see_to_catalogue(console: Console) -> None:
    generation = get_active_generation()
    assert generation is not None
    if not Product.objects.exists():
        call_command("import_catalogue", CATALOGUE)
        everything = ProductSet.objects.create(slug="demo", name="Demo store")
        everything.products.set(Product.objects.all())
    plan_missing(generation)
    columns = (TextColumn("embedding pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    waiting = enrolment.count_waiting(generation)
    with Progress(*columns, console=console, disable=not waiting) as bar:
        row = bar.add_task("pictures", total=waiting)
        enrolment.enrol(generation, each=lambda n: bar.advance(row, n))
    if needs_fit(generation, settings.SEARCH_STRATEGY):
        fit_thresholds(generation, settings.SEARCH_STRATEGY, automatic=True)
    close_old_connections()


def _free_port(wanted: int) -> int:
    """`wanted`, or another when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(address: str) -> list[Child]:
    logs = Path(settings.DATA_DIR) / "logs"
    python = sys.executable
    celery = [python, "-m", "celery", "-A", "backend.worker"]
    # Workers need not know of each other; asking around takes a second of each start.
    worker = [*celery, "worker", "--without-mingle", "--without-gossip"]
    environ = dict(os.environ) | {"WEB_BIND": address, "LOG_LEVEL": "INFO"}
    return [
        Child(
            "web",
            [python, "-m", "gunicorn", "backend.wsgi", "-c", "backend/gunicorn.conf.py"],
            environ,
            logs / "web.log",
        ),
        Child(
            "worker-recognition",
            [*worker, "-Q", "recognition", "-n", "recognition@%h", "-c", str(settings.RECOGNITION_WORKERS)],
            environ | {"CHECKLANE_WARM_UP": "1"},
            logs / "worker-recognition.log",
        ),
        Child(
            "worker-bulk",
            [*worker, "-Q", "bulk,shadow", "-n", "bulk@%h", "-c", "2"],
            environ | {"THREADS_PER_WORKER": str(settings.BULK_THREADS)},
            logs / "worker-bulk.log",
        ),
        Child("beat", [*celery, "beat"], environ, logs / "beat.log"),
    ]


def _is_ready(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/readyz", timeout=5).ok
    except requests.RequestException:
        return False


def _recognise(address: str, key: str) -> dict[str, Any]:
    """Ask as a till does: what is answered with 503 is sent again, for a slow machine's worker is still warming up."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while True:
        with SCENE.open("rb") as file:
            found = requests.post(
                f"http://{address}/api/v1/recognitions",
                headers={"Authorization": f"Bearer {key}"},
                files={"image": (SCENE.name, file)},
                timeout=settings.RECOGNITION_PATIENCE_SECONDS + 5,
            )
        if found.status_code == 201:
            answer: dict[str, Any] = found.json()
            return answer
        if found.status_code != 503 or time.monotonic() > deadline:
            raise CommandError(f"the recognition failed: {found.status_code} {found.text}")
        time.sleep(int(found.headers["Retry-After"]))


def _show(console: Console, answer: dict[str, Any]) -> None:
    table = Table(title=f"Recognised in {SCENE.relative_to(BASE_DIR)}", title_justify="left")
    # Two lines an item: a terminal of 80 columns has no room for six columns and a product's name.
    for column in ("item", "product", "result", "price"):
        table.add_column(column, no_wrap=column != "product")
    for item in answer["items"]:
        product = item["product"] or {}
        box = ", ".join(f"{side:.0f}" for side in item["box"])
        similarity = "" if item["similarity"] is None else f"similarity {item['similarity']:.3f}"
        table.add_row(
            str(item["id"]),
            f"{product.get('name', '-')}\n{product.get('sku', '-')}, box {box}",
            f"{item['result'].replace('_', ' ')}\n{similarity}",
            f"{product['price']} {product['currency']}" if product.get("price") else "-",
        )
    console.print(table)
    basket = answer["basket"]
    console.print(
        f"basket: {basket['total'] or '-'} {basket['currency'] or ''}, "
        f"{'complete' if basket['complete'] else 'not complete'}; "
        + ", ".join(f"{stage} {spent:.0f} ms" for stage, spent in answer["timings_ms"].items())
    )


def _judge(console: Console, answer: dict[str, Any]) -> None:
    """Compare with what lies in the scene, as if each item that needs confirmation were confirmed as it is proposed."""
    written = json.loads((CATALOGUE / "scenes.json").read_text(encoding="utf-8"))
    [scene] = [one["id"] for one in written["images"] if one["file_name"].endswith(f"/{SCENE.name}")]
    there = Counter(one["sku"] for one in written["annotations"] if one["image_id"] == scene)
    if Product.objects.filter(sku__in=there).count() < len(there):
        return  # another catalogue than the demo's
    named = [item["product"] for item in answer["items"] if item["product"]]
    proposed = Counter(product["sku"] for product in named)
    apart = round(basket_figures([there], [proposed]).average_counting_distance)
    total = sum(Decimal(product["price"] or 0) for product in named)
    console.print(
        f"Confirmed as proposed, the basket is {total} EUR: "
        + ("right to the piece." if not apart else f"{apart} pieces too many or too few.")
    )


def _tell(console: Console, address: str, known: dict[str, str]) -> None:
    # Unwrapped, so that it can be copied as it is.
    console.print(
        f"\nadmin  http://{address}/admin/   user admin or manager, password {known['password']}\n"
        f"API    http://{address}/api/v1   described at http://{address}/api/schema\n\n"
        f"curl -H 'Authorization: Bearer {known['key']}' -F image=@{SCENE.relative_to(BASE_DIR)} "
        f"http://{address}/api/v1/recognitions\n",
        soft_wrap=True,
        highlight=False,
    )
