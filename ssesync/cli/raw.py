"""``tail --raw``: the bytes, as they arrive."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable

import click
import requests

from ..client.body import Body
from ..client.reader import excerpt_of
from ..client.session import new_session
from ..errors import EventTooLarge, ReadError
from ..text import redact
from ..wire.decoder import Decoder
from ..wire.http import is_event_stream, set_last_event_id
from .options import Request
from .screen import on_reader_gone, waking_on_signals
from .text import escape, excerpt, reason

__all__ = ["copy_raw"]


def copy_raw(request: Request, idle_timeout: float | None, *, until: str | None, count: int | None) -> int:
    """Copy the body of the answer to the output, to its end or to the event that is asked for; the exit status."""
    headers = {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Cache-Control": "no-cache",
        **request.headers,
    }
    if request.last_event_id:
        set_last_event_id(headers, request.last_event_id)
    try:
        with new_session() as session:
            response = session.request(
                request.method, request.url, headers=headers, data=request.data, verify=request.verify, stream=True,
                timeout=(request.connect_timeout, idle_timeout),
            )  # fmt: skip
    except requests.RequestException as error:
        return _fail(f"no answer from {redact(request.url)}: {reason(error)}", 3)
    content_type = response.headers.get("Content-Type")
    if response.status_code not in (200, 204):
        said = excerpt(excerpt_of(Body(response)), content_type or "")
        return _fail(f"{response.status_code} {escape(response.reason or '')}{said}", 3)
    if response.status_code == 200 and not is_event_stream(content_type):
        click.echo(f"ssesync: the answer is {escape(content_type or 'of no media type')}", err=True)
    return _copy(Body(response), until, count)


def _copy(body: Body, until: str | None, count: int | None) -> int:
    write = _writer()
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        body.cancel()

    on_reader_gone(leave)
    met = _Counter(until, count).met if until is not None or count is not None else None
    try:
        with waking_on_signals(body.cancel):
            for data in body:
                write(data)
                if met is not None and met(data):
                    return 0
    except ReadError as error:
        return _fail(str(error), 1)
    finally:
        body.close()
    if met is None or gone:
        return 0
    return _fail(f"the stream ended before {'--until' if until is not None else '--count'} was met", 1)


def _fail(text: str, status: int) -> int:
    click.echo(f"ssesync: {escape(text)}", err=True)
    return status


class _Counter:
    def __init__(self, until: str | None, count: int | None) -> None:
        self._until = until
        self._left = count
        self._decoder = Decoder()

    def met(self, data: bytes) -> bool:
        """Whether the event that ends the copy is among these bytes."""
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise ReadError(str(error)) from error
        if self._left is not None:
            self._left -= len(events)
            if self._left <= 0:
                return True
        return self._until is not None and any(event.data == self._until for event in events)


def _writer() -> Callable[[bytes], None]:
    """What writes bytes: as they are, or on a terminal as text that it can't take for orders."""
    out = sys.stdout.buffer
    if not sys.stdout.isatty():

        def write(data: bytes) -> None:
            out.write(data)
            out.flush()

        return write
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def show(data: bytes) -> None:
        lines = decoder.decode(data).split("\n")
        out.write("\n".join(map(escape, lines)).encode("utf-8"))
        out.flush()

    return show
