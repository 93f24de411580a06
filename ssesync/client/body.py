"""Body: the bytes of a response as they arrive, whatever its framing, and a way to stop from another thread.

What requests offers for this waits: ``iter_lines``, ``iter_content(n)`` and ``raw.stream`` deliver nothing until
the end where the body is close-delimited or a chunk trickles. ``raw.read1`` is prompt on every framing, at 4 to
5 us a chunk; taking the chunks apart over the connection's own reader is several times faster on small ones. That is
done only over a reader that is known (``transport.py``).

A blocked read can't be ended by closing the response: that waits for the reader's lock until the server speaks
again. So a duplicate of the socket's descriptor is kept while the body lasts, and cancelling shuts the
connection through it, which wakes the reader on http and https alike. The thread that reads closes.
"""

from __future__ import annotations

import _thread
import functools
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from urllib3.exceptions import DecodeError, ReadTimeoutError

from ..errors import ConnectionLost, IdleTimeout, ReadError, excerpt
from ..locks import is_owned, make_rlock
from .coding import refusal
from .interim import final_answer, is_interim
from .transport import claim, connection_socket, handle_of, pool_is_held, reader_of

__all__ = ["Body"]

_READ_SIZE = 65536
# A chunk-size line with its extensions; urllib3 allows as much.
_LONGEST_LINE = 65536
# Seconds of silence, seconds between two probes, how many unanswered ones are too many. Linux's own are 2 h, 75, 9;
# macOS has the first under another name.
_PROBES = {"TCP_KEEPIDLE": 45, "TCP_KEEPALIVE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}
# int() takes signs, "0x" and underscores besides.
_HEX = b"0123456789abcdefABCDEF"


class Body:
    """The body of a response, in pieces as they arrive. One thread reads; any thread may cancel or close.

    :param source: a ``requests`` response got with ``stream=True`` (or a ``urllib3`` one), or any
        iterable of bytes. An iterable can't be woken: cancelling it takes effect at its next piece.
    :param idle_timeout: seconds without a byte after which :meth:`read` raises ``IdleTimeout``;
        ``None`` leaves the read timeout that the request was made with.
    """

    def __init__(self, source: Any, *, idle_timeout: float | None = None) -> None:
        self._source = source
        #: Whether :meth:`cancel` or :meth:`close` was called before the end. Looked at for every event.
        self.cancelled = False
        #: Whether the body was read to its own end.
        self.complete = False
        self._ended = False
        self._process = os.getpid()
        # A signal handler may cancel while its own thread is in here.
        self._lock = make_rlock("client.body")
        # Says that a read is in progress, which may last and calls what is not ours: so it is no lock as those of
        # locks.py. Only the next read waits for it, and a close by the caller, who has shut the connection before.
        self._reading = threading.RLock()
        self._handle: socket.socket | None = None
        self._next = self._open(idle_timeout)

    def _open(self, idle_timeout: float | None = None) -> Callable[[], bytes]:
        """Get hold of what the source reads from; what gives its next bytes."""
        source = self._source
        raw = getattr(source, "raw", source)
        if getattr(getattr(raw, "_original_response", None), "_method", None) == "HEAD":
            return _from_iterable([])  # whatever its headers say of a body
        refused = refusal(source)
        if refused is not None:
            return functools.partial(_fail, refused)
        if getattr(source, "_content_consumed", False):
            return _from_iterable([source.content])
        if getattr(raw, "_body", None):
            return _from_iterable([raw.data])  # urllib3 reads it at once unless told not to
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
        """Wait for the answer itself where interim ones (status 1xx) come before it; the response to go by.

        After a cancel, and where the connection can't be read on, that is the interim answer.

        :raises ReadError: no answer came, or too many interim ones did. The body is at its end then.
        """
        if not is_interim(self._source) or self.cancelled:
            return self._source
        with self._reading:
            try:
                interim = getattr(self._source, "raw", self._source)
                self._source = final_answer(self._source)
                if getattr(self._source, "raw", self._source) is not interim:
                    self._drop_handle()
                    self._next = self._open()
            except Exception as error:
                self._end(b"")
                if not self.cancelled:
                    raise _translated(error) from error
        return self._source

    def read(self) -> bytes:
        """The next bytes, as soon as there are any; ``b""`` at the end and after a cancel.

        :raises IdleTimeout: no byte came within the read timeout.
        :raises ConnectionLost: the connection broke, or ended before the framing says so.
        :raises ReadError: the bytes can't be decompressed or are not proper chunks.
        """
        with self._reading:
            if self._ended or self.cancelled:
                return self._end(b"")
            try:
                data = self._next()
            except Exception as error:
                self._end(b"")
                if self.cancelled:
                    return b""
                translated = _translated(error)
                if translated is error:
                    raise
                raise translated from error
            if not data or self.cancelled:
                self.complete = not self.cancelled
                return self._end(b"")
            return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def probe(self) -> None:
        """Have the kernel ask a silent peer whether it is there: the read fails a minute and a half after it is not."""
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
        """Stop: a read that is blocked, or the next one, returns ``b""`` at once. Never blocks."""
        with self._lock:
            self.cancelled = self.cancelled or not self._ended
            # A forked process has the connection too, but it is not its own to end.
            if self._handle is not None and self._process == os.getpid():
                try:
                    self._handle.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer was faster

    def close(self) -> None:
        """Stop, and give the connection up. A thread that is reading does the latter as it wakes; also where this is a
        signal handler that has interrupted it."""
        self.cancel()
        if not is_owned(self._reading) and self._reading.acquire(blocking=False):
            try:
                if not self._ended and pool_is_held(self._source):
                    _thread.start_new_thread(self._end_in_turn, ())
                else:
                    self._end(b"")
            finally:
                self._reading.release()

    def _end_in_turn(self) -> None:
        with self._reading:
            self._end(b"")

    def _end(self, result: bytes) -> bytes:
        if not self._ended:
            self._ended = True
            self._drop_handle()
            # urllib3's close() keeps the connection's place in the pool, which the next request may wait for.
            for name in ("close", "release_conn"):
                method = getattr(self._source, name, None)
                if method is not None:
                    method()
        return result

    def _closed_by_caller(self) -> None:
        # From another thread, closing alone would wait for the reader; on this one, the body may be forgotten.
        self.cancel()
        # The connection's buffer makes a thread wait while another reads, but raises on a greenlet that does the same.
        with self._reading:
            self._drop_handle()

    def _drop_handle(self) -> None:
        """To be called before the connection is back in its pool, where a late cancel would cut another's request."""
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
                f"an event stream is read from bytes, got a piece of text {excerpt(piece)}: give bytes, with the line "
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
            return _Chunks(raw, reader).read
    return functools.partial(raw.read1, _READ_SIZE, decode_content=True)


def _before(raw: Any, name: str, action: Callable[[], None]) -> None:
    """Have ``action`` called before the method of that name, which urllib3 and the caller call too."""
    method = getattr(raw, name)

    def call() -> None:
        vars(raw).pop(name, None)  # or the response would keep itself alive
        action()
        method()

    setattr(raw, name, call)


class _Chunks:
    """Chunked transfer coding (RFC 9112, section 7.1) taken apart, over the reader that http.client reads from."""

    def __init__(self, raw: Any, reader: Any) -> None:
        self._raw = raw
        self._reader = reader
        self._rest = b""  # of a chunk-size line, or of the line end after a chunk
        self._left = 0  # of the chunk's data
        self._line_end = 0  # bytes of the CR LF behind a chunk that are still to come
        self._last = False  # the last chunk was seen: trailer lines follow
        self._done = False
        self._error: ReadError | None = None  # for the next read: what came before it is good

    def read(self) -> bytes:
        while not self._done:
            if self._error is not None:
                raise self._error
            data = self._reader.read1(_READ_SIZE)
            if not data:
                raise ConnectionLost("the connection ended before the last chunk of the body")
            pieces: list[bytes] = []
            try:
                self._take(self._rest + data if self._rest else data, pieces)
            except ReadError as error:
                self._error = error
            if self._done:
                self._release()
            if pieces:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return b""

    def _take(self, data: bytes, pieces: list[bytes]) -> None:
        at, end = 0, len(data)
        at_a_stroke = True
        self._rest = b""
        while at < end and not self._done:
            if self._left:
                piece = data[at : at + self._left] if at or self._left < end else data
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._line_end = 0 if self._left else 2
            elif self._line_end:
                step = min(self._line_end, end - at)
                if data[at : at + step] != b"\r\n"[2 - self._line_end :][:step]:
                    raise ReadError(f"a chunk of the body is longer than its size says: {data[at : at + 20]!r}")
                at += step
                self._line_end -= step
            else:
                stop = data.find(b"\r\n", at)
                if stop < 0:
                    self._rest = data[at:]
                    if len(self._rest) > _LONGEST_LINE:
                        raise ReadError("a chunk-size line of the body is too long")
                    return
                if self._last:
                    self._done = stop == at
                    at = stop + 2
                else:
                    size = _chunk_size(data[at:stop])
                    if at_a_stroke and 0 < size * 8 < end - at:
                        many = _equal_parts(data[at:])
                        at_a_stroke = False  # a second try would cost as much again for every chunk
                        if many is not None:
                            pieces += many[0]
                            at = end - many[1]
                            continue
                    at = stop + 2
                    self._left = size
                    self._last = not size
        self._rest = self._rest or data[at:]

    def _release(self) -> None:
        # With bytes behind the end the connection is not to be used again: the body closes it.
        if not self._rest and getattr(self._raw, "_original_response", None) is not None:
            self._raw._original_response.close()
            self._raw.release_conn()


def _equal_parts(data: bytes) -> tuple[list[bytes], int] | None:
    """Take many small chunks apart at a stroke: their data, and how many bytes at the end are no whole chunk.

    Cut at every CR LF, sizes and data alternate, unless some data holds a CR LF: then a size does not match the
    length of what follows it, and the answer is None. 0.2 us a chunk, where one by one it is 1 us.
    """
    parts = data.split(b"\r\n")
    whole = (len(parts) - 1) & ~1
    names, pieces = parts[:whole:2], parts[1:whole:2]
    try:
        sizes = {name: _chunk_size(name) for name in set(names)}  # few differ
    except ReadError:
        return None
    if 0 in sizes.values() or [sizes[name] for name in names] != list(map(len, pieces)):
        return None
    return pieces, len(b"\r\n".join(parts[whole:]))


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].strip(b" \t")
    if not size or size.translate(None, _HEX):
        raise ReadError(f"not a chunk size: {line[:40]!r}")
    return int(size, 16)


def _translated(error: Exception) -> Exception:
    if isinstance(error, ReadError):
        return error
    if isinstance(error, (TimeoutError, ReadTimeoutError)):
        return IdleTimeout("no byte arrived within the read timeout")
    if isinstance(error, DecodeError):
        return ReadError(f"the body can't be decompressed: {error}")
    if isinstance(error, OSError) or type(error).__module__.startswith(("urllib3", "http.client", "requests")):
        return ConnectionLost(f"the connection broke: {error}")
    return error
