"""The routes of ``frameworks`` in plain WSGI."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ssesync import EventStream, Settings, Writer

from .. import facts, producers
from . import in_json, text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SETTINGS = Settings(first_event_timeout=0.05)
CORS = {"Access-Control-Allow-Origin": "https://example.org"}


def gate(query: dict[str, str]) -> WSGIApplication:
    line, key = int(query["line"]), query.get("key", "")
    return EventStream(functools.partial(producers.gate, line, key), headers=CORS, settings=SETTINGS)


def writer(query: dict[str, str]) -> WSGIApplication:
    line, key = int(query["line"]), query.get("key", "")
    return EventStream.from_writer(lambda w: producers.gate_writer(w, line, key), settings=SETTINGS)


def leave(query: dict[str, str]) -> WSGIApplication:
    line, key = int(query["line"]), query.get("key", "")
    return EventStream(
        functools.partial(producers.gate, line, key),
        on_close=producers.report_close(line, key),
        settings=SETTINGS,
        keep_alive=0.1,
    )


def flood(query: dict[str, str]) -> WSGIApplication:
    numbers = int(query["line"]), int(query["count"]), int(query["size"])
    return EventStream(functools.partial(producers.flood, *numbers), settings=SETTINGS, keep_alive=None)


def failing(query: dict[str, str]) -> WSGIApplication:
    # Time enough for the slowest machine: the error is there at once, and nobody waits for longer.
    return EventStream(producers.failing, first_event_timeout=20)


def crowd(query: dict[str, str]) -> WSGIApplication:
    return EventStream(producers.crowd(Writer()), settings=SETTINGS)


def finished(query: dict[str, str]) -> WSGIApplication:
    key = query.get("key", "")

    def source() -> Iterable[Any]:
        facts.note(key, "started")
        return producers.ticks()

    return EventStream(source, finished=lambda last_event_id: last_event_id == "2", settings=SETTINGS)


def plain(query: dict[str, str]) -> WSGIApplication:
    return text("plain")


def facts_of(query: dict[str, str]) -> WSGIApplication:
    return in_json(facts.of(query["of"]))


#: Made once and served to every client, each time with a new stream.
TICKS = EventStream(producers.ticks, settings=SETTINGS)

ROUTES: dict[str, Callable[[dict[str, str]], WSGIApplication]] = {
    "/gate": gate,
    "/writer": writer,
    "/leave": leave,
    "/flood": flood,
    "/failing": failing,
    "/crowd": crowd,
    "/finished": finished,
    "/ticks": lambda query: TICKS,
    "/plain": plain,
    "/facts": facts_of,
}


def route(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer by the path, with a cookie, as any middleware would set one."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
        return start_response(status, [*headers, ("Set-Cookie", "visited=yes; Path=/")], *rest)

    find = ROUTES.get(environ["PATH_INFO"])
    answer = text("no such route", "404 Not Found") if find is None else find(facts.query(environ))
    return answer(environ, start)
