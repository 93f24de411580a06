"""The example's settings. It needs no database: the log of events has all tasks."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

FOLDER = Path(os.environ.get("AGENT_FOLDER", Path(__file__).resolve().parent / "data")).absolute()
FOLDER.mkdir(parents=True, exist_ok=True)

SECRET_KEY = secrets.token_urlsafe()  # nothing is signed
ALLOWED_HOSTS = os.environ.get("HOSTS", "127.0.0.1,localhost").split(",")
ROOT_URLCONF = "urls"
TIME_ZONE = "UTC"
USE_TZ = True
INSTALLED_APPS = ["ssesync_django"]
# It refuses other hosts than those above. So no page of another site, whose name leads to this machine, gets in.
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 2**20

# All workers that open this file have the same tasks. With several machines: a Redis.
SSESYNC_BROKER = os.environ.get("BROKER", f"sqlite:///{quote(str(FOLDER / 'tasks.sqlite3'))}")
# The official client takes a connection that is silent for five seconds for a lost one.
SSESYNC = {"KEEP_ALIVE": 3}
