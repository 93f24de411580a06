"""For large request bodies."""

from .base import *  # noqa: F403

WSGI_APPLICATION = "tests.apps.bodies.application"
DATA_UPLOAD_MAX_MEMORY_SIZE = None
