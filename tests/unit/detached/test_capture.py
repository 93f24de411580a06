"""A server's socket object that keeps what is written to it, until its connection is taken or given back."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync.detached import capture as module
from ssesync.detached.capture import SocketCapture, can_capture
from ssesync.server.detaching import Head

from .test_handover import CHUNKED, GIVEN, HEAD, MODES, OPENING, OTHER, RAW, TIMEOUT, Connection, descriptors, tcp_pair


class Captured(Connection):
    """A connection with a server's socket object that can keep what is written."""

    def __init__(self, make: Any, timeout: float | None) -> None:
        super().__init__(make, timeout)
        self.ended_keep_alive = 0
        self.capture = SocketCapture(self.server, OPENING, 30.0)

    def close(self) -> None:
        self.capture.close()
        super().close()


@pytest.fixture(params=[socket.socketpair, tcp_pair], ids=["unix", "tcp"])
def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Captured]:
    made = Captured(request.param, None)

    def end() -> None:
        made.ended_keep_alive += 1

    monkeypatch.setattr(module, "gunicorn_force_close", lambda: end)
    yield made
    made.close()
    assert not module._captures


@pytest.mark.parametrize("written", [CHUNKED, RAW], ids=["chunked", "raw"])
@pytest.mark.parametrize("timeout", MODES.values(), ids=MODES)
def test_a_connection_is_taken_and_the_server_finds_its_end(
    connection: Captured, written: bytes, timeout: float | None
):
    connection.server.settimeout(timeout)
    before = descriptors()
    assert connection.capture.begin()
    connection.server.sendall(written[:20])
    connection.server.sendall(written[20:])
    assert connection.client_gets_nothing()
    assert connection.capture.complete(connection.give)
    [(fd, head)] = connection.given
    assert head == Head(GIVEN[written], written is CHUNKED)
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)
    connection.server.sendall(b"0\r\n\r\n")
    connection.capture.close()
    assert type(connection.server) is socket.socket
    assert connection.server.recv(10) == b""
    assert connection.client_gets_nothing()
    os.write(fd, b"from the reactor")
    assert connection.read(16) == b"from the reactor"
    assert connection.ended_keep_alive == 1
    assert len(descriptors() - before) <= 3  # the client's, the server's, and the first time the closed connection


@pytest.mark.parametrize("how", ["undo", "close", "complete"])
def test_what_is_no_head_and_opening_goes_to_the_client_as_it_was_written(connection: Captured, how: str):
    assert connection.capture.begin()
    connection.server.sendall(OTHER)
    if how == "complete":
        assert not connection.capture.complete(connection.give)
        assert connection.capture.why
    else:
        getattr(connection.capture, how)()
    assert type(connection.server) is socket.socket
    assert connection.read(len(OTHER)) == OTHER
    connection.both_ways()
    assert not connection.given
    assert not connection.ended_keep_alive


def test_a_connection_that_nobody_can_take_is_the_servers_again(connection: Captured):
    def fail(fd: int, head: Head) -> None:
        raise RuntimeError("no thread")

    connection.server.settimeout(TIMEOUT)
    blocking = os.get_blocking(connection.server.fileno())
    before = descriptors()
    assert connection.capture.begin()
    connection.server.sendall(CHUNKED)
    assert not connection.capture.complete(fail)
    assert connection.capture.why == "RuntimeError: no thread"
    assert os.get_blocking(connection.server.fileno()) is blocking
    assert connection.read(len(CHUNKED)) == CHUNKED
    connection.both_ways()
    assert len(descriptors() - before) <= 1  # the first time, the closed connection
    assert not connection.ended_keep_alive


def test_without_a_descriptor_the_connection_is_the_servers_again(
    connection: Captured, monkeypatch: pytest.MonkeyPatch
):
    def fail(fd: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(module, "duplicate", fail)
    assert connection.capture.begin()
    connection.server.sendall(CHUNKED)
    assert not connection.capture.complete(connection.give)
    assert connection.capture.is_short
    assert connection.read(len(CHUNKED)) == CHUNKED
    connection.both_ways()


def test_a_head_that_is_too_large_to_be_kept_is_sent(connection: Captured, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LONGEST_HEAD", 100)
    assert connection.capture.begin()
    connection.server.sendall(HEAD)
    connection.server.sendall(b"X: y\r\n" * 10)
    assert connection.read(len(HEAD) + 60) == HEAD + b"X: y\r\n" * 10
    assert not connection.capture.complete(connection.give)
    connection.both_ways()


def test_a_file_is_sent_after_the_kept_bytes(connection: Captured, tmp_path: Any):
    path = tmp_path / "file"
    path.write_bytes(b"a file")
    assert connection.capture.begin()
    connection.server.sendall(OTHER)
    with path.open("rb") as file:
        connection.server.sendfile(file)
    assert connection.read(len(OTHER) + 6) == OTHER + b"a file"
    assert not connection.capture.complete(connection.give)


def test_pieces_that_are_sent_together_arrive_after_the_kept_bytes(connection: Captured):
    assert connection.capture.begin()
    assert connection.server.send(OTHER) == len(OTHER)
    connection.server.sendmsg([b"two ", b"pieces"])
    assert connection.read(len(OTHER) + 10) == OTHER + b"two pieces"


def test_a_second_response_after_an_abandoned_one_ends_the_connection(connection: Captured):
    assert connection.capture.begin()
    connection.server.sendall(CHUNKED)
    with pytest.raises(OSError, match="abandoned"):
        connection.server.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    assert type(connection.server) is socket.socket
    try:
        assert connection.client.recv(1) == b""
    except ConnectionResetError:
        pass
    connection.capture.close()


def test_a_client_that_is_gone_is_no_error_of_the_server(connection: Captured):
    assert connection.capture.begin()
    connection.server.sendall(CHUNKED)
    connection.client.close()
    connection.capture.undo()
    connection.capture.close()


def test_bytes_after_the_opening_are_dropped_with_a_warning(connection: Captured, caplog: pytest.LogCaptureFixture):
    assert connection.capture.begin()
    connection.server.sendall(CHUNKED)
    assert connection.capture.complete(connection.give)
    connection.server.sendall(b"more than the last chunk")
    connection.capture.close()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("24 bytes ")


def test_a_closed_connection_and_a_worker_of_another_kind_are_not_captured(
    connection: Captured, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "gunicorn_force_close", lambda: None)
    assert not connection.capture.begin()
    assert "further requests" in connection.capture.why
    monkeypatch.setattr(module, "gunicorn_force_close", lambda: lambda: None)
    other = SocketCapture(connection.server, OPENING)
    connection.server.close()
    assert not other.begin()
    assert other.why == "the request's connection is closed"
    assert not other.begin()


def test_only_a_socket_of_the_standard_library_is_captured(connection: Captured):
    class Other(socket.socket):
        pass

    with Other() as other:
        assert not can_capture("gunicorn", other)
    assert not can_capture("werkzeug", connection.server)
    assert can_capture("gunicorn", connection.server)
