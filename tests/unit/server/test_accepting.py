"""gunicorn's accept(): its workers' own classes, with sockets of ours."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from ssesync.server import accepting, descriptors
from ssesync.server.accepting import GuardedAccept, defer_accept, prepare
from ssesync.server.wsgi_server import kind_of

TIMEOUT = 90
GET = b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: %s\r\n\r\n"


class Mine(ThreadWorker):  # type: ignore[misc]
    """A worker of somebody's own."""


class OneThatStopsListening(ThreadWorker):  # type: ignore[misc]
    """As since gunicorn 24."""

    def set_accept_enabled(self, enabled: bool) -> None:
        pass


class OneOfTheFirst(ThreadWorker):  # type: ignore[misc]
    """As before gunicorn 24."""

    set_accept_enabled = None


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_prepared", False)
    monkeypatch.setattr(descriptors, "_division", None)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process of 1,024."""
    monkeypatch.setenv("SSESYNC_OPEN_FILES", "0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def make(kind: type, listener: socket.socket, **attributes: Any) -> Any:
    """A worker that has not been started, on a listening socket as gunicorn wraps it."""
    worker = object.__new__(kind)
    worker.cfg = SimpleNamespace(threads=4, is_ssl=False)
    worker.sockets = [SimpleNamespace(sock=listener, accept=listener.accept)]
    worker.worker_connections, worker.max_keepalived, worker.nr_conns = 1000, 996, 0
    for name, value in attributes.items():
        setattr(worker, name, value)
    return worker


def refuse(browser: bool) -> float:
    return 7.0 if browser else 9.0


def come(listener: socket.socket, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(listener.getsockname(), TIMEOUT)
    client.sendall(data)
    return client


class NoDescriptors:
    """For as long as it lasts this process can open nothing."""

    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, self._limits[1]))

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


def answer(client: socket.socket) -> bytes:
    data = b""
    with client:
        while piece := client.recv(65536):
            data += piece
    return data


def test_only_the_two_kinds_that_were_read_are_touched() -> None:
    assert [kind_of(each) for each in (ThreadWorker, Mine, SyncWorker, object)] == ["gthread", "gthread", "sync", ""]


def test_a_worker_accepts_only_as_many_connections_as_it_has_descriptors(
    few_files: None, listener: socket.socket
) -> None:
    worker = make(OneThatStopsListening, listener)
    prepare(worker, refuse)
    assert 4 <= worker.worker_connections < 256 - 4 * 4
    assert worker.max_keepalived == worker.worker_connections - 4
    assert isinstance(worker.sockets[0].accept, GuardedAccept)
    first = worker.sockets[0].accept
    prepare(worker, refuse)
    assert worker.sockets[0].accept is first


def test_with_enough_descriptors_worker_connections_is_unchanged(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make(ThreadWorker, listener, worker_connections=20, max_keepalived=16)
    prepare(worker, refuse)
    assert (worker.worker_connections, worker.max_keepalived) == (20, 16)


def test_an_old_worker_that_would_stop_polling_leaves_clients_in_the_queue(
    few_files: None, listener: socket.socket
) -> None:
    worker = make(OneOfTheFirst, listener)
    prepare(worker, refuse)
    assert worker.worker_connections == 1000
    accept = worker.sockets[0].accept
    with come(listener):
        worker.nr_conns = 900
        with pytest.raises(BlockingIOError) as caught:
            accept()
        assert caught.value.errno == errno.EAGAIN
        worker.nr_conns = 0
        accept()[0].close()


@pytest.mark.parametrize("leaves", [0, 1, 2])
def test_without_descriptors_a_client_is_refused_and_the_server_continues(
    listener: socket.socket, caplog: pytest.LogCaptureFixture, leaves: int
) -> None:
    accept = GuardedAccept(listener, False, None, refuse)
    browser, other = come(listener, GET % b"text/event-stream"), come(listener, GET % b"*/*")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + leaves, hard))
    try:
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer(browser) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"Content-Length: 12\r\nConnection: close\r\n\r\nretry: 7000\n"
    )
    answered = answer(other)
    assert answered.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\n")
    assert answered.endswith(b"\r\n\r\nthe server has no more open files\n")
    assert len([each for each in caplog.records if "can open no more files" in each.getMessage()]) == 1
    with come(listener):
        accept()[0].close()


def test_a_client_that_says_nothing_or_speaks_tls_is_closed(listener: socket.socket) -> None:
    for tls in (False, True):
        accept = GuardedAccept(listener, tls, None, refuse)
        client = come(listener, b"\x16\x03\x01" if tls else b"")
        with NoDescriptors(), pytest.raises(BlockingIOError):
            accept()
        try:
            answered = answer(client)
        except ConnectionResetError:  # what it had sent was not read
            answered = b""
        assert answered == b"" or (not tls and answered.startswith(b"HTTP/1.1 503 "))


def test_errors_that_are_none_of_a_shortage_are_gunicorns(listener: socket.socket) -> None:
    accept = GuardedAccept(listener, False, None, refuse)
    with pytest.raises(BlockingIOError):
        accept()  # nobody is there
    listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        accept()


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="only Linux leaves clients in the kernel")
def test_clients_that_have_sent_no_bytes_are_not_accepted(listener: socket.socket) -> None:
    def value() -> int:
        return listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)

    worker = make(SyncWorker, listener)
    defer_accept(worker.sockets, object)
    assert value() == 0
    with socket.socket(socket.AF_UNIX) as unix:
        defer_accept([SimpleNamespace(sock=unix), SimpleNamespace(), *worker.sockets], SyncWorker)
    assert value() >= 60
