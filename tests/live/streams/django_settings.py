"""Settings for runserver, which runs the same application as the others, and for the tests with a database."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
MIDDLEWARE = ["tests.live.streams.django_app.in_a_transaction"]
ROOT_URLCONF = "tests.live.streams.django_app"
WSGI_APPLICATION = "tests.live.streams.app.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TESTS_DATABASE", ":memory:"),
        # So that what closes a connection is the stream and not the request's end.
        "CONN_MAX_AGE": None,
    }
}
USE_TZ = True
LOGGING_CONFIG = None
