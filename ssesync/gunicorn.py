"""Hooks for gunicorn: ``gunicorn -c python:ssesync.gunicorn …``, or ``from ssesync.gunicorn import *`` in a config.

They end streams cleanly when a worker stops (SIGTERM, SIGINT, SIGQUIT, HUP, ``max_requests``, ``--preload`` or not),
so that it is gone at once instead of after ``--graceful-timeout``. A config that has such hooks of its own calls
these from them.
"""

from __future__ import annotations

from typing import Any

from .server.shutdown import drain, drain_on_signal

__all__ = ["post_worker_init", "worker_exit"]


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded the application: see to it that its streams end when it does."""
    drain_on_signal()


def worker_exit(server: Any, worker: Any) -> None:
    """In a worker that ends for whatever reason: its threads are waited for, and so must not sit in streams."""
    drain()
