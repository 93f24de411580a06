"""Settings for runserver, which runs the same application as the others, and for the tests with a database."""

from tests.live.apps.databases import databases

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
MIDDLEWARE = ["tests.live.streams.django_app.in_a_transaction"]
ROOT_URLCONF = "tests.live.streams.django_app"
WSGI_APPLICATION = "tests.live.streams.app.application"
DATABASES = databases()
USE_TZ = True
LOGGING_CONFIG = None
