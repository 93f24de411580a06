"""Hooks for gunicorn: ``from ssesync.gunicorn import *`` in a ``gunicorn.conf.py``. Without such a file,
``gunicorn -c python:ssesync.gunicorn …``.

They end streams cleanly when a worker stops (SIGTERM, SIGINT, SIGQUIT, HUP, ``max_requests``, ``--preload`` or not),
so that it exits at once instead of after ``--graceful-timeout``. They also prevent that a worker runs out of
descriptors (``server/accepting.py``), however many clients connect. A worker that stops moves its subscribers to other
workers of the same master, so that a reload interrupts none (``keeper/siblings.py``). A config that has such hooks
calls these from them.

The environment variable ``SSESYNC_OPEN_FILES`` bounds the descriptors of detached streams: 65536 without it, never more
than the hard limit of open files; with ``0`` the soft limit.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from .keeper.worker_table import note_fork
from .server.accepting import defer_accept
from .server.exit import finish, prepare
from .server.registry import streams
from .server.shutdown import drain_on_signal
from .server.wsgi_server import kind_of
from .text import escape

__all__ = ["post_fork", "post_worker_init", "pre_fork", "when_ready", "worker_exit"]

logger = logging.getLogger("ssesync")


def when_ready(server: Any) -> None:
    """In the master, before it starts workers: make the kernel keep each connection until its client has sent data, so
    that an idle connection takes no thread.

    :param server: gunicorn's arbiter.
    """
    defer_accept(server.LISTENERS, server.worker_class)
    _warn_of_unread_file(server.cfg)


def pre_fork(server: Any, worker: Any) -> None:
    """In the master, before it forks a worker: note the worker, so that the workers that it replaces wait for it.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    if kind_of(type(worker)):
        _siblings()  # imported here, as the new worker has to be found soon
    note_fork(worker)


def post_fork(server: Any, worker: Any) -> None:
    """In a worker that has not loaded the application: make a socket, by which other workers move clients to it.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    if kind_of(type(worker)):
        _siblings().join(worker)
    else:
        logger.debug("event streams don't move between gunicorn's workers of this class")


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded the application: prepare the end of its streams, and reserve descriptors for its
    clients. From now on it takes the clients of other workers.

    :param worker: gunicorn's worker.
    :raises ssesync.SettingsError: ``SSESYNC_OPEN_FILES`` is no number.
    """
    streams.prepare(worker)
    defer_accept(worker.sockets, type(worker))
    drain_on_signal()
    prepare(worker)
    if kind_of(type(worker)):
        _siblings().serve()


def worker_exit(server: Any, worker: Any) -> None:
    """In a worker that ends for any reason: end its streams, and wait for those that move or finish.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    finish(server, worker)
    if worker.pid == os.getpid() and kind_of(type(worker)):
        _siblings().close()


def _warn_of_unread_file(cfg: Any) -> None:
    """Log a warning if the folder has a configuration file that gunicorn has not read, since it reads one at most.

    :param cfg: gunicorn's configuration.
    """
    unread = Path(cfg.chdir, "gunicorn.conf.py")
    if cfg.config == f"python:{__name__}" and unread.is_file():
        logger.warning(
            'gunicorn has not read %s, as it reads one configuration and "-c python:ssesync.gunicorn" names another '
            'one: start it without -c, and put "from ssesync.gunicorn import *" into the file',
            escape(str(unread)),
        )


def _siblings() -> Any:
    # Not while the master reads its configuration: a gevent worker patches the standard library later, and modules of
    # channels must not have been imported before.
    from .keeper import siblings

    return siblings
