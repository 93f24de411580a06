"""What extensions and functions behind a view do to a stream, on a real server's wire."""

from __future__ import annotations

from collections.abc import Iterator

import brotli
import pytest

from ssesync.wire import Decoder
from tests.servers import Kind, Server, eventually, gunicorn, running

OPTIONS = ("--worker-class", "gthread", "--threads", "8", "--preload")
KIND = Kind("extended", gunicorn(*OPTIONS, app="flask_app.compressed"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(KIND, tmp_path_factory.mktemp("extended")) as server:
        yield server


@pytest.mark.parametrize("path", ["/etag", "/etag/room"])
def test_a_304_has_no_body_and_the_connection_is_free_for_the_next_request(server: Server, path: str) -> None:
    with server.connect() as wire:
        response = wire.get(path, If_None_Match='"v1"')
        assert (response.status, response.header("etag")) == (304, '"v1"')
        assert wire.get("/plain").read() == b"plain"
    ending = "etag" if path == "/etag" else "/etag/room cancelled"
    assert eventually(lambda: ending in server.state()["ended"])
    assert path not in server.state()["tiers"]


@pytest.mark.parametrize("path", ["/etag", "/room"])
def test_head_has_no_body_and_the_connection_is_free_for_the_next_request(server: Server, path: str) -> None:
    with server.connect() as wire:
        response = wire.head(path)
        assert (response.status, response.header("content-encoding")) == (200, "identity")
        assert wire.get("/plain").read() == b"plain"


def test_a_subscription_is_detached_and_one_with_a_body_put_round_it_is_served_through_that(server: Server) -> None:
    detached, plain = server.open("/room")
    wrapped, upper = server.open("/counted/room")
    with detached, wrapped:
        plain.expect(b":ok\n")
        upper.expect(b":OK\n")
        assert eventually(lambda: server.state()["tiers"] == {"/room": "detached", "/counted/room": "served"})
        server.fetch("/publish")
        assert plain.find(b"data: hello\n\n").startswith(b"id: ")
        assert upper.find(b"DATA: HELLO\n\n").startswith(b"ID: ")
    assert eventually(lambda: "/counted/room client_gone" in server.state()["ended"])
    assert server.logs("/counted/room takes a thread, as it could not be detached: an extension has wrapped")


def test_publishing_in_a_child_of_a_worker_is_warned_of_and_in_the_worker_it_is_not(server: Server) -> None:
    """Though with --preload a worker is the forked child of the process that made the broker."""
    warning = "this process has none; use sqlite:////path"
    server.fetch("/publish")
    server.fetch("/publish/child")
    assert server.logs(warning)
    server.fetch("/publish")
    assert server.log().count(warning) == 1


def test_the_coding_that_is_announced_is_that_of_the_body(server: Server) -> None:
    for path, coding in (("/three", "identity"), ("/three?compress=1", "br")):
        with server.connect() as wire:
            response = wire.get(path, Accept_Encoding="br")
            assert response.header("content-encoding") == coding
            body = response.read()
            events = Decoder().feed(brotli.decompress(body) if coding == "br" else body)
            assert [event.id for event in events] == ["0", "1", "2"]
            assert response.end == "last chunk"
