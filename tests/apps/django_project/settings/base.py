"""What all settings have in common."""

from __future__ import annotations

import os
from typing import Any

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "tests.apps.django_project.urls"
WSGI_APPLICATION = "tests.apps.django_project.wsgi.application"
# SQLite in the file that the test names, with connections that last: so the stream closes one, not the request.
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TESTS_DATABASE", ":memory:"),
        "CONN_MAX_AGE": None,
    }
}
USE_TZ = True
# The processes set up logging themselves.
LOGGING_CONFIG: str | None = None
