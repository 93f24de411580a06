"""The database of Django's settings."""

from __future__ import annotations

import os
from typing import Any


def databases() -> dict[str, dict[str, Any]]:
    """SQLite in the file that the test names, with connections that last: so the stream closes one, not the request."""
    name = os.environ.get("TESTS_DATABASE", ":memory:")
    return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "CONN_MAX_AGE": None}}
