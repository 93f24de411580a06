"""Body: the bytes of a response as they arrive, whatever its framing, and a way to cancel from another thread.

The methods of requests wait: ``iter_lines``, ``iter_content(n)`` and ``raw.stream`` return no bytes until the end if
the body is close-delimited or a chunk arrives slowly. ``raw.read1`` is prompt on every framing, at 4 to 5 us a chunk;
decoding the chunks over the connection's own reader is several times faster for small ones. That is done only over a
reader of a known type (``transport.py``).

Closing the response can't end a blocked read: it waits for the reader's lock until the server sends again. So a
duplicate of the socket's descriptor is kept until the body ends, and cancelling shuts the connection down through it,
which wakes the reader on http and https alike. The thread that reads closes the response.
"""

from __future__ import annotations

import _thread
import functools
import io
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from typing import Any

from urllib3.exceptions import DecodeError, ReadTimeoutError

from ..errors import ConnectionLost, IdleTimeout, ReadError, excerpt
from ..locks import is_owned, make_rlock
from ..wire.chunked import ChunkDecoder
from .coding import unsupported_coding
from .interim import final_response, is_interim
from .transport import claim, connection_socket, handle_of, pool_is_held, reader_of

__all__ = ["Body", "BodyState"]

_READ_SIZE = 65536
# Seconds of silence, seconds between two probes, how many unanswered ones are too many. Linux's own are 2 h, 75, 9;
# macOS has the first under another name.
_PROBES = {"TCP_KEEPIDLE": 45, "TCP_KEEPALIVE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}


class BodyState(Enum):
    """The state of a body."""

    OPEN = auto()
    #: It was cancelled before its end; the response is not closed yet.
    CANCELLED = auto()
    #: The response is closed: after a cancel, at the end of the body, after an error.
    CLOSED = auto()
    COMPLETE = auto()
    FAILED = auto()


_TRANSITIONS: dict[BodyState, tuple[BodyState, ...]] = {
    BodyState.OPEN: (BodyState.CANCELLED, BodyState.COMPLETE, BodyState.FAILED),
    BodyState.CANCELLED: (BodyState.CLOSED,),
    BodyState.CLOSED: (),
    BodyState.COMPLETE: (),
    BodyState.FAILED: (),
}


# Members of an enum are looked up slowly before Python 3.12: twice for each piece that would be a tenth of its time.
_OPEN = BodyState.OPEN


class Body:
    """The body of a response, in pieces as they arrive. One thread reads; any thread may cancel or close.

    :param source: a ``requests`` response got with ``stream=True`` (or a ``urllib3`` one), or any iterable of bytes. An
        iterable can't be woken: cancelling it takes effect at its next piece.
    :param idle_timeout: seconds without a byte after which :meth:`read` raises ``IdleTimeout``; ``None``: the read
        timeout of the request.
    """

    def __init__(self, source: Any, *, idle_timeout: float | None = None) -> None:
        self._source = source
        #: The state. An attribute, as :class:`Reader` checks it for every event.
        self.state = BodyState.OPEN
        self._process = os.getpid()
        # Re-entrant: a signal handler that has interrupted the holder may cancel.
        self._lock = make_rlock("client.body")
        # Held during a read, which may take long and calls foreign code: so it is none of the locks of locks.py. Only
        # the next read waits for it, and a close by the caller, which has shut the connection before.
        self._reading = threading.RLock()
        self._handle: socket.socket | None = None
        self._next = self._open(idle_timeout)

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` or :meth:`close` was called before the end."""
        return self.state in (BodyState.CANCELLED, BodyState.CLOSED)

    @property
    def complete(self) -> bool:
        """Whether the body was read to its end."""
        return self.state is BodyState.COMPLETE

    def _enter(self, state: BodyState) -> bool:
        """Change to a state if that is possible. The result: whether it was."""
        with self._lock:
            possible = state in _TRANSITIONS[self.state]
            if possible:
                self.state = state
        return possible

    def _open(self, idle_timeout: float | None = None) -> Callable[[], bytes]:
        """Choose how to read the source. Returns a function that waits for its next bytes."""
        source = self._source
        raw = getattr(source, "raw", source)
        if getattr(getattr(raw, "_original_response", None), "_method", None) == "HEAD":
            return _from_iterable([])  # whatever its headers say about a body
        refused = unsupported_coding(source)
        if refused is not None:
            return functools.partial(_fail, refused)
        if getattr(source, "_content_consumed", False):
            return _from_iterable([source.content])
        if getattr(raw, "_body", None):
            return _from_iterable([raw.data])  # urllib3 reads it at once, unless preload_content is off
        if hasattr(raw, "read_chunked"):
            claim(raw)
            self._handle = handle_of(raw)
            if idle_timeout is not None and (sock := connection_socket(raw)) is not None:
                sock.settimeout(idle_timeout)
            _before(raw, "release_conn", self._drop_handle)
            _before(raw, "close", self._closed_by_caller)
            return _from_urllib3(raw)
        if hasattr(source, "iter_content"):
            return _from_iterable(source.iter_content(1))
        return _from_iterable(source)

    def final(self) -> Any:
        """Wait for the final response, after interim ones (status 1xx).

        :return: the final response; after a cancel, or if the connection can't be read any further, the interim one.
        :raises ReadError: no final response arrived, or too many interim ones did. Then the body is at its end.
        """
        if not is_interim(self._source) or self.cancelled:
            return self._source
        with self._reading:
            try:
                interim = getattr(self._source, "raw", self._source)
                self._source = final_response(self._source)
                if getattr(self._source, "raw", self._source) is not interim:
                    self._drop_handle()
                    self._next = self._open()
            except Exception as error:
                self._end(BodyState.FAILED)
                if not self.cancelled:
                    raise _translate(error) from error
        return self._source

    def read(self) -> bytes:
        """Wait for the next bytes.

        :return: the bytes, as soon as there are any; ``b""`` at the end and after a cancel.
        :raises IdleTimeout: no byte arrived within the read timeout.
        :raises ConnectionLost: the connection broke, or ended before the body's end.
        :raises ReadError: the bytes can't be decompressed or are not valid chunks.
        """
        with self._reading:
            data = b""
            if self.state is _OPEN:
                try:
                    data = self._next()
                except Exception as error:
                    self._end(BodyState.FAILED)
                    if self.cancelled:
                        return b""
                    as_read_error = _translate(error)
                    if as_read_error is error:
                        raise
                    raise as_read_error from error
            if data and self.state is _OPEN:
                return data
            self._end(BodyState.COMPLETE)
            return b""

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def probe(self) -> None:
        """Enable the kernel's probes of a silent peer: the read fails a minute and a half after the peer has
        disappeared."""
        with self._lock:
            if self._handle is None:
                return
            try:
                self._handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in _PROBES.items():
                    if hasattr(socket, name):
                        self._handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            except OSError:
                pass  # a unix socket, or gone already

    def cancel(self) -> None:
        """Make a blocked read, or the next one, return ``b""`` at once. Never blocks."""
        with self._lock:
            self._enter(BodyState.CANCELLED)
            # A forked process has the descriptor too, but the connection is the parent's.
            if self._handle is not None and self._process == os.getpid():
                try:
                    self._handle.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer has closed it already

    def close(self) -> None:
        """Cancel, and close the response. A thread that is reading closes it when it wakes, also if the caller is a
        signal handler that has interrupted it."""
        self.cancel()
        if not is_owned(self._reading) and self._reading.acquire(blocking=False):
            try:
                if self.state is BodyState.CANCELLED and pool_is_held(self._source):
                    _thread.start_new_thread(self._end_after_read, ())
                else:
                    self._end(BodyState.CLOSED)
            finally:
                self._reading.release()

    def release_connection(self) -> None:
        """Release the connection to another reader: this object reads no more bytes, a close does nothing, and closing
        the response has no effect on it. Called before the first read.
        """
        with self._lock:
            self._ended = True
            raw = getattr(self._source, "raw", self._source)
            for name in ("close", "release_conn"):
                vars(raw).pop(name, None)
        self._drop_handle()

    def _end_after_read(self) -> None:
        with self._reading:
            self._end(BodyState.CLOSED)

    def _end(self, state: BodyState) -> None:
        """Close the response, once. After a cancel the state is ``CLOSED``, whatever has ended the body."""
        if self._enter(state) or self._enter(BodyState.CLOSED):
            self._drop_handle()
            # urllib3's close() keeps the connection's slot in the pool, which the next request may wait for.
            for name in ("close", "release_conn"):
                method = getattr(self._source, name, None)
                if method is not None:
                    method()

    def _closed_by_caller(self) -> None:
        # On another thread, closing alone would wait for the reader; on this one, the body may be dropped.
        self.cancel()
        # The connection's buffer makes a thread wait while another one reads, but raises on a greenlet.
        with self._reading:
            self._drop_handle()

    def _drop_handle(self) -> None:
        """Drop the handle, before the connection returns to its pool: a later cancel would break another request."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def _from_iterable(source: Iterable[bytes]) -> Callable[[], bytes]:
    pieces = iter(source)

    def read() -> bytes:
        # An empty piece is not the end.
        piece = next((piece for piece in pieces if piece), b"")
        if isinstance(piece, str):
            raise TypeError(
                f"an event stream is read from bytes, got a piece of text {excerpt(piece)}: pass bytes, with the line "
                "ends in them (iter_content() without decode_unicode, iter_bytes() of httpx)"
            )
        return piece

    return read


def _fail(error: ReadError) -> bytes:
    raise error


def _from_urllib3(raw: Any) -> Callable[[], bytes]:
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    reader = reader_of(raw)
    if encoding in ("", "identity") and reader is not None and raw.chunked:
        untouched = raw.chunk_left is None and raw._fp.chunk_left is None
        if untouched:
            return _ChunkedReader(raw, reader).read
    return functools.partial(raw.read1, _READ_SIZE, decode_content=True)


def _before(raw: Any, name: str, action: Callable[[], None]) -> None:
    """Call ``action`` before a method of the response, which urllib3 and the caller call too."""
    method = getattr(raw, name)

    def call() -> None:
        vars(raw).pop(name, None)  # or the response would keep itself alive
        action()
        method()

    setattr(raw, name, call)


class _ChunkedReader:
    """Reads a chunked body over the reader of http.client.

    :param raw: the response of urllib3.
    :param reader: the reader of its connection.
    """

    def __init__(self, raw: Any, reader: io.BufferedReader) -> None:
        self._raw = raw
        self._reader = reader
        self._decoder = ChunkDecoder()

    def read(self) -> bytes:
        """Wait for the next data.

        :return: the data; ``b""`` at the end of the body.
        :raises ReadError: the body is not properly chunked, or the connection ended in it.
        """
        decoder = self._decoder
        while not decoder.done:
            if decoder.error is not None:
                raise decoder.error
            data = self._reader.read1(_READ_SIZE)
            if not data and (error := decoder.end()) is not None:
                raise error
            pieces = decoder.decode(data)
            if decoder.done:
                self._release()
            if pieces:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return b""

    def _release(self) -> None:
        # A connection with bytes after the end must not be used again: Body closes it.
        if not self._decoder.rest and getattr(self._raw, "_original_response", None) is not None:
            self._raw._original_response.close()
            self._raw.release_conn()


def _translate(error: Exception) -> Exception:
    if isinstance(error, ReadError):
        return error
    if isinstance(error, (TimeoutError, ReadTimeoutError)):
        return IdleTimeout("no byte arrived within the read timeout")
    if isinstance(error, DecodeError):
        return ReadError(f"the body can't be decompressed: {error}")
    if isinstance(error, OSError) or type(error).__module__.startswith(("urllib3", "http.client", "requests")):
        return ConnectionLost(f"the connection broke: {error}")
    return error
