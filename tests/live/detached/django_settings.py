"""Settings as of a project in production: what stands between a stream and its server in any of them."""

from tests.live.apps.databases import databases

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
DATABASES = databases()
SSESYNC_BROKER = "memory://"
USE_TZ = True
LOGGING_CONFIG = None
