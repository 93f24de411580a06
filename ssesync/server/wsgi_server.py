"""The WSGI server of this process: its kind, its threads, and warnings about it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

from .environ import bridge_of

__all__ = ["advice", "gunicorn_worker", "kind_of", "thread_limit"]


def gunicorn_worker() -> Any:
    """Find the gunicorn worker of this process, by its SIGTERM handler, which is a method of the worker.

    :return: the worker; ``None`` under other servers.
    """
    if "gunicorn" not in sys.modules:
        return None
    handler: Callable[..., object] | int | None = signal.getsignal(signal.SIGTERM)
    handler = getattr(handler, "previous", handler)  # this library's handler, set over gunicorn's
    worker = getattr(handler, "__self__", None)
    return worker if hasattr(worker, "cfg") and hasattr(worker, "alive") else None


def kind_of(worker_class: type) -> Literal["gthread", "sync", ""]:
    """Find the kind of a gunicorn worker. Only these two call their listening sockets' ``accept()``.

    :param worker_class: its class.
    :return: the class that it is or is derived from; ``""`` for all others.
    """
    kinds: tuple[tuple[Literal["gthread", "sync"], str, str], ...] = (
        ("gthread", "gunicorn.workers.gthread", "ThreadWorker"),
        ("sync", "gunicorn.workers.sync", "SyncWorker"),
    )
    for kind, module, name in kinds:
        base = getattr(sys.modules.get(module), name, None)
        if isinstance(base, type) and issubclass(worker_class, base):
            return kind
    return ""


def thread_limit() -> int | None:
    """Count the threads that streams may take, so that one stays free for other requests.

    :return: their count; ``None`` if it is not known.
    """
    worker = gunicorn_worker()
    if worker is None or not type(worker).__module__.endswith("gthread"):
        return None
    return max(1, int(worker.cfg.threads) - 1)


def advice(environ: Mapping[str, Any]) -> str | None:
    """Make the warning for a server that can't serve streams well, with the remedy.

    :param environ: the WSGI environ of a request.
    :return: the text; ``None`` for any other server.
    """
    worker = gunicorn_worker()
    kind = type(worker).__module__.rpartition(".")[2]
    if kind == "sync":
        return (
            "an event stream can't be detached, so gunicorn's sync worker serves it and nothing else, and is killed "
            f"after --timeout ({worker.cfg.timeout} s); run it with threads: gunicorn -k gthread --threads 32"
        )
    if kind == "gthread" and worker.cfg.threads < 2:
        return (
            "an event stream can't be detached, so it takes the single thread that gunicorn has; use gunicorn -k "
            "gthread --threads 32"
        )
    if "werkzeug.socket" in environ and not environ.get("wsgi.multithread"):
        return (
            "an event stream can't be detached, and the development server runs without threads, so it serves nothing "
            "else; run it with threaded=True"
        )
    if (bridge := bridge_of(environ)) is not None:
        return (
            f"this WSGI application runs inside an ASGI server, by {bridge}, which does not report that a client has "
            "left: each stream continues, with its thread, until its producer ends; run it under a WSGI server "
            "(gunicorn -k gthread), Django under its own ASGI handler, or set max_lifetime"
        )
    return None
