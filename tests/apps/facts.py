"""What happened in this process, by the test's key, for the route ``/facts`` of every application."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_lock = threading.Lock()
_facts: defaultdict[str, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))


def note(key: str, name: str, value: Any = True) -> None:
    """Add ``value`` to the list ``name`` under the key."""
    with _lock:
        _facts[key][name].append(value)


def of(key: str) -> dict[str, list[Any]]:
    """All that was noted under the key."""
    with _lock:
        return {name: list(values) for name, values in _facts[key].items()}


def watched(application: WSGIApplication) -> WSGIApplication:
    """Notes the headers and the thread of every answer, as the application gave them to the server."""

    def watching(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        key = query(environ).get("key", "")

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            note(key, "headers", list(headers))  # servers add to it
            note(key, "thread", threading.get_ident())
            return start_response(status, headers, *rest)

        return application(environ, start)

    return watching


def query(environ: WSGIEnvironment) -> dict[str, str]:
    """The query's parameters, each with its last value."""
    return {name: values[-1] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
