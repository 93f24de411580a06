"""Behind nginx as Debian ships it, with nothing set that buffering or time-outs depend on but the time-out's length."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Server, Wire, eventually

from .kinds import FIRST, KINDS, OPENING, path
from .nginx import nginx_with

#: Seconds after which nginx gives up a silent upstream; 60 by default.
READ_TIMEOUT = 2

HTTP = """
    proxy_read_timeout {timeout}s;
    upstream kept {{ server {upstream}; keepalive 4; }}
    server {{
        listen unix:{folder}/front;
        # nginx's defaults: HTTP/1.0 to the upstream.
        location / {{ proxy_pass http://kept; }}
    }}
    server {{
        listen unix:{folder}/front11;
        location / {{ proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
    server {{
        listen unix:{folder}/frontgz;
        gzip on;
        gzip_types text/event-stream;
        location / {{ proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
"""


class Nginx:
    """A running nginx in front of a server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connect(self, version: str) -> Wire:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self._folder / {"1.0": "front", "1.1": "front11", "gzip": "frontgz"}[version]))
        except BaseException:
            sock.close()
            raise
        return Wire(sock)

    def answers(self) -> bool:
        try:
            with self.connect("1.0") as wire:
                return wire.get("/plain").status == 200
        except OSError:
            return False


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(KINDS["gthread"])


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[Nginx]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    http = HTTP.format(folder=folder, timeout=READ_TIMEOUT, upstream=f"127.0.0.1:{server.port}")
    with nginx_with(folder, http):
        nginx = Nginx(folder)
        assert eventually(nginx.answers)
        yield nginx


VERSIONS = pytest.mark.parametrize("version", ["1.0", "1.1"])


@VERSIONS
@pytest.mark.parametrize("leave", [Wire.fin, Wire.half_close])
def test_a_browser_that_leaves_ends_the_producer_without_a_write(
    nginx: Nginx, switchboard: Switchboard, version: str, leave: Callable[[Wire], None]
):
    options = {"keep_alive": 60, "max_streams": None}
    with nginx.connect(version) as wire:
        wire.get(path(do="idle", line=switchboard.port, options=options)).expect(OPENING + FIRST)
        producer = switchboard.answer()
        producer.hear()
        leave(wire)
        assert producer.hear() == {"cancelled": "client_gone", "closed": "client_gone"}
    report = switchboard.answer().hear()
    assert report is not None
    assert (report["on_close"], report["bytes"]) == ("client_gone", len(OPENING + FIRST))


@VERSIONS
def test_an_answer_that_is_cut_short_is_incomplete_behind_nginx(nginx: Nginx, switchboard: Switchboard, version: str):
    """nginx ends its own answer, which has chunks, as its upstream's ended: a FIN or a reset, but no last chunk."""
    options = {"keep_alive": 60, "max_streams": None}
    with nginx.connect(version) as wire:
        response = wire.request("POST", path(do="led", line=switchboard.port, options=options), Content_Length="0")
        response.expect(OPENING)
        producer = switchboard.answer()
        producer.say(event="half")
        response.expect(b"data: half\n\n")
        producer.say(do="cancel")
        assert response.find(b"\n\n").startswith(b"event: error\ndata: ")
        with pytest.raises((EOFError, ConnectionResetError)):
            response.read()
        assert response.chunked
        assert response.end is None


@VERSIONS
def test_nothing_is_buffered(nginx: Nginx, switchboard: Switchboard, version: str):
    """Each event is written when the one before has arrived."""
    options = {"keep_alive": 60, "max_streams": None}
    with nginx.connect(version) as wire:
        response = wire.get(path(do="led", line=switchboard.port, options=options))
        response.expect(OPENING)
        producer = switchboard.answer()
        producer.hear()
        for number in range(20):
            producer.say(event=f"{number}")
            response.expect(b"data: %d\n\n" % number)
        producer.say(do="end")
        assert response.read() == b""
        assert response.end == "last chunk"


@pytest.mark.parametrize(("place", "coding"), [("/stream", "gzip"), ("/flask/stream", "identity")])
def test_gzip_in_nginx_holds_nothing_back_and_leaves_alone_what_names_a_coding(
    nginx: Nginx, switchboard: Switchboard, place: str, coding: str
):
    """Each event is written when the one before has arrived, as above. The integrations say that there is no coding."""
    options = {"keep_alive": 60, "max_streams": None}
    with nginx.connect("gzip") as wire:
        response = wire.get(path(place, do="led", line=switchboard.port, options=options), Accept_Encoding="gzip")
        assert response.header("content-encoding") == coding
        inflate = zlib.decompressobj(31).decompress if coding == "gzip" else bytes
        producer = switchboard.answer()
        producer.hear()
        body = b""
        for number in range(20):
            producer.say(event=f"{number}")
            while not body.endswith(b"data: %d\n\n" % number):
                piece = response.piece()
                assert piece, body
                body += inflate(piece)
        producer.say(do="end")


@VERSIONS
def test_keep_alives_carry_an_idle_stream_past_the_proxys_timeout(nginx: Nginx, switchboard: Switchboard, version: str):
    options = {"keep_alive": 0.4, "max_streams": None}
    with nginx.connect(version) as wire:
        response = wire.get(path(do="led", line=switchboard.port, options=options))
        response.expect(OPENING)
        producer = switchboard.answer()
        producer.hear()
        silence = round(2 * READ_TIMEOUT / options["keep_alive"])
        response.expect(b":keep-alive\n" * silence)
        producer.say(event="still here")
        body = b""
        while b"still here" not in body:
            piece = response.piece()
            assert piece
            body += piece


def test_without_keep_alives_the_proxy_gives_up(nginx: Nginx, switchboard: Switchboard):
    """What the test above would not notice if the time-out did not hold."""
    with nginx.connect("1.1") as wire:
        wire.get(path(do="idle", line=switchboard.port, options={"keep_alive": 60})).expect(OPENING + FIRST)
        producer = switchboard.answer()
        producer.hear()
        assert producer.hear() == {"cancelled": "client_gone", "closed": "client_gone"}
