"""Request bodies before a hand-over: the rest of a body is read before its producer starts.

A producer may read the body of its request when the client's connection has left the server. The server's descriptor
then is one end of a socket pair, where a read finds an end of file: of 100 bytes that arrived late a producer got none,
without an error. So the rest of the body is read first, for a bounded time and up to a bounded size
(``max_request_body``), and the server's own reader is changed to return it. Otherwise the stream stays served.

The law of this file: a body is the same as on a served stream, or :func:`secure_body` returns ``False`` and no byte of
the body is lost.

- gunicorn's reader reads from an ``Unreader``, and that from the socket. There the read-ahead replaces the socket,
  *below* all wrappers that the application has put around ``wsgi.input``, and below all bytes that were read already. A
  body with a length or in chunks is read ahead as it is on the wire: only its end must be found, and gunicorn decodes
  it (read in 22.0, 23.0, 24.1, 25.1, 26.2 and 27.0).
- Werkzeug, ``runserver`` and wsgiref close their file when the response has ended. So the body must be put below the
  framework's reader: Werkzeug's ``LimitedStream``, which Flask's request has, or Django's. It is read from the file
  only when the kernel has all of it, as no byte can be returned to the file: so only small bodies.
- The readers of others (uWSGI, cheroot) can't be changed: the body must have been read. On uWSGI each request has an
  environ of its own only with an option; without it, no producer may outlive the response.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

from ..settings import Settings
from .force_close import gunicorn_response

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

__all__ = ["DJANGO_STREAM", "ReadAhead", "secure_body"]

#: The key of the environ under which ``ssesync_django`` has the stream that Django's request reads from.
DJANGO_STREAM = "ssesync.django_stream"

# Seconds that a body may take to arrive: it holds a thread of the server's, and delays the response's head.
_WAIT = 1.0
# Bytes of a body that are kept in memory; more are kept in a temporary file.
_IN_MEMORY = 1024 * 1024
# Bytes that the kernel buffers while no program reads them.
_IN_KERNEL = 32 * 1024
_PIECE = 65536
_POLL = 0.005
# Bytes of the line before a chunk, and of a trailer.
_MAX_LINE = 16 * 1024


def secure_body(environ: MutableMapping[str, Any], settings: Settings, wait: float = _WAIT) -> bool:
    """Read the rest of a request's body, so that its connection may leave the server. On the server's thread, in the
    call of the application.

    :param environ: the WSGI environ of the request.
    :param settings: the stream's.
    :param wait: seconds to wait for the body at most.
    :return: whether the whole body was read. If not, the stream must stay served.
    """
    if "uwsgi.version" in environ and not _keeps_environ():
        return False
    length = environ.get("CONTENT_LENGTH") or "0"
    if length == "0" and "HTTP_TRANSFER_ENCODING" not in environ:
        return True
    body = environ.get("wsgi.input")
    if isinstance(body, (io.BytesIO, tempfile.SpooledTemporaryFile)):
        return True  # a middleware has read it
    deadline = time.monotonic() + wait
    response = gunicorn_response()
    try:
        if response is not None:
            return _secure_in_gunicorn(response.req.body.reader, settings.max_request_body, deadline)
        return _secure_elsewhere(environ, body, length, settings.max_request_body, deadline)
    except (AttributeError, KeyError, OSError, ValueError):
        return False  # a release of the server or framework that is not known


# gunicorn


def _secure_in_gunicorn(reader: Any, most: int, deadline: float) -> bool:
    readers, unreaders = sys.modules["gunicorn.http.body"], sys.modules["gunicorn.http.unreader"]
    framing: _Length | _Chunks
    if type(reader) is readers.LengthReader:
        framing, unreader = _Length(reader.length), reader.unreader
    elif type(reader) is readers.ChunkedReader:
        if reader.parser is None:
            return True  # it was read to its end
        if inspect.getgeneratorstate(reader.parser) != inspect.GEN_CREATED:
            return False  # it was read in part: only the parser knows how far
        framing, unreader = _Chunks(), reader.req.unreader
    else:
        return False
    if type(unreader) is not unreaders.SocketUnreader:
        return False
    connection = unreader.sock
    if type(connection) is ReadAhead:  # for an earlier stream of this request
        return connection.is_complete
    if framing.feed(unreader.buf.getvalue()):
        return True
    if type(connection) is not socket.socket or framing.least > most:
        return False
    ahead = ReadAhead(connection)
    try:
        return ahead.fetch(framing, most, deadline)
    finally:
        # Always: the bytes of an incomplete body are read from it, and the rest from the connection.
        unreader.sock = ahead


class ReadAhead:
    """Replaces a server's socket: returns the bytes that were read ahead, then the socket's.

    :param connection: the server's socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # it is closed when it was read
        self._rest = b""  # bytes that could not be written to the file
        #: Whether all of the body was read ahead.
        self.is_complete = False

    def fetch(self, framing: _Length | _Chunks, most: int, deadline: float) -> bool:
        """Read ahead.

        :param framing: finds the end of the body.
        :param most: bytes to read at most.
        :param deadline: the end of the wait, on the monotonic clock.
        :return: whether the body is complete. If not, it is too large or malformed, or has not arrived.
        """
        readable = select.poll()
        readable.register(self._socket.fileno(), select.POLLIN)
        size = 0
        try:
            while not self.is_complete and size <= most and not self._rest:
                if not readable.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    break
                try:
                    piece = self._socket.recv(framing.step, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                if not piece:
                    break  # the client has left
                size += len(piece)
                self._keep(piece)
                self.is_complete = framing.feed(piece)
        except (OSError, ValueError):
            pass  # a read by the application reports the same error
        self._file.seek(0)
        return self.is_complete

    def _keep(self, piece: bytes) -> None:
        end = self._file.tell()
        try:
            self._file.write(piece)
        except OSError:  # the disk is full, or there is no descriptor
            self._file.seek(end)
            with contextlib.suppress(OSError):
                self._file.truncate()
            self._rest = piece

    def recv(self, size: int, *flags: int) -> bytes:
        """Receive, as from a socket.

        :param size: bytes at most.
        :return: the bytes; ``b""`` at the end.
        """
        if self._file is not None:
            if piece := self._file.read(size):
                return bytes(piece)
            self._file.close()
            self._file = None
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        return self._socket.recv(size, *flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def __del__(self) -> None:
        if self.__dict__.get("_file") is not None:
            self._file.close()


class _Length:
    """Finds the end of a body of a known length."""

    def __init__(self, length: int) -> None:
        #: The least number of bytes that are missing.
        self.least = length

    @property
    def step(self) -> int:
        """The most bytes to read: none of the next request."""
        return min(_PIECE, self.least)

    def feed(self, data: bytes) -> bool:
        """Count bytes that were read. The result: whether the body is complete."""
        self.least -= len(data)
        return self.least <= 0


class _Chunks:
    """Finds the end of a body in chunks (RFC 9112, section 7.1)."""

    least = 1
    step = _PIECE

    def __init__(self) -> None:
        self._line = b""
        self._skip = 0  # bytes of a chunk and its line end that were not read yet
        self._is_last = False
        self._complete = False

    def feed(self, data: bytes) -> bool:
        """Parse bytes that were read.

        :return: whether the body is complete.
        :raises ValueError: it is malformed.
        """
        at = 0
        while at < len(data) and not self._complete:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            end = data.find(b"\n", at)
            stop = len(data) if end < 0 else end + 1
            self._line += data[at:stop]
            at = stop
            if len(self._line) > _MAX_LINE:
                raise ValueError("a line of the chunked coding is too long")
            if end >= 0:
                self._take_line()
        return self._complete

    def _take_line(self) -> None:
        line, self._line = self._line.rstrip(b"\r\n"), b""
        if self._is_last:  # the trailers
            self._complete = not line
            return
        size = int(line.partition(b";")[0], 16)
        if size < 0:
            raise ValueError("a chunk has a negative size")
        self._is_last = size == 0
        self._skip = size and size + 2


# Other servers


def _keeps_environ() -> bool:
    """Whether uWSGI makes an environ for each request (``--wsgi-env-behaviour holy``). By default it clears the environ
    when the response has ended, and uses it again: a producer would read another client's headers."""
    options = sys.modules["uwsgi"].opt
    return b"holy" in (options.get("wsgi-env-behaviour"), options.get("wsgi-env-behavior"))


class _Wrapper(NamedTuple):
    """The object that a framework reads a body from."""

    taken: int
    """Bytes that were read from it."""
    replace: Callable[[io.BytesIO], object]
    """Makes it read from another file."""


def _secure_elsewhere(environ: MutableMapping[str, Any], body: Any, length: str, most: int, deadline: float) -> bool:
    if "HTTP_TRANSFER_ENCODING" in environ:
        return _is_a(body, "werkzeug.serving", "DechunkedInput") and bool(body._done)
    if _is_a(body, "cheroot.server", "KnownLengthRFile"):
        return bool(body.remaining == 0)
    file: Any = body
    if _is_a(body, "django.core.handlers.wsgi", "LimitedStream"):  # runserver's own, round the connection's file
        if body._pos >= body.limit:
            return True
        file = body._read.__self__
    wrapper = _wrapper_of_werkzeug(environ, body) or _wrapper_of_django(environ, body)
    if wrapper is None:
        return False
    missing = int(length) - wrapper.taken
    if missing <= 0:
        return True
    if type(file) is not io.BufferedReader or missing > most or (file is not body and body._pos != wrapper.taken):
        return False
    if not _is_there(file, missing, deadline):
        return False
    rest = io.BytesIO(body.read(missing))  # by runserver's own stream, which reads the rest at the response's end
    wrapper.replace(rest)
    environ["wsgi.input"] = rest
    return True


def _wrapper_of_werkzeug(environ: MutableMapping[str, Any], body: Any) -> _Wrapper | None:
    """Find the object that the request of Flask, or Werkzeug, reads from."""
    request = environ.get("werkzeug.request")
    if request is None:
        return None
    known = vars(request)
    if "_cached_data" in known:  # get_data() has read all
        return _Wrapper(sys.maxsize, lambda rest: None)
    stream = known.get("stream")
    if stream is None:  # no byte was read: the request will make the stream from the environ
        return _Wrapper(0, lambda rest: None)
    if _is_a(stream, "werkzeug.wsgi", "LimitedStream") and stream._stream is body:
        return _Wrapper(stream._pos, lambda rest: setattr(stream, "_stream", rest))
    return None


def _wrapper_of_django(environ: MutableMapping[str, Any], body: Any) -> _Wrapper | None:
    """Find the object that Django's request reads from."""
    stream: Any = environ.get(DJANGO_STREAM)
    if not _is_a(stream, "django.core.handlers.wsgi", "LimitedStream") or stream._read.__self__ is not body:
        return None

    def replace(rest: io.BytesIO) -> None:
        stream._read, stream._readline = rest.read, rest.readline

    return _Wrapper(stream._pos, replace)


def _is_a(thing: Any, module: str, name: str) -> bool:
    """Whether an object is of exactly this class."""
    return module in sys.modules and type(thing) is sys.modules[module].__dict__.get(name)


def _is_there(file: io.BufferedReader, size: int, deadline: float) -> bool:
    """Wait until so many bytes can be read from a connection's file at once. No byte is read."""
    fd = file.fileno()
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        buffered = len(file.peek(1))
    finally:
        os.set_blocking(fd, blocking)
    if fcntl is None or termios is None:
        return buffered >= size
    while True:
        waiting = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4), sys.byteorder)
        if buffered + waiting >= size:
            return True
        if size > _IN_KERNEL or time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
