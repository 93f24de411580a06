"""Reads streams with urllib3-future in urllib3's place, and prints what came of each try as JSON. Run as a script."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import niquests
import requests
import urllib3

from ssesync import Backoff, EventSource, IdleTimeout, Reader, StatusError
from ssesync.testing import Answer, FakeSSEServer

TIMEOUT = 90.0


def prompt(get: Callable[[str], Any], server: FakeSSEServer, framing: str) -> list[str | None]:
    """Each event is there before the server may send the next."""
    go = threading.Semaphore(0)
    server.add(Answer(framing=framing).event("one").wait_for(go).event("two").wait_for(go).event("three"))  # type: ignore[arg-type]
    seen = []
    for event in Reader(get(server.url)):
        seen.append(event.data)
        go.release()
    return seen


def cancelled(get: Callable[[str], Any], server: FakeSSEServer) -> list[Any]:
    """A read that waits for a silent server ends by a cancel; the server's own end would come much later."""
    server.answer().event("one").stall()
    reader = Reader(get(server.url))
    first = reader.read()
    threading.Timer(0.2, reader.cancel).start()
    began = time.monotonic()
    second = reader.read()
    reader.close()
    server.wait_for_client_left()
    return [first and first.data, second, time.monotonic() - began < TIMEOUT / 2]


def idle(server: FakeSSEServer) -> str:
    server.answer().event("one").stall()
    reader = Reader(requests.get(server.url, stream=True, timeout=TIMEOUT), idle_timeout=0.2)
    reader.read()
    try:
        return repr(reader.read())
    except IdleTimeout:
        return "IdleTimeout"


def followed(server: FakeSSEServer, session: requests.Session | None) -> list[Any]:
    server.answer().event("one", id=1)
    server.answer(503)
    server.answer().event("two", id=2)
    server.answer(204)
    with EventSource(server.url, session=session, backoff=Backoff(initial=0)) as source:
        seen = [event.data for event in source]
    return [seen, [request.last_event_id for request in server.requests[-4:]]]


def closed_while_connecting(server: FakeSSEServer) -> list[Any]:
    requested, go = threading.Event(), threading.Event()
    server.add(Answer().wait_for(go), when=lambda request: requested.set() or True)
    source = EventSource(server.url)
    threading.Thread(target=lambda: (requested.wait(TIMEOUT), source.close())).start()
    seen = [event.data for event in source]
    go.set()
    return [seen, source.state]


def refused(server: FakeSSEServer) -> list[Any]:
    server.answer(404, body="no such stream")
    try:
        Reader(requests.get(server.url, stream=True))
    except StatusError as error:
        return [error.response.status_code, error.body.decode()]
    return []


def main() -> None:
    def by_requests(url: str) -> Any:
        return requests.get(url, stream=True, timeout=TIMEOUT)

    def by_niquests(url: str) -> Any:
        return niquests.get(url, stream=True, timeout=TIMEOUT)

    results: dict[str, Any] = {"urllib3": "future" if hasattr(urllib3, "AsyncPoolManager") else "urllib3"}
    with FakeSSEServer() as server:
        for framing in ("chunked", "close", "length"):
            results[f"requests, {framing}"] = prompt(by_requests, server, framing)
            results[f"niquests, {framing}"] = prompt(by_niquests, server, framing)
        results["requests, cancel"] = cancelled(by_requests, server)
        results["niquests, cancel"] = cancelled(by_niquests, server)
        results["idle"] = idle(server)
        results["source"] = followed(server, None)
        results["source, own session"] = followed(server, requests.Session())
        results["closing"] = closed_while_connecting(server)
        results["refused"] = refused(server)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
