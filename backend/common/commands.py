"""What all of Checklane's management commands do alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError

from backend.common.problems import Problem
from recognition.errors import RecognitionError


@contextmanager
def refusals_shown() -> Iterator[None]:
    """What a service or `recognition` refuses ends the command with its sentence, instead of a traceback.

    Raises:
        CommandError: in place of a Problem or a RecognitionError.
    """
    try:
        yield
    except (Problem, RecognitionError) as error:
        raise CommandError(str(error)) from error
