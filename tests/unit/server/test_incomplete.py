"""Making a served answer incomplete: nothing that was sent is lost, and the server's descriptor is one it can use."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync.server import incomplete
from ssesync.server.incomplete import cut

from ...cases import each_case
from .test_stream import environ

TIMEOUT = 90.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client, and the server's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(TIMEOUT)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    with client, server:
        yield client, server


def served(server: socket.socket, version: str) -> dict[str, Any]:
    return environ(SERVER_PROTOCOL=version, SERVER_SOFTWARE="gunicorn") | {"gunicorn.socket": server}


def all_of(client: socket.socket) -> tuple[bytes, bool]:
    """All that comes, and whether a reset ends it."""
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, True
    return data, False


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_what_the_server_writes_from_then_on_goes_nowhere(
    pair: tuple[socket.socket, socket.socket], version: str
) -> None:
    client, server = pair
    server.sendall(b"sent before")
    remains = cut(served(server, version))
    assert isinstance(remains, socket.socket)
    with remains:
        server.sendall(b"0\r\n\r\n")
        assert all_of(client) == (b"sent before", version == "HTTP/1.0")
        # When it looks for another request, it finds an end.
        assert server.recv(100) == b""
        assert server.getblocking()


def test_a_reset_waits_until_the_client_has_what_was_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    server.setblocking(False)
    sent = 0
    try:
        while sent < 10_000_000:
            sent += server.send(b"x" * 4096)
    except BlockingIOError:
        pass
    server.setblocking(True)
    cutting_it = threading.Thread(target=lambda: cut(served(server, "HTTP/1.0")).close())  # type: ignore[union-attr]
    cutting_it.start()
    data, reset = all_of(client)
    cutting_it.join(TIMEOUT)
    assert (len(data), reset) == (sent, True)


def test_a_client_that_reads_nothing_holds_the_server_up_for_no_more_than_a_moment(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = pair
    monkeypatch.setattr(incomplete, "_STALL_TIMEOUT", 0.1)
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.sendall(b"x" * 10_000_000)
    began = time.monotonic()
    cut(served(server, "HTTP/1.0")).close()  # type: ignore[union-attr]
    assert time.monotonic() - began < TIMEOUT / 2
    assert all_of(client)[1]


def test_of_a_client_that_is_gone_nothing_is_expected(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.close()
    cut(served(server, "HTTP/1.0"), at_once=True).close()  # type: ignore[union-attr]


def test_without_descriptors_the_iterable_raises(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: Any) -> Any:
        raise OSError("too many open files")

    _, server = pair
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []  # noqa: PTH112, PTH208
    monkeypatch.setattr(incomplete.socket, "socketpair", none)
    assert isinstance(cut(served(server, "HTTP/1.1")), BrokenPipeError)
    after = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []  # noqa: PTH112, PTH208
    assert len(after) == len(before)


@each_case(
    "request_, raises",
    [
        pytest.param({}, False, id="no request"),
        pytest.param({"wsgi.version": (1, 0), "SERVER_NAME": "testserver"}, False, id="a WSGI test client"),
        pytest.param({"SERVER_NAME": "testserver", "REQUEST_METHOD": "GET"}, False, id="an ASGI test client"),
        pytest.param({"SERVER_NAME": "example.org", "REQUEST_METHOD": "GET"}, True, id="ASGI"),
        pytest.param({"wsgi.version": (1, 0), "SERVER_SOFTWARE": "Granian"}, True, id="a server that hides its socket"),
    ],
)
def test_where_the_socket_is_out_of_reach_the_iterable_raises_under_a_server(
    request_: dict[str, Any], raises: bool
) -> None:
    result = cut(request_)
    assert isinstance(result, BrokenPipeError) if raises else result is None
