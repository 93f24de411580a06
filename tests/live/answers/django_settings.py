"""The settings of the tests of contexts: a request is one transaction, and a database has few connections."""

import os
from pathlib import Path

from tests.live.apps.databases import databases

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.messages", "ssesync_django"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = str(Path(os.environ.get("TESTS_DATABASE", "/tmp/none")).parent)
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
ROOT_URLCONF = "tests.live.answers.django_views"
WSGI_APPLICATION = "tests.live.answers.contexts.application"
DATABASES = databases()
DATABASES["default"]["ATOMIC_REQUESTS"] = True
DATABASES["few"] = {**databases()["default"], "ENGINE": "tests.live.answers.few"}
USE_I18N = USE_TZ = True
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
FILE_UPLOAD_MAX_MEMORY_SIZE = 100_000
LOGGING_CONFIG = None
