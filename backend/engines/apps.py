"""The Django app: it has commands and no models."""

from django.apps import AppConfig


class EnginesConfig(AppConfig):
    """Label `engines`: the commands `engines`, `backup` and `restore`."""

    name = "backend.engines"
    label = "engines"
