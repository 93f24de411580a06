"""The example's settings."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

# The folder of the board's files: the database, the log of events, the key of the sessions' signatures.
FOLDER = Path(os.environ.get("BOARD_FOLDER", Path(__file__).resolve().parent / "data")).absolute()
FOLDER.mkdir(parents=True, exist_ok=True)

# Made by the first command that is run, `migrate`. All processes need the same key.
key_file = FOLDER / "secret_key"
if not key_file.exists():
    key_file.touch(mode=0o600)
    key_file.write_text(secrets.token_urlsafe(48))
SECRET_KEY = key_file.read_text()

DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "board.urls"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "board"
LOGOUT_REDIRECT_URL = "login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ssesync_django",
    "board",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    # Compresses the pages but not event streams.
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "board.sqlite3",
        "OPTIONS": {"timeout": 20},
    }
}

# Every process that opens this file, a worker, a command or a cron job, publishes to the same pages.
SSESYNC_BROKER = f"sqlite:///{quote(str(FOLDER / 'events.sqlite3'))}"
# A page reconnects a second after its connection broke. It can see keep-alives, so it notices a dead connection.
# Pages of other sites can't open streams.
SSESYNC = {"RETRY": 1000, "KEEP_ALIVE_EVENT": "ping", "SAME_ORIGIN_ONLY": True}
