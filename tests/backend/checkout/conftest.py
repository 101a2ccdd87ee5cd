"""The generation that the gallery's tests use, for those here that recognise and enrol."""

from tests.backend.gallery.conftest import generation

__all__ = ["generation"]
