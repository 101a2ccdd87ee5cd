"""All of the backend's configuration: read from the environment, here and nowhere else, typed, loud when wrong.

Every variable stands in the README's table. A secret may come from a file: set NAME_FILE instead of NAME.
"""

import os
import secrets
from typing import Any

import environ
import structlog
from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from backend.bootstrap import data_dir

env = environ.FileAwareEnv()

DATA_DIR = data_dir()
DEBUG = env.bool("DEBUG", default=False)


def _secret_key() -> str:
    """SECRET_KEY; a random one kept in the data folder while an engine is embedded, for that is no production."""
    if "SECRET_KEY" in os.environ or "SECRET_KEY_FILE" in os.environ:
        return str(env.str("SECRET_KEY"))
    if not EMBEDDED:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: give at least 50 random characters, or SECRET_KEY_FILE"
        )
    path = DATA_DIR / "secret_key"
    if not path.exists():
        DATA_DIR.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(64))
        except FileExistsError:
            pass  # another process of the same start was first
    return path.read_text()


# Set by backend.bootstrap, which is also who fills in the missing URLs.
EMBEDDED = "CHECKLANE_EMBEDDED_ENGINES" in os.environ
SECRET_KEY = _secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_TLS_PROXY", default=False) else None
)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_PROXY_SSL_HEADER is not None

# --- engines ----------------------------------------------------------------------------------------------
DATABASES: dict[str, Any] = {"default": env.db("DATABASE_URL", default="postgresql://localhost/checklane")}
DATABASES["default"] |= {
    "ENGINE": "backend.common.postgresql",
    "CONN_MAX_AGE": None,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {"options": "-c statement_timeout=30000"},
}
BROKER_URL = env.str("BROKER_URL", default="redis://localhost:6379/0")
MILVUS_URI = env.str("MILVUS_URI", default="http://localhost:19530")
MILVUS_TOKEN = env.str("MILVUS_TOKEN", default="")
MILVUS_TIMEOUT_SECONDS = env.float("MILVUS_TIMEOUT_SECONDS", default=1.5)

