"""As of a project in production, with what gets in a stream's way: GZipMiddleware, lasting connections."""

from .base import *  # noqa: F403

MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "tests.apps.django_project.middleware.set_cookie",
]
WSGI_APPLICATION = "tests.apps.frameworks.django"
SSESYNC = {"FIRST_EVENT_TIMEOUT": 0.05}
# Without this, errors would go to the administrators by mail and nowhere else.
LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
