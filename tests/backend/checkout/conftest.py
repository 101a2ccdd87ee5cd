"""The generation that the gallery's tests use, for those here that recognise and enrol."""

from tests.backend.gallery.conftest import dropped_at_the_end, generation

__all__ = ["dropped_at_the_end", "generation"]
