"""FakeSSEServer: a real server on real sockets with a test's scripted answers, faults included."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from operator import length_hint
from types import TracebackType
from typing import Any, BinaryIO

from ..cancel import CancelToken
from ..event import Event
from ..locks import Waiters
from ..wire.chunked import ChunkDecoder
from ..wire.encoder import encode
from ..wire.http import get_last_event_id
from .errors import ScriptError, WaitTimeout
from .script import FIN, RST, Answer, Pause, Step, Steps, head

__all__ = ["FakeSSEServer", "RecordedRequest"]

_MAX_HEAD = 1024 * 1024


@dataclass
class RecordedRequest:
    """A request to a :class:`FakeSSEServer`."""

    method: str
    """``"GET"``, ``"POST"``, …"""
    target: str
    """The path with its query, as it was sent."""
    headers: dict[str, str]
    """By their names in lower case; several of one name are joined by commas. Values are read as Latin-1."""
    body: bytes
    """The whole body, without the chunked coding."""
    connection: int
    """The number of its connection, counted from 0."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def last_event_id(self) -> str:
        """The client's last event ID, ``""`` without one."""
        return get_last_event_id(self.headers)

    def json(self) -> Any:
        """Decode the body as JSON.

        :return: the object.
        :raises ValueError: it is no JSON.
        """
        return json.loads(self.body)


Script = Callable[[RecordedRequest], Steps]


class FakeSSEServer:
    """Listens on 127.0.0.1 during the ``with`` block, and sends scripted answers.

    ::

        with FakeSSEServer() as server:
            server.answer().event("one", id=1).event("two", id=2).drop(rst=True)
            server.answer(503, retry_after=1)
            server.answer().event("three", id=3)
            assert [event.data for event in EventSource(server.url, clock=FakeClock())] == ["one", "two", "three"]
            assert [request.last_event_id for request in server.requests] == ["", "2", "2", "3"]

    Each request gets the next of the answers that :meth:`answer` has added and whose ``when`` it meets. If none is left
    it gets the script's answer, and without a script 204, after which the client of an event stream must not reconnect.

    A thread of its own serves each connection. Every method may be called from any thread, :meth:`close` also from a
    signal handler. An answer may be added while a client waits for the connection to be accepted.

    :param script: the answer to requests for which none was added: an :class:`Answer` or its steps, or a function that
        makes them from the :class:`RecordedRequest`.
    :param tls: serve https with this context's certificate.
    :param port: the port to listen on; a free one by default.
    :param patience: seconds that a script waits for a test's signal before it fails.
    """

    def __init__(
        self,
        script: Script | Steps | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        patience: float = 20.0,
    ) -> None:
        self._script = script
        # Answers that were added; the condition for their requests; and one item for each request that may get them.
        self._queue: list[tuple[Steps, Callable[[RecordedRequest], object] | None, Iterator[int]]] = []
        self._tls = tls
        self._port_option = port
        self._patience = patience
        #: Every request so far, in the order of their arrival.
        self.requests: list[RecordedRequest] = []
        #: How many connections were accepted so far.
        self.connections = 0
        #: Released once for every connection that the client ended while a script held it or sent, or between two
        #: requests.
        self.client_left = threading.Semaphore(0)
        #: Its port, 0 before :meth:`start`.
        self.port = 0
        self._arrived = Waiters()
        self._closing = CancelToken()
        self._open: dict[socket.socket, None] = {}
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """Its URL, with a slash at the end."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/"

    def answer(
        self,
        status: int | str = 200,
        *,
        when: Callable[[RecordedRequest], object] | None = None,
        times: int | None = 1,
        **options: Any,
    ) -> Answer:
        """Add an answer, to which its own methods add events.

        :param status: as for :class:`Answer`.
        :param when: only for requests for which this is true: ``lambda request: request.path == "/login"``, or
            ``lambda request: request.connection == 1``.
        :param times: how many requests get it; ``None``: all.
        :param options: the other parameters of :class:`Answer`.
        :return: the answer.
        """
        return self.add(Answer(status, **options), when=when, times=times)

    def add(
        self, answer: Answer, *, when: Callable[[RecordedRequest], object] | None = None, times: int | None = 1
    ) -> Answer:
        """Add an answer that was made before.

        :param answer: the answer.
        :param when: as for :meth:`answer`.
        :param times: as for :meth:`answer`.
        :return: the answer.
        """
        self._add(answer, when, times)
        return answer

    def drop(self, *, rst: bool = False, times: int | None = 1) -> None:
        """End the connection of the next request before the first byte of an answer.

        :param rst: as for :meth:`Answer.drop`.
        :param times: as for :meth:`answer`.
        """
        self._add([RST if rst else FIN], None, times)

    def start(self) -> FakeSSEServer:
        """Begin to listen. The ``with`` statement does so.

        :return: the server.
        :raises OSError: the port is taken.
        :raises RuntimeError: it was started before.
        """
        if self.port:
            raise RuntimeError("a FakeSSEServer can be started once")
        self._listener = socket.create_server(("127.0.0.1", self._port_option), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def close(self, *, quiet: bool = False) -> None:
        """Cut all connections and stop. Any number of times; while one call does so, others return at once.

        :param quiet: don't raise the errors of scripts.
        :raises ScriptError: a script could not be carried out, or the client did something unexpected.
        :raises Exception: an exception of a script's own function.
        """
        listener, self._listener = self._listener, None
        if listener is not None:
            self._closing.set()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                pass  # wakes accept(), which closing the listener does not everywhere
            self.drop_connections()
            for thread in self._threads:
                thread.join(self._patience)
            listener.close()
        if quiet:
            return
        if self._errors:
            raise self._errors.pop(0)
        if listener is not None and any(thread.is_alive() for thread in self._threads):
            raise ScriptError("a script did not end when the server was closed")

    def drop_connections(self) -> None:
        """Cut all connections that are open now, as an outage would."""
        for connection in self._open.copy():
            with contextlib.suppress(OSError):
                # The plain socket's method: that of TLS would drop the state that the reading thread uses.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def wait_for_requests(self, count: int, timeout: float = 20.0) -> list[RecordedRequest]:
        """Wait until ``count`` requests have arrived.

        :param count: how many.
        :param timeout: seconds to wait at most.
        :return: all requests that have arrived.
        :raises WaitTimeout: fewer arrived. The message lists them.
        """
        if not self._arrived.wait(lambda: len(self.requests) >= count, timeout):
            arrived = ", ".join(f"{request.method} {request.target}" for request in self.requests) or "none"
            raise WaitTimeout(f"{count} requests did not arrive within {timeout:g} s; these arrived: {arrived}")
        return list(self.requests)

    def wait_for_client_left(self, timeout: float = 20.0) -> None:
        """Wait until a client has ended a connection. Each call waits for another one.

        :param timeout: seconds to wait at most.
        :raises WaitTimeout: none has.
        """
        if not self.client_left.acquire(timeout=timeout):
            raise WaitTimeout(f"no client left within {timeout:g} s")

    def __enter__(self) -> FakeSSEServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(quiet=error is not None)

    def _add(self, steps: Steps, when: Callable[[RecordedRequest], object] | None, times: int | None) -> None:
        self._queue.append((steps, when, itertools.count() if times is None else iter(range(times))))

    def _steps_for(self, request: RecordedRequest) -> Steps:
        # next() of these iterators is one step of the interpreter: the threads that serve need no lock, which a test's
        # thread could hold while a signal handler has interrupted it.
        added = (
            steps
            for steps, when, uses in self._queue.copy()
            if length_hint(uses, 1) and (when is None or when(request)) and next(uses, None) is not None
        )
        steps = next(added, Answer(204) if self._script is None else self._script)
        steps = steps(request) if callable(steps) else steps
        return steps.steps(head_only=request.method == "HEAD") if isinstance(steps, Answer) else steps

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="ssesync-fake-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None:
            connection, _ = listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._start(self._serve, connection, self.connections - 1)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            # In this order, and in close() in the other: one of the two sees the step of the other.
            self._open[connection] = None
            if self._closing.is_set():
                return
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            with connection.makefile("rb") as reader:
                while (request := _read_request(connection, reader, number)) is not None:
                    self.requests.append(request)
                    self._arrived.wake()
                    if not self._play(connection, self._steps_for(request)):
                        return
            self.client_left.release()
        except OSError:
            self.client_left.release()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._open.pop(connection, None)
            connection.close()

    def _play(self, connection: socket.socket, steps: Steps) -> bool:
        """Send the steps. Returns whether the connection may have another request."""
        for step in steps:
            if isinstance(step, (bytes, Event)):
                connection.sendall(step if isinstance(step, bytes) else encode(step))
            elif isinstance(step, (threading.Event, threading.Semaphore)):
                if not self._wait(step):
                    return False
            elif isinstance(step, Pause):
                if self._closing.wait(step.seconds):
                    return False
            elif step is FIN:
                connection.shutdown(socket.SHUT_RDWR)
                return False
            elif step is RST:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            elif step is Step.HOLD:
                if connection.recv(1):
                    raise ScriptError("the client sends bytes while the script holds the connection")
                self.client_left.release()
                return False
            else:
                raise ScriptError(f"a script has no step of type {type(step).__name__}: {step!r}")
        return True

    def _wait(self, step: threading.Event | threading.Semaphore) -> bool:
        """Wait for a signal. Returns whether it was set before the server's end."""
        wait = step.wait if isinstance(step, threading.Event) else lambda timeout: step.acquire(timeout=timeout)
        end = time.monotonic() + self._patience
        while not wait(0.05):
            if self._closing.is_set():
                return False
            if time.monotonic() > end:
                raise ScriptError(f"the signal that a script waits for was not set within {self._patience:g} s")
        return True


