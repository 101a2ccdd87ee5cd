"""What every process does before Django: name the settings and see to the engines.

Used by manage.py, wsgi.py and celery.py, so that web, workers and commands find the same engines.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

ENGINE_URLS = ("DATABASE_URL", "BROKER_URL", "MILVUS_URI")


def data_dir() -> Path:
    """Folder of everything that lives: engines' data, pictures, installed models (CHECKLANE_DATA, default `var`)."""
    return Path(os.environ.get("CHECKLANE_DATA", BASE_DIR / "var")).resolve()


def prepare_environment(*, start_engines: bool = True) -> None:
    """Set the settings module, and start an embedded engine for each of ENGINE_URLS that is missing."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
    if not all(os.environ.get(name) for name in ENGINE_URLS):
        os.environ["CHECKLANE_EMBEDDED_ENGINES"] = "1"
    (data_dir() / "static").mkdir(
        parents=True, exist_ok=True
    )  # WhiteNoise looks there, also before collectstatic
    if start_engines:
        from backend.engines import embedded

        embedded.provide(data_dir())
