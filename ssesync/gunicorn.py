"""Hooks for gunicorn: ``gunicorn -c python:ssesync.gunicorn …``, or ``from ssesync.gunicorn import *`` in a config.

They end streams cleanly when a worker stops (SIGTERM, SIGINT, SIGQUIT, HUP, ``max_requests``, ``--preload`` or not),
so that it exits at once instead of after ``--graceful-timeout``. They also prevent that a worker runs out of
descriptors (``server/accepting.py``), however many clients connect. A config that has such hooks calls these from them.

The environment variable ``SSESYNC_OPEN_FILES`` bounds the descriptors of detached streams: 65536 without it, never more
than the hard limit of open files; with ``0`` the soft limit.
"""

from __future__ import annotations

from typing import Any

from .server.accepting import defer_accept
from .server.exit import finish, prepare
from .server.registry import streams
from .server.shutdown import drain_on_signal

__all__ = ["post_worker_init", "when_ready", "worker_exit"]


def when_ready(server: Any) -> None:
    """In the master, before it starts workers: make the kernel keep each connection until its client has sent data, so
    that an idle connection takes no thread.

    :param server: gunicorn's arbiter.
    """
    defer_accept(server.LISTENERS, server.worker_class)


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded the application: prepare the end of its streams, and reserve descriptors for its
    clients.

    :param worker: gunicorn's worker.
    :raises ssesync.SettingsError: ``SSESYNC_OPEN_FILES`` is no number.
    """
    streams.prepare(worker)
    defer_accept(worker.sockets, type(worker))
    drain_on_signal()
    prepare(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """In a worker that ends for any reason: end its streams, and wait for those that finish.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    finish(server, worker)
