"""A producer that reads the body of its request gets all of it, wherever its stream is served."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import servers
from tests.http_client import Response
from tests.logs import show_if_failed
from tests.servers import GTHREAD, SYNC, Kind, Server, runserver, uwsgi

APP = "bodies"
SIZES = (0, 1, 100, 65_536, 1_000_000, 5_000_000)
#: Seconds, well within those that a body may take.
PAUSE = 0.1
#: Seconds after which a body is late.
LATE = 1.6


@dataclass(frozen=True)
class Bodies(Kind):
    """A server, and what it can do."""

    #: Reads bodies in chunks.
    dechunks: bool = True
    places: tuple[str, ...] = ("bare", "flask", "django")
    detach: str = "auto"
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "DJANGO_SETTINGS_MODULE": "tests.apps.django_project.settings.bodies",
        }
    )  # fmt: skip


def gunicorn(*options: str) -> servers.Command:
    return servers.gunicorn(*options, app=APP)


KINDS = {
    kind.name: kind
    for kind in (
        Bodies("gthread", gunicorn(*GTHREAD)),
        Bodies("sync", gunicorn(*SYNC), concurrent=False),
        Bodies("werkzeug", servers.launch("werkzeug", APP)),
        Bodies("runserver", runserver(), inherits=False, places=("django",), dechunks=False),
        Bodies("wsgiref", servers.launch("wsgiref", APP), detach="true", concurrent=False, dechunks=False),
        Bodies("cheroot", servers.launch("cheroot", APP), detach="true"),
        Bodies("uwsgi", uwsgi(APP), inherits=False, detach="true", dechunks=False),
        Bodies("uwsgi_holy", uwsgi(APP, "--wsgi-env-behaviour", "holy"), inherits=False, detach="true", dechunks=False),
    )
}


class Running(Server):
    """A running server."""

    kind: Bodies
    django_settings = "tests.apps.django_project.settings.bodies"
    ready = ("/plain", None)

    def ask(self, place: str, body: bytes, send: Callable[[servers.Wire, bytes], None], *, chunked: bool = False,
            kind: str = "application/octet-stream", headers: str = "", **query: Any) -> dict[str, Any]:  # fmt: skip
        """Make a request, and fail unless its producer got the body.

        :param send: sends the body.
        :return: what the producer says.
        """
        query = {"name": uuid.uuid4().hex, "detach": self.kind.detach, **query}
        target = f"/{place}/body?{'&'.join(f'{name}={value}' for name, value in query.items())}"
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{headers}{framing}\r\n\r\n"
        with self.connect() as wire:
            wire.pipeline(head.encode())
            if "100-continue" in headers:
                assert Response(wire, "POST").status == 100
            sending = threading.Thread(target=send, args=(wire, body), daemon=True)
            sending.start()
            response = Response(wire, "POST")
            while response.status == 100:  # Werkzeug's server sends two
                response = Response(wire, "POST")
            assert response.status == 200
            events = [json.loads(line[6:]) for line in response.read().split(b"\n") if line.startswith(b"data: ")]
            sending.join()
        assert events[0] == {"begun": True}, events
        assert len(events) == 2, f"the producer failed:\n{self.log()[-3000:]}"
        answer: dict[str, Any] = events[1]
        return answer


def at_once(wire: servers.Wire, body: bytes) -> None:
    wire.pipeline(body)


def later(wire: servers.Wire, body: bytes) -> None:
    time.sleep(PAUSE)
    wire.pipeline(body)


def in_pieces(wire: servers.Wire, body: bytes) -> None:
    third = max(1, len(body) // 3)
    for piece in (body[:1], body[1:third], body[third:]):
        time.sleep(PAUSE)
        wire.pipeline(piece)


def too_late(wire: servers.Wire, body: bytes) -> None:
    wire.pipeline(body[: len(body) // 2])
    time.sleep(LATE)
    wire.pipeline(body[len(body) // 2 :])


def in_chunks(body: bytes, seed: int, *, plain: bool) -> bytes:
    """A body in chunks of any sizes, with extensions and trailers unless it is to be plain."""
    dice = random.Random(seed)
    pieces, at = [], 0
    while at < len(body):
        size = dice.choice([1, 7, 1000, 70_000, 400_000])
        piece = body[at : at + size]
        pieces.append(b"%x%s\r\n%s\r\n" % (len(piece), dice.choice([b"", b";name=value" * (not plain)]), piece))
        at += size
    return b"".join(pieces) + b"0\r\n" + dice.choice([b"", b"X-Trailer: value\r\n" * (not plain)]) + b"\r\n"


def make_body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def assert_same(answer: dict[str, Any], body: bytes) -> None:
    report = answer["length"], answer["digest"]
    assert report == (len(body), hashlib.sha256(body).hexdigest())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    with servers.Fleet[Running](tmp_path_factory.mktemp("bodies"), lambda kind, folder: Running(kind, folder)) as fleet:
        yield lambda name: fleet(KINDS[name])


@pytest.fixture
def use(request: pytest.FixtureRequest, running: Callable[[str], Running]) -> Callable[[str], Running]:
    def give(name: str) -> Running:
        server = running(name)
        show_if_failed(request.node, name, server.log)
        return server

    return give


PLACES = [(kind.name, place) for kind in KINDS.values() for place in kind.places]
WAY = {"bare": "later", "flask": "stream", "django": "read"}
READ_BY_VIEW = {
    "bare": {"how": "all"},
    "flask": {"how": "data", "early": 1},
    "django": {"how": "body", "early": 1},
}


@pytest.mark.parametrize("send", [at_once, later, in_pieces], ids=lambda send: send.__name__)
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_a_body_of_any_size_is_read_whole(
    use: Callable[[str], Running], kind: str, place: str, send: Callable[[servers.Wire, bytes], None]
) -> None:
    server = use(kind)
    chunked = [False, True] if server.kind.dechunks and place != "django" else [False]

    def ask(case: tuple[int, bool]) -> tuple[int, bool, str]:
        size, in_chunks_ = case
        body = make_body(size)
        wire_body = in_chunks(body, size, plain=kind == "werkzeug") if in_chunks_ else body
        # cheroot reads the rest of a body, and drops it, before it sends the head of any response.
        query = {"how": WAY[place]} if kind != "cheroot" else READ_BY_VIEW[place]
        answer = server.ask(place, body, lambda wire, _: send(wire, wire_body), chunked=in_chunks_, **query)
        assert_same(answer, body)
        return size, in_chunks_, answer["tier"]

    with ThreadPoolExecutor(3) as pool:
        tiers = {case[:2]: case[2] for case in pool.map(ask, itertools.product(SIZES, chunked))}
    if kind in ("gthread", "sync"):
        assert set(tiers.values()) == {"detached"}


def form(field: str) -> tuple[str, bytes]:
    return "application/x-www-form-urlencoded", f"other=1&field={field}".encode()


def upload(data: bytes) -> tuple[str, bytes]:
    """A file in a form, as browsers send it."""
    head = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return "multipart/form-data; boundary=limit", head + data + b"\r\n--limit--\r\n"


@pytest.mark.parametrize(("kind", "place"), [each for each in PLACES if each[1] != "bare" and each[0] != "cheroot"])
def test_what_frameworks_make_of_a_body_is_the_same_in_a_producer(
    use: Callable[[str], Running], kind: str, place: str
) -> None:
    server = use(kind)
    data = make_body(300_000)
    kind_of_form, body_of_form = form("x" * 5000)
    kind_of_file, body_of_file = upload(data)
    cases: list[tuple[bytes, bytes, dict[str, Any]]] = [
        (data, data, {"how": "data" if place == "flask" else "body"}),
        (body_of_form, b"x" * 5000, {"how": "form", "kind": kind_of_form}),
        (body_of_file, data, {"how": "file", "kind": kind_of_file}),
    ]
    for body, expected, options in cases:
        answer = server.ask(place, body, later, **options)
        assert_same(answer, expected)
        if kind in ("gthread", "sync"):
            assert answer["tier"] == "detached"


@pytest.mark.parametrize(
    "kind", [kind.name for kind in KINDS.values() if "django" in kind.places and kind.name != "cheroot"]
)
def test_files_that_djangos_view_has_parsed_are_open_until_the_stream_ends(
    use: Callable[[str], Running], kind: str
) -> None:
    server = use(kind)
    for size in (1000, 3_000_000):  # in memory, and in a file
        data = make_body(size)
        kind_of_file, body = upload(data)
        answer = server.ask("django", body, later, how="file", kind=kind_of_file, parsed=1)
        assert_same(answer, data)
        if not kind.startswith("uwsgi"):
            assert answer["tier"] == "detached"


@pytest.mark.parametrize(("kind", "place"), [each for each in PLACES if each[0] != "cheroot"])
@pytest.mark.parametrize("send", [at_once, later, in_pieces], ids=lambda send: send.__name__)
def test_the_rest_of_a_body_that_the_view_has_read_in_part_is_read_whole(
    use: Callable[[str], Running], kind: str, place: str, send: Callable[[servers.Wire, bytes], None]
) -> None:
    server = use(kind)
    for size, before in ((100, 100), (100, 1), (5000, 4999), (300_000, 100_000)):
        body = make_body(size)
        answer = server.ask(place, body, send, how=WAY[place], before=before)
        assert_same(answer, body)
        if kind in ("gthread", "sync"):
            assert answer["tier"] == "detached"


@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_the_rest_of_a_body_in_chunks_that_was_read_in_part_is_read_by_a_stream_that_stays_served(
    use: Callable[[str], Running], kind: str
) -> None:
    body = make_body(300_000)
    wire_body = in_chunks(body, 7, plain=False)
    answer = use(kind).ask("flask", body, lambda wire, _: later(wire, wire_body), chunked=True, how="stream", before=10)
    assert_same(answer, body)
    assert answer["tier"] == "served"


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "cheroot"])
def test_a_body_that_comes_too_late_is_read_by_a_stream_that_stays_served(
    use: Callable[[str], Running], kind: str
) -> None:
    server = use(kind)
    place = server.kind.places[-1]
    for size in (2, 20_000, 3_000_000):
        body = make_body(size)
        answer = server.ask(place, body, too_late, how=WAY[place])
        assert_same(answer, body)
        assert answer["tier"] == "served"
    if kind in ("gthread", "sync"):
        body = make_body(3_000_000)
        wire_body = in_chunks(body, 8, plain=False)
        answer = server.ask("bare", body, lambda wire, _: too_late(wire, wire_body), chunked=True, how="later")
        assert_same(answer, body)
        assert answer["tier"] == "served"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_a_body_that_is_too_large_is_read_by_a_stream_that_stays_served(
    use: Callable[[str], Running], kind: str, chunked: bool
) -> None:
    body = make_body(3_000_000)
    wire_body = in_chunks(body, 9, plain=False) if chunked else body
    answer = use(kind).ask(
        "bare", body, lambda wire, _: later(wire, wire_body), chunked=chunked, how="later", most=2_000_000
    )
    assert_same(answer, body)
    assert answer["tier"] == "served"


# uWSGI, and wsgiref, which answers by HTTP/1.0, send none.
@pytest.mark.parametrize("kind", [name for name in KINDS if name not in ("uwsgi", "uwsgi_holy", "wsgiref")])
def test_a_client_that_waits_for_100_continue_sends_its_body(use: Callable[[str], Running], kind: str) -> None:
    server = use(kind)
    place = server.kind.places[-1]
    body = make_body(20_000)

    query = {"how": WAY[place]} if kind != "cheroot" else READ_BY_VIEW[place]
    answer = server.ask(place, body, later, headers="Expect: 100-continue\r\n", **query)
    assert_same(answer, body)


@pytest.mark.parametrize("detach", ["auto", "true", "false"])
@pytest.mark.parametrize("kind", [name for name in KINDS if name != "cheroot"])
def test_whatever_detach_is_the_body_is_the_same(use: Callable[[str], Running], kind: str, detach: str) -> None:
    server = use(kind)
    for place in server.kind.places:
        body = make_body(200_000)
        assert_same(server.ask(place, body, in_pieces, how=WAY[place], detach=detach), body)


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_nothing_else(use: Callable[[str], Running]) -> None:
    server = use("gthread")
    with server.connect() as wire:
        wire.pipeline(b"POST /bare?name=left&how=later HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    body = make_body(1000)
    assert_same(server.ask("bare", body, later, how="later"), body)
