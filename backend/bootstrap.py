"""What every process does before Django: name the settings and see to the engines.

Used by manage.py, wsgi.py and worker.py, so that web, workers and commands find the same engines.
"""

import os
from pathlib import Path

from backend.engines import embedded

BASE_DIR = Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    """Folder of everything that lives: engines' data, pictures, installed models (CHECKLANE_DATA, default `var`)."""
    return Path(os.environ.get("CHECKLANE_DATA", BASE_DIR / "var")).resolve()


def prepare_environment(*, start_engines: bool = True) -> None:
    """Set the settings module, and start an embedded engine for each that the environment names no server for.

    Raises:
        EngineFailed: one could not be started.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
    # WhiteNoise looks there, also before collectstatic.
    (data_dir() / "static").mkdir(parents=True, exist_ok=True)
    if embedded.missing():
        os.environ["CHECKLANE_EMBEDDED_ENGINES"] = "1"
        if start_engines:
            embedded.provide(data_dir())
