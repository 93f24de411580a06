"""Finding the client's socket in what each server puts into the environ; finding nothing without failing."""

from __future__ import annotations

import io
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.handlers.wsgi import LimitedStream

from ssesync.server.wsgi_sockets import ClientSocket, find_socket

from ...cases import each_case


class Channel:
    """As waitress has one."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def check_client_disconnected(self) -> bool:
        return False


#: The least that each server's finder needs.
ENVIRONS: dict[str, Callable[[socket.socket], dict[str, Any]]] = {
    "gunicorn": lambda sock: {"gunicorn.socket": sock},
    "gunicorn's gevent_pywsgi": lambda sock: {"gunicorn.sock": sock},
    "werkzeug": lambda sock: {"werkzeug.socket": sock},
    "waitress": lambda sock: {"waitress.client_disconnected": Channel(sock).check_client_disconnected},
    "uwsgi": lambda sock: {"uwsgi.version": b"2.0"},
    "cheroot, gevent.pywsgi": lambda sock: {"wsgi.input": SimpleNamespace(rfile=sock.makefile("rb"))},
    "runserver": lambda sock: {"wsgi.input": LimitedStream(sock.makefile("rb"), 0)},
    "wsgiref": lambda sock: {"wsgi.input": sock.makefile("rb")},
}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=ENVIRONS)
def environ(
    request: pytest.FixtureRequest, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(connection_fd=pair[0].fileno))
    return ENVIRONS[request.param](pair[0])


def test_each_servers_socket_is_found_by_the_least_it_gives(
    environ: dict[str, Any], pair: tuple[socket.socket, socket.socket]
) -> None:
    found = find_socket(environ)
    assert found is not None
    assert found.fd == pair[0].fileno()


def test_looking_opens_no_descriptor(environ: dict[str, Any]) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    find_socket(environ)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


class Hostile:
    """Fails in a way that nobody has thought of, whatever is asked of it."""

    def fileno(self) -> int:
        raise RuntimeError

    @property
    def rfile(self) -> Any:
        raise RuntimeError


@each_case(
    "value", [None, 5, "text", object(), Hostile(), SimpleNamespace(fileno=lambda: "7"), SimpleNamespace(rfile=None)]
)
@each_case("key", ["gunicorn.socket", "gunicorn.sock", "werkzeug.socket", "waitress.client_disconnected", "wsgi.input"])
def test_where_an_attribute_has_changed_nothing_is_found_and_nothing_raised(key: str, value: Any) -> None:
    assert find_socket({key: value}) is None


def test_an_environ_without_anything_has_no_socket() -> None:
    assert find_socket({}) is None


def test_a_uwsgi_without_its_module_or_its_function_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_socket({"uwsgi.version": b"2"}) is None
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace())
    assert find_socket({"uwsgi.version": b"2"}) is None


def test_another_servers_request_is_not_taken_for_uwsgis(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(connection_fd=pair[0].fileno))
    assert find_socket({}) is None


def test_where_one_servers_way_fails_anothers_is_tried(pair: tuple[socket.socket, socket.socket]) -> None:
    found = find_socket({"gunicorn.socket": None, "wsgi.input": pair[0].makefile("rb")})
    assert found is not None
    assert found.fd == pair[0].fileno()


def test_on_http_2_the_socket_is_shared_by_streams_and_so_is_none_of_theirs(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    assert find_socket({"gunicorn.socket": pair[0], "HTTP_VERSION": "2"}) is None


def test_an_input_that_is_no_socket_is_none(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as file:
        assert find_socket({"wsgi.input": file}) is None
    assert find_socket({"wsgi.input": io.BytesIO()}) is None
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb"):
        assert find_socket({"wsgi.input": pipe}) is None


def test_what_is_no_socket_where_a_server_has_its_own_is_none() -> None:
    with tempfile.TemporaryFile() as file:
        assert find_socket({"gunicorn.socket": file}) is None


def test_a_closed_socket_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert find_socket({"gunicorn.socket": pair[0]}) is None


def test_a_socket_without_a_peer_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert find_socket({"wsgi.input": listener.makefile("rb")}) is None


# what can be done with it


def test_shut_cuts_the_connection_both_ways_and_leaves_the_servers_descriptor_open(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    ClientSocket(ours.fileno()).shut()
    assert theirs.recv(1) == b""
    assert ours.recv(1) == b""
    os.fstat(ours.fileno())
    ClientSocket(ours.fileno()).shut()


def test_shut_and_expect_loss_of_a_descriptor_that_is_gone_do_nothing() -> None:
    with socket.socket() as sock:
        fd = sock.fileno()
    ClientSocket(fd).shut()
    ClientSocket(fd).expect_loss(1)


def test_a_lost_peer_is_given_up_after_the_set_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        ClientSocket(sock.fileno()).expect_loss(1.5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500


def test_without_a_time_only_the_kernels_keep_alive_is_turned_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        ClientSocket(sock.fileno()).expect_loss(None)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


def test_a_unix_socket_has_no_such_options_and_that_is_no_error(pair: tuple[socket.socket, socket.socket]) -> None:
    ClientSocket(pair[0].fileno()).expect_loss(1)


@pytest.fixture
def default_timeout() -> Iterator[None]:
    socket.setdefaulttimeout(5)
    yield
    socket.setdefaulttimeout(None)


def test_the_servers_socket_goes_on_blocking_where_the_application_has_set_a_default_timeout(
    pair: tuple[socket.socket, socket.socket], default_timeout: None
) -> None:
    ours, _ = pair
    before = os.get_blocking(ours.fileno())  # gevent's does not
    ClientSocket(ours.fileno()).expect_loss(1)
    assert os.get_blocking(ours.fileno()) == before
    ClientSocket(ours.fileno()).shut()
    assert os.get_blocking(ours.fileno()) == before


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="there is no such option here")
def test_a_loss_may_be_expected_as_late_as_can_be_set() -> None:
    with socket.socket() as sock:
        ClientSocket(sock.fileno()).expect_loss(2**31 + 9)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2**31 - 1
