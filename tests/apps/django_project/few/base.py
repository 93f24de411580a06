"""SQLite that gives so many connections and no more, with PostgreSQL's words; a query can wait for the test."""

from __future__ import annotations

import threading
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

MOST = 20
#: Set by the test.
go = threading.Event()
_free = threading.BoundedSemaphore(MOST)


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module."""

    def get_new_connection(self, conn_params: Any) -> Any:
        """Open a connection, if there is one."""
        if not _free.acquire(blocking=False):
            raise OperationalError("FATAL:  sorry, too many clients already")
        connection = super().get_new_connection(conn_params)
        connection.create_function("wait", 1, lambda seconds: int(go.wait(seconds)))
        return connection

    def _close(self) -> Any:
        if self.connection is not None:
            _free.release()
        return super()._close()
