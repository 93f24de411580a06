"""The example's settings. It needs no database and keeps no sessions."""

import os
import secrets
from pathlib import Path

DEBUG = True
SECRET_KEY = secrets.token_urlsafe()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "urls"
TIME_ZONE = "UTC"
USE_TZ = True

INSTALLED_APPS = ["ssesync_django"]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    # Compresses the page but not event streams.
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).resolve().parent / "templates"],
    }
]

# A page reconnects a second after its connection broke.
SSESYNC = {"RETRY": 1000}

# Of this example: seconds between two samples of the machine, and between two steps of the job.
LIVE_INTERVAL = float(os.environ.get("LIVE_INTERVAL", 1))
LIVE_PAUSE = float(os.environ.get("LIVE_PAUSE", 0.05))
