"""Fit a threshold set: what separates recognised, needs confirmation and unknown, and the confidence."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from backend.common.commands import refusals_shown
from backend.evaluation.fitting import FitFolder, fit_to_folder
from backend.evaluation.progress import name_refused, progress_bars
from backend.gallery.models import LIVE_STATES, Generation, ThresholdSet
from backend.gallery.selectors import get_active_generation
from backend.gallery.thresholds import FALSE_ACCEPTS, UNKNOWN_SHARE, Wanted, fit_thresholds


class Command(BaseCommand):
    help = (
        "Fit what separates recognised, needs confirmation and unknown for a rate of false accepts, and the confidence:"
        " on a folder of queries or, without --folder, on the live catalogue leaving one picture out at a time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--folder", type=Path, help="of query pictures (docs/thresholds.md)")
        parser.add_argument("--query", default="query.csv", metavar="FILE", help="in the folder")
        parser.add_argument(
            "--gallery",
            metavar="FILE",
            help="in the folder: search its pictures instead of the generation's gallery",
        )
        parser.add_argument(
            "--crop",
            choices=["none", "box", "detect"],
            default="box",
            help="embed the whole query, the box given with it (else the whole), or what the active detector finds",
        )
        parser.add_argument(
            "--false-accepts",
            type=float,
            default=FALSE_ACCEPTS,
            metavar="RATE",
            help="of strangers, and of known queries, so many may be recognised as a product that they do not show;"
            " default: %(default)s",
        )
        parser.add_argument(
            "--unknown-share",
            type=float,
            default=UNKNOWN_SHARE,
            metavar="SHARE",
            help="of the items at the till, so many show no product of the gallery: what the confidence assumes;"
            " default: %(default)s",
        )
        parser.add_argument(
            "--strategy", choices=["float", "hash", "hash_rerank"], default=settings.SEARCH_STRATEGY
        )
        parser.add_argument("--generation", type=int, metavar="ID", help="default: the active one")

    def handle(self, *args: Any, **options: Any) -> None:
        generation = _get_generation(options["generation"])
        if options["gallery"] is not None and options["folder"] is None:
            raise CommandError("--gallery names a file of --folder; give both, or none")
        with refusals_shown():
            wanted = Wanted(options["false_accepts"], options["unknown_share"])
            if options["folder"] is None:
                fitted = fit_thresholds(
                    generation,
                    options["strategy"],
                    false_accepts=wanted.false_accepts,
                    unknown_share=wanted.unknown_share,
                )
            else:
                source = FitFolder(options["folder"], options["query"], options["gallery"], options["crop"])
                with progress_bars() as bars:
                    found = fit_to_folder(generation, options["strategy"], wanted, source, bars.over)
                name_refused(found.refused, self.stderr)
                fitted = found.threshold_set
        self.stdout.write("\n".join(_describe(fitted)))


def _get_generation(pk: int | None) -> Generation:
    if pk is None:
        generation = get_active_generation()
        if generation is None:
            raise CommandError("no generation is active; install an embedder and activate it")
        return generation
    live = Generation.objects.select_related("embedder").filter(state__in=LIVE_STATES)
    generation = live.filter(pk=pk).first()
    if generation is None:
        known = ", ".join(str(one) for one in live.values_list("pk", flat=True))
        raise CommandError(f"there is no live generation {pk}; there are: {known or 'none'}")
    return generation


def _describe(fitted: ThresholdSet) -> list[str]:
    """What was fitted and how it held, line by line."""
    fit = fitted.fit
    strangers = f"{fit['n_strangers']:,} strangers"
    if fit["n_of_unknown_sku"]:
        strangers += (
            f" ({fit['n_of_unknown_sku']:,} queries of a SKU that the gallery lacks, which count as unknown; the"
            " others are queries with their own product left out)"
        )
    lines = [
        f"threshold set {fitted}, fitted to {fit['n_queries']:,} known queries of {fit['n_products']:,} products and"
        f" {strangers}, for a rate of false accepts of {fitted.false_accepts:g}",
        f"  recognised from {fitted.recognised:.4f} with a lead of {fitted.margin:.4f}; unknown below"
        f" {fitted.unknown:.4f}"
        if fitted.recognised <= 1
        else f"  nothing is recognised: no similarity and lead keep the rate; unknown below {fitted.unknown:.4f}",
    ]
    if fit["n_alone"]:
        lines.append(
            f"  {fit['n_alone']:,} queries are the only picture of their product: left out they cannot find it, so they"
            " count as strangers alone"
        )
    if fit["n_without_pictures"]:
        lines.append(f"  {fit['n_without_pictures']:,} products have no picture in the gallery")
    lines.append(
        "  own thresholds: " + ", ".join(one["sku"] for one in fitted.products.values())
        if fitted.products
        else "  no product has enough queries for thresholds of its own"
    )
    lines.append("held out by products (value, 95 % interval):")
    for kind in ("known", "strangers"):
        shares = fit["held_out"][kind]
        lines.append(
            f"  {kind}: " + ", ".join(f"{name.replace('_', ' ')} {_show(shares[name])}" for name in shares)
        )
    if fitted.confidence is None:
        lines.append("  no confidence: it takes a hundred queries of each kind")
    else:
        lines.append(
            f"  confidence, {fitted.confidence['unknown_share']:.0%} of the items being unknown: calibration error"
            f" {_show(fit['calibration']['error'])}"
        )
    return lines


def _show(figure: list[float]) -> str:
    value, low, high = figure
    return f"{value:.2%} ({low:.2%} to {high:.2%})"
