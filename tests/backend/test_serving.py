"""What serving may load: no torch, however deep, in web, worker or command."""

import subprocess
import sys

import pytest

BLOCK_TORCH = "import sys; sys.modules['torch'] = None; "


@pytest.mark.parametrize(
    "start",
    [
        "import backend.wsgi",
        "import backend.worker; backend.worker.app.loader.import_default_modules()",
        "from backend.bootstrap import prepare_environment; prepare_environment(); "
        "from django.core.management import call_command; import django; django.setup(); call_command('check')",
    ],
    ids=["web", "worker", "command"],
)
def test_serving_starts_where_torch_cannot_be_imported(start):
    """With torch blocked, every app, task, page and command of the backend is imported."""
    everything = (
        "; import pkgutil, importlib, backend; "
        "[importlib.import_module(found.name) for found in pkgutil.walk_packages(backend.__path__, 'backend.')"
        " if found.name != 'backend.gunicorn.conf' and '.migrations' not in found.name]; "
        "assert sys.modules['torch'] is None; print('started')"
    )
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_TORCH + start + everything], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("started"), done.stderr
