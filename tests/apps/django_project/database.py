"""The database of the project: one query, and the connections that the process holds."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver

_opened: weakref.WeakSet[BaseDatabaseWrapper] = weakref.WeakSet()


@receiver(connection_created)
def _keep(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    _opened.add(connection)


def open_connections() -> dict[str, int]:
    """Return how many connections the process holds, by Django's account and by the kernel's."""
    database = Path(connections["default"].settings_dict["NAME"]).resolve()
    # A descriptor that is closed since the listing resolves to itself.
    files = sum(descriptor.resolve() == database for descriptor in Path("/proc/self/fd").iterdir())
    return {"connections": sum(wrapper.connection is not None for wrapper in list(_opened)), "files": files}


def query() -> int:
    """Return what a query gives."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 41 + 1")
        return int(cursor.fetchone()[0])
