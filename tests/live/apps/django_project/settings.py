"""Settings as of a project in production, with what gets in a stream's way: GZipMiddleware, lasting connections."""

from tests.live.apps.databases import databases

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "tests.live.apps.django_project.views.set_cookie",
]
ROOT_URLCONF = "tests.live.apps.django_project.urls"
WSGI_APPLICATION = "tests.live.apps.django_project.wsgi.application"
DATABASES = databases()
SSESYNC = {"FIRST_EVENT_TIMEOUT": 0.05}
USE_TZ = True
# Without this, errors would go to the administrators by mail and nowhere else.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