def _read_request(connection: socket.socket, reader: BinaryIO, number: int) -> RecordedRequest | None:
    """Read the next request of a connection; ``None`` when the client has ended it."""
    received = line = b""
    while line not in (b"\r\n", b"\n"):
        line = reader.readline(_MAX_HEAD)
        received += line
        if len(received) >= _MAX_HEAD:
            raise ScriptError("the client sends no end of its headers")
        if not line.endswith(b"\n"):
            return None
    first, _, fields = received.decode("latin-1").partition("\n")
    parts = first.rstrip("\r").split(" ")
    if len(parts) != 3:
        raise ScriptError(f"the client's request is not HTTP: {first.rstrip()[:80]!r}")
    message = HeaderParser().parsestr(fields)
    # Not all white space: values are UTF-8 read as Latin-1, and the last byte of a character may look like a space.
    headers = {name.lower(): ", ".join(value.strip(" \t") for value in message.get_all(name, ())) for name in message}
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(head(status="100 Continue", content_type=None))
    return RecordedRequest(parts[0], parts[1], headers, _read_body(reader, headers), number)


def _read_body(reader: BinaryIO, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        decoder, pieces = ChunkDecoder(), []
        while not decoder.done and (line := reader.readline()):
            pieces += decoder.decode(line)
            if decoder.error is not None:
                raise decoder.error
        body, complete = b"".join(pieces), decoder.done
    else:
        length = int(headers.get("content-length", "0"))
        body = reader.read(length)
        complete = len(body) == length
    if not complete:
        raise ConnectionError("the client left in the middle of its request")
    return body
