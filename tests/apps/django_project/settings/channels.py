"""Channels in a database, for WSGI and ASGI."""

from pathlib import Path

from .base import *  # noqa: F403
from .base import DATABASES

FOLDER = Path(DATABASES["default"]["NAME"]).parent
# Ordinary requests close theirs.
DATABASES = {"default": {**DATABASES["default"], "CONN_MAX_AGE": 0}}
SSESYNC_BROKER = f"sqlite:///{FOLDER}/events.sqlite3"
LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = {"version": 1, "disable_existing_loggers": False}
