"""Where uploaded and drawn pictures are kept when that is a folder (settings.py, STORAGES)."""

import contextlib
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage


class WholeFileStorage(FileSystemStorage):
    """Django's, but a file is stored whole or not at all.

    Django leaves what it had written when the disk is full, under a name that the caller never learns.
    """

    def _save(self, name: str, content: Any) -> str:
        path = Path(self.path(name))
        was_there = path.exists()
        try:
            return str(super()._save(name, content))  # type: ignore[misc]  # the stubs lack it
        except OSError:
            # Names are random or a row's id, so that nobody else writes this one meanwhile.
            if not was_there:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
