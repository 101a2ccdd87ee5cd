"""Fit a threshold set of the active generation."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from backend.gallery.selectors import get_active_generation
from backend.gallery.thresholds import fit_thresholds
from recognition.errors import RecognitionError


class Command(BaseCommand):
    help = "Fit what separates recognised, needs confirmation and unknown, leaving one reference picture out at a time."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--strategy", choices=["float", "hash", "hash_rerank"], default=settings.SEARCH_STRATEGY
        )

    def handle(self, *args: Any, **options: Any) -> None:
        generation = get_active_generation()
        if generation is None:
            raise CommandError("no generation is active; install an embedder and activate it")
        try:
            fitted = fit_thresholds(generation, options["strategy"])
        except RecognitionError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{fitted}: recognised from {fitted.recognised:.3f} with a lead of {fitted.margin:.3f}, "
            f"unknown below {fitted.unknown:.3f}; {fitted.fit}"
        )
