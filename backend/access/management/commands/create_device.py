"""Make a device and print its key once."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from backend.access.models import Scope
from backend.access.services import create_device
from backend.catalogue.models import ProductSet


class Command(BaseCommand):
    help = "Create a device and print its key; the key is not stored and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            dest="scopes",
            help="may be given several times; default: recognise",
        )
        parser.add_argument(
            "--product-set", metavar="SLUG", help="all that this device can see; default: the whole catalogue"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        product_set = None
        if options["product_set"]:
            product_set = ProductSet.objects.filter(slug=options["product_set"]).first()
            if product_set is None:
                raise CommandError(f"there is no product set {options['product_set']!r}")
        try:
            _, key = create_device(
                name=options["name"],
                scopes=options["scopes"] or [Scope.RECOGNISE],
                product_set_id=None if product_set is None else product_set.pk,
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stdout.write(key)