# --- recognition ------------------------------------------------------------------------------------------
RECOGNITION_PATIENCE_SECONDS = env.float("RECOGNITION_PATIENCE_SECONDS", default=10.0)
RECOGNITION_MAX_IN_FLIGHT = env.int("RECOGNITION_MAX_IN_FLIGHT", default=6)
RECOGNITION_WORKERS = env.int("RECOGNITION_WORKERS", default=1)
# Several processes that each take every core are far slower than one: the cores are shared out.
THREADS_PER_WORKER = env.int(
    "THREADS_PER_WORKER", default=max(1, (os.cpu_count() or 1) // max(1, RECOGNITION_WORKERS))
)
BULK_THREADS = env.int("BULK_THREADS", default=1)
DECODE_LONGEST_SIDE = env.int("DECODE_LONGEST_SIDE", default=1920)
MAX_ITEMS = env.int("MAX_ITEMS", default=50)
SEARCH_STRATEGY = env.str("SEARCH_STRATEGY", default="float")
SEARCH_MATCHES = env.int("SEARCH_MATCHES", default=100)
SEARCH_EF = env.int("SEARCH_EF", default=128)
SEARCH_NPROBE = env.int("SEARCH_NPROBE", default=16)
SEARCH_RERANK = env.int("SEARCH_RERANK", default=200)

# --- limits -----------------------------------------------------------------------------------------------
IMAGE_MAX_BYTES = env.int("IMAGE_MAX_BYTES", default=20_000_000)
IMAGE_MAX_PIXELS = env.int("IMAGE_MAX_PIXELS", default=50_000_000)
IMPORT_MAX_BYTES = env.int("IMPORT_MAX_BYTES", default=500_000_000)
IMPORT_MAX_UNPACKED_BYTES = env.int("IMPORT_MAX_UNPACKED_BYTES", default=2_000_000_000)
IMPORT_MAX_FILES = env.int("IMPORT_MAX_FILES", default=100_000)
DATA_UPLOAD_MAX_MEMORY_SIZE = 5_000_000  # of a body that is not a file
DATA_UPLOAD_MAX_NUMBER_FILES = 200

# --- storage ----------------------------------------------------------------------------------------------
QUERY_IMAGE_DAYS = env.int("QUERY_IMAGE_DAYS", default=30)
HISTORY_DAYS = env.int("HISTORY_DAYS", default=None)  # None: for ever
MODELS_ROOT = DATA_DIR / "models"
MEDIA_ROOT = DATA_DIR / "media"
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
S3_BUCKET = env.str("S3_BUCKET", default="")
STORAGES: dict[str, Any] = {
    "default": {"BACKEND": "backend.common.storage.WholeFileStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
if S3_BUCKET:
    STORAGES["default"] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": S3_BUCKET,
            "endpoint_url": env.str("S3_ENDPOINT_URL", default=None),
            "access_key": env.str("S3_ACCESS_KEY", default=None),
            "secret_key": env.str("S3_SECRET_KEY", default=None),
            "default_acl": None,
            "file_overwrite": False,
        },
    }
FILE_UPLOAD_PERMISSIONS = 0o640
# Served without collectstatic as well: the demo and a fresh checkout have no build step.
WHITENOISE_USE_FINDERS = True

# --- Django -----------------------------------------------------------------------------------------------
ROOT_URLCONF = "backend.urls"
WSGI_APPLICATION = "backend.wsgi.application"
USE_TZ = True
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = "backend.common.formats"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

INSTALLED_APPS = [
    "backend.evaluation",
    "backend.checkout",
    "backend.gallery",
    "backend.catalogue",
    "backend.jobs",
    "backend.access",
    "backend.common",
    "backend.demo",
    "backend.engines",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.humanize",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "django_filters",
    "auditlog",
    "django_prometheus",
    "django_structlog",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "backend.common.middleware.EngineFailureMiddleware",
    "backend.common.middleware.OddRequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "auditlog.middleware.AuditlogMiddleware",
    "backend.common.middleware.ActingDeviceMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# --- API --------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["backend.access.authentication.DeviceKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["backend.access.permissions.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "backend.common.pagination.Pages",
    "EXCEPTION_HANDLER": "backend.common.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Checklane",
    "DESCRIPTION": "From a photo to the products in it, where, how sure, and what they cost.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "RecognitionState": "backend.checkout.models.RecognitionState",
        "JobState": "backend.jobs.models.JobState",
        "ProductState": "backend.catalogue.models.ProductState",
        "ReviewState": "backend.checkout.models.ReviewState",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "backend.common.openapi.add_problem_responses",
        "backend.common.openapi.close_requests",
    ],
}

# --- Celery -----------------------------------------------------------------------------------------------
CELERY_BROKER_URL = BROKER_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "bulk"
CELERY_TASK_ROUTES = {
    "checkout.recognise": {"queue": "recognition"},
    "checkout.echo": {"queue": "recognition"},
    "checkout.check_picture": {"queue": "recognition"},
    "checkout.shadow": {"queue": "shadow"},
}
# Whoever sends a task learns within 2 s that the broker is away. Once more at once, for a connection that broke while
# it lay idle; a lost message only delays, for the sweep finds what is pending.
CELERY_TASK_PUBLISH_RETRY_POLICY = {
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Celery kills a process of its pool that is not up within this time; ours may load and warm models first.
CELERY_WORKER_PROC_ALIVE_TIMEOUT = 120.0
CELERY_BROKER_CONNECTION_TIMEOUT = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_POOL_LIMIT = 64
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    "socket_timeout": 0.5,
    "socket_connect_timeout": 0.5,
    "max_retries": 0,
    # By name: a worker of `bulk` and `shadow` takes the second's when the first has none. "priority" would mean the
    # order of a set, which is another in each process.
    "queue_order_strategy": "sorted",
}
CELERY_WORKER_SEND_TASK_EVENTS = False
# Celery would open a connection to PostgreSQL for each task; backend/celery.py closes those that broke.
CELERY_DB_REUSE_MAX = 1_000_000
CELERY_TIMEZONE = TIME_ZONE  # of the nightly work
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "sweep the gallery": {"task": "gallery.sweep", "schedule": 60.0},
    "reconcile the gallery": {"task": "gallery.reconcile", "schedule": crontab(hour="3", minute="20")},
    "expire forgotten recognitions": {"task": "checkout.expire_recognitions", "schedule": 60.0},
    "check open corrections": {"task": "checkout.check_corrections", "schedule": 60.0},
    "purge query images": {"task": "checkout.purge_query_images", "schedule": 3600.0},
    "delete old recognitions": {"task": "checkout.delete_old_recognitions", "schedule": 3600.0},
    "delete old jobs": {"task": "jobs.delete_old", "schedule": 3600.0},
    "take up stalled jobs": {"task": "jobs.sweep", "schedule": 60.0},
}
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True  # X-Request-ID of the till or the proxy

# --- logs -------------------------------------------------------------------------------------------------
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOG_FORMAT = env.str("LOG_FORMAT", default="json")
_SHARED_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso"),
]
_RENDERER = (
    structlog.dev.ConsoleRenderer() if LOG_FORMAT == "console" else structlog.processors.JSONRenderer()
)
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "structured": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _RENDERER,
            ],
            "foreign_pre_chain": _SHARED_PROCESSORS,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {"django.server": {"handlers": [], "propagate": True}, "httpx": {"level": "WARNING"}},
}
structlog.configure(
    processors=[
        *_SHARED_PROCESSORS,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

# --- admin ------------------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "Checklane",
    "SITE_HEADER": "Checklane",
    "SITE_SYMBOL": "shopping_basket",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("common/icon.svg")}
    ],
    "SITE_URL": None,
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "STYLES": [lambda request: static("common/checklane.css")],
    "SCRIPTS": [lambda request: static("common/keyboard.js")],
    "DASHBOARD_CALLBACK": "backend.checkout.dashboard.fill_dashboard",
    "SIDEBAR": {"navigation": "backend.menu.get_navigation"},
    # Green, amber and red are the results' colours; all else is blue.
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        }
    },
}
