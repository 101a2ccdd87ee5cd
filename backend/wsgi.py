"""The web process: `gunicorn backend.wsgi -c backend/gunicorn.conf.py`."""

from backend.bootstrap import prepare_environment

prepare_environment()

from django.core.wsgi import get_wsgi_application  # noqa: E402  the environment comes first

application = get_wsgi_application()
