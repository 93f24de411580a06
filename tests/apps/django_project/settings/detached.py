"""As of a project in production: what stands between a stream and its server in any of them."""

from .base import *  # noqa: F403

MIDDLEWARE = [
    "tests.apps.django_project.middleware.compress_on_demand",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "tests.apps.django_project.middleware.cors",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
WSGI_APPLICATION = "tests.apps.detached.application"
SSESYNC_BROKER = "memory://"
