"""A request is one transaction, and a database has few connections."""

from pathlib import Path

from .base import *  # noqa: F403
from .base import DATABASES

INSTALLED_APPS = ["django.contrib.messages", "ssesync_django"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = str(Path(DATABASES["default"]["NAME"]).parent)
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
WSGI_APPLICATION = "tests.apps.contexts.application"
DATABASES = {
    "default": {**DATABASES["default"], "ATOMIC_REQUESTS": True},
    "few": {**DATABASES["default"], "ENGINE": "tests.apps.django_project.few"},
}
USE_I18N = True
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
FILE_UPLOAD_MAX_MEMORY_SIZE = 100_000
