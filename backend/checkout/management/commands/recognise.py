"""The pipeline from the shell: no queue, no web, nothing stored."""

import json
import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from backend.catalogue.models import ProductSet
from backend.catalogue.services import image_limits
from backend.checkout.answers import make_answer
from backend.checkout.models import Recognition
from backend.checkout.recogniser import Serving, get_recogniser, get_serving, recognise_image
from backend.common.commands import refusals_shown
from recognition import images
from recognition.drawing import LabelledBox, draw_boxes
from recognition.errors import RecognitionError
from recognition.ranking import Result


class Command(BaseCommand):
    help = (
        "Recognise photos with what is active now; print a table, write JSON, draw boxes. Nothing is stored."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
        parser.add_argument("--product-set", metavar="SLUG", help="search only in this product set")
        parser.add_argument(
            "--candidates", type=int, default=5, help="products to name for each item (default 5)"
        )
        parser.add_argument(
            "--json", type=Path, metavar="FILE", help="write the answers, as the API gives them"
        )
        parser.add_argument("--draw", type=Path, metavar="DIR", help="write each photo with its boxes drawn")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_shown():
            serving = get_serving()
            get_recogniser(serving)  # so that the first photo's time is its own
        if serving.detector is None:
            self.stderr.write("no detector is active: each photo is taken as one product")
        product_set = _find_product_set(options["product_set"])
        answers, refused = {}, 0
        for path in options["images"]:
            try:
                answer = self._recognise(serving, path, product_set, options["candidates"])
            except (OSError, RecognitionError) as error:
                # One bad photo does not keep the others from being recognised.
                self.stderr.write(f"{path}: {error}")
                refused += 1
                continue
            answers[str(path)] = answer
            _show(path, answer)
            if options["draw"] is not None:
                _draw(path, answer, options["draw"])
        if options["json"] is not None:
            options["json"].write_text(json.dumps(answers, indent=2))
        if refused:
            raise CommandError(f"{refused} of {len(options['images'])} photos were refused")

    def _recognise(
        self, serving: Serving, path: Path, product_set: ProductSet | None, candidates: int
    ) -> dict[str, Any]:
        started = time.perf_counter()
        found = recognise_image(serving, path.read_bytes(), product_set=product_set, candidates=candidates)
        answer, _ = make_answer(Recognition(product_set=product_set), serving, found, started)
        return answer


def _find_product_set(slug: str | None) -> ProductSet | None:
    if slug is None:
        return None
    product_set = ProductSet.objects.filter(slug=slug).first()
    if product_set is None:
        known = ", ".join(ProductSet.objects.values_list("slug", flat=True)[:20])
        raise CommandError(f"there is no product set {slug!r}; there are: {known or 'none'}")
    return product_set


def _show(path: Path, answer: dict[str, Any]) -> None:
    whole = "" if answer["main_body_found"] else " (no main body found: the whole photo is the one box)"
    table = Table(title=f"{path}{whole}", title_justify="left")
    # Two lines an item: a terminal of 80 columns has no room for all of it side by side.
    for column in ("item", "product", "result", "price"):
        table.add_column(column, no_wrap=column != "product")
    for item in answer["items"]:
        best = item["candidates"][0]["product"] if item["candidates"] else None
        score = "" if item["detection_score"] is None else f"detected {item['detection_score']:.2f}, "
        box = " ".join(f"{side:.0f}" for side in item["box"])
        table.add_row(
            str(item["id"]),
            ("-" if best is None else f"{best['name']}\n{best['sku']}") + f"\n{score}box {box}",
            item["result"].replace("_", " ")
            + ("" if item["similarity"] is None else f"\nsimilarity {item['similarity']:.3f}"),
            "-" if best is None or best["price"] is None else f"{best['price']} {best['currency']}",
        )
    console = Console()
    console.print(table)
    console.print("  ".join(f"{stage} {spent:.1f} ms" for stage, spent in answer["timings_ms"].items()))


def _draw(path: Path, answer: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    photo = images.decode(path.read_bytes(), image_limits())
    labels = []
    for item in answer["items"]:
        name = item["candidates"][0]["product"]["name"] if item["candidates"] else "unknown"
        similarity = "" if item["similarity"] is None else f" {item['similarity']:.2f}"
        labels.append(LabelledBox(tuple(item["box"]), f"{name}{similarity}", Result(item["result"])))
    drawn = draw_boxes(photo.pixels, labels)
    (folder / f"{path.stem}.jpg").write_bytes(images.encode_jpeg(drawn))
