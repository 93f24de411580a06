"""Settings for runserver."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "tests.load.django_app"
WSGI_APPLICATION = "tests.load.django_app.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SSESYNC_BROKER = os.environ["TESTS_BROKER"]
USE_TZ = True
LOGGING_CONFIG = None
