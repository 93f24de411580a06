"""Settings as of a project in production: what stands between a stream and its server in any of them."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
MIDDLEWARE = [
    "tests.live.detached.django_app.zipping",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "tests.live.detached.django_app.cors",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
ROOT_URLCONF = "tests.live.detached.django_app"
WSGI_APPLICATION = "tests.live.detached.app.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TESTS_DATABASE", ":memory:"),
        # So that what closes a connection is the stream and not the request's end.
        "CONN_MAX_AGE": None,
    }
}
SSESYNC_BROKER = "memory://"
USE_TZ = True
LOGGING_CONFIG = None
