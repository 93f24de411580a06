"""The workers of one gunicorn master, which take over each other's clients: sockets, and the hooks of gunicorn.

- ``pre_fork``, in the master: notes the new worker in a table that all workers share, see ``worker_table.py``.
- ``post_fork``, in the worker: makes the worker's socket, before the application is loaded. A worker that stops can
  connect from then on, and waits.
- ``post_worker_init``: takes clients from now on.
- ``worker_exit``: takes none any more, and removes the socket.

It needs no configuration, and no process but the workers. Only gunicorn's ``gthread`` and ``sync`` have detached
streams. If the sockets can't be made, one log line says why, and streams end with their worker.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from ..channels.broker import open_brokers
from ..server.registry import streams
from ..server.shutdown import RESERVE
from ..server.transferring import register_transfer
from ..text import escape
from .folders import Sibling, as_user, listen_in, sweep
from .importing import Importer, epochs
from .moving import SiblingTransfer
from .peer import make_hello
from .worker_table import worker_table

__all__ = ["close", "join", "serve"]

logger = logging.getLogger("ssesync")

# Seconds that a worker which exits gives its links to end a batch.
_TO_END = 1.0


class Siblings:
    """The part of this worker.

    :param worker: gunicorn's.
    :raises OSError: there can be no socket.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._own = Sibling(worker.age, os.getpid())
        with as_user(worker.cfg.uid, worker.cfg.gid):
            self._folder, self._listener = listen_in(worker.ppid, self._own.name)
        self._importer = Importer(open_brokers)

    def serve(self) -> None:
        """Take clients from now on, and move this worker's own when it stops.

        :raises RuntimeError: no thread can be started.
        """
        cfg = self._worker.cfg
        self._importer.start(self._listener, self._hello)
        seconds = max(0.0, cfg.graceful_timeout - RESERVE)
        transfer = SiblingTransfer(
            self._folder, self._own, int(cfg.workers), seconds, worker_table(), self._stops_alone
        )  # fmt: skip
        register_transfer(transfer)

    def close(self) -> None:
        """Take no more clients, and remove the socket."""
        self._listener.close()
        self._importer.cancel()
        self._importer.wait(_TO_END)
        sweep(self._folder)

    def _stops_alone(self) -> bool:
        return bool(self._worker.nr >= self._worker.max_requests)

    def _hello(self) -> Mapping[str, Any]:
        stopping = streams.stopping or not self._worker.alive
        return make_hello("worker", epochs(open_brokers()), stopping=stopping)


_current: dict[None, Siblings] = {}


def join(worker: Any) -> None:
    """Make the worker's socket.

    :param worker: gunicorn's.
    """
    try:
        if not sys.platform.startswith("linux"):
            logger.debug("event streams move between workers on Linux only")
        else:
            _current[None] = Siblings(worker)
    except OSError as error:
        # The first worker's line suffices: the others have the same reason.
        logger.log(
            logging.WARNING if worker.age == 1 else logging.DEBUG,
            "event streams end with their worker and don't move to another one, as there can be no socket for it: %s",
            escape(error),
        )  # fmt: skip
    finally:
        if (table := worker_table()) is not None:
            table.is_ready(worker.age)


def serve() -> None:
    """Take clients of other workers from now on. The application is loaded."""
    if (current := _current.get(None)) is not None:
        try:
            current.serve()
        except RuntimeError as error:
            logger.warning("event streams don't move to or from this worker: %s", escape(error))


def close() -> None:
    """Take no more clients, as the worker exits."""
    if (current := _current.pop(None, None)) is not None:
        current.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_current.clear)
