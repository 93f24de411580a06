"""``tail --raw``: the bytes, as they arrive."""

from __future__ import annotations

import codecs
import sys
import threading
from collections.abc import Callable

import click
import requests

from ..client.body import Body
from ..client.reader import excerpt_of
from ..client.session import new_session
from ..errors import EventTooLarge, ReadError
from ..text import redact
from ..wire.decoder import Decoder
from ..wire.http import is_event_stream
from .options import Request
from .screen import on_reader_gone, waking_on_signals
from .text import escape, excerpt, reason

__all__ = ["copy_raw"]


def copy_raw(request: Request, idle_timeout: float | None, *, until: str | None, count: int | None) -> int:
    """Copy the body of the answer to the output, to its end or to the event that ends the command.

    :param request: the request.
    :param idle_timeout: seconds without a byte until the connection counts as dead; ``None``: no limit.
    :param until: end at the event with this data.
    :param count: end after so many events.
    :return: the exit status.
    """
    try:
        with new_session() as session:
            response = session.request(
                request.method, request.url, headers=request.headers_to_send(), data=request.data,
                verify=request.verify, stream=True, timeout=(request.connect_timeout, idle_timeout),
            )  # fmt: skip
    except requests.RequestException as error:
        return _fail(f"no answer from {redact(request.url)}: {reason(error)}", 3)
    content_type = response.headers.get("Content-Type") or ""
    if response.status_code not in (200, 204):
        begins = excerpt(excerpt_of(Body(response)), content_type)
        return _fail(f"{response.status_code} {response.reason or ''}{begins}", 3)
    if response.status_code == 200 and not is_event_stream(content_type):
        _fail(f"the answer is {content_type or 'of no media type'}", 0)
    return _copy(Body(response), until, count)


def _copy(body: Body, until: str | None, count: int | None) -> int:
    gone = threading.Event()

    def leave() -> None:
        gone.set()
        body.cancel()

    on_reader_gone(leave)
    write, decoder = _writer(), Decoder()
    try:
        with waking_on_signals(body.cancel):
            for data in body:
                write(data)
                if until is None and count is None:
                    continue
                events = decoder.feed(data)
                count = count and count - len(events)
                if (count is not None and count <= 0) or any(event.data == until for event in events):
                    return 0
    except (ReadError, EventTooLarge) as error:
        return _fail(str(error), 1)
    finally:
        body.close()
    if gone.is_set() or (until is None and count is None):
        return 0
    return _fail(f"the stream ended before {'--until' if until is not None else '--count'} was met", 1)


def _fail(text: str, status: int) -> int:
    click.echo(f"ssesync: {escape(text)}", err=True)
    return status


def _writer() -> Callable[[bytes], None]:
    """A function that writes bytes: as they are, or on a terminal as text without control characters."""
    out = sys.stdout.buffer
    decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode if sys.stdout.isatty() else None

    def write(data: bytes) -> None:
        out.write(data if decode is None else "\n".join(map(escape, decode(data).split("\n"))).encode("utf-8"))
        out.flush()

    return write
