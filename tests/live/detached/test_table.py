"""The tables of servers in the guide and the README have the results of this folder's tests, and of each source."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ssesync.testing import FakeSSEServer
from tests.servers import ROOT, eventually, uwsgi

from .kinds import APP, KINDS, RAW, Kind, Server

PAGE = ROOT / "docs" / "guide" / "detached.md"
#: Which of the servers here stand for a row; the one of HTTP/2 has a test of its own.
ROWS = {
    "gunicorn `gthread`": ["gthread", "gthread_unix", "gthread_preload"],
    "gunicorn `sync`": ["sync", "sync_unix"],
    "Werkzeug, `flask run`": ["werkzeug", "werkzeug_alone", "werkzeug_unix", "flask_run"],
    "Django `runserver`": ["runserver", "runserver_alone"],
    "uWSGI with `--http-socket`": ["uwsgi"],
    "cheroot": ["cheroot"],
    "wsgiref": ["wsgiref"],
    "waitress": ["waitress"],
    "gunicorn over TLS": ["gthread_tls"],
    "gunicorn with HTTP/2": [],
    "gunicorn `gevent`, gevent's own": ["gevent"],
}
#: Not on every machine that runs the tests.
UNTRIED = {"granian, mod_wsgi, Unit"}
README = ROOT / "README.md"
#: The rows of the README's table, as the guide names them.
README_ROWS = {
    "gunicorn `gthread` and `sync`, Werkzeug (`flask run`), Django `runserver`": [
        "gunicorn `gthread`", "gunicorn `sync`", "Werkzeug, `flask run`", "Django `runserver`",
    ],
    "cheroot, wsgiref, uWSGI": ["uWSGI with `--http-socket`", "cheroot", "wsgiref"],
    "waitress; gunicorn over TLS": ["waitress", "gunicorn over TLS"],
    "gunicorn `gevent`, gevent's own server": ["gunicorn `gevent`, gevent's own"],
    "gunicorn with HTTP/2; granian, mod_wsgi, Unit (these three not tested)": [
        "gunicorn with HTTP/2", "granian, mod_wsgi, Unit",
    ],
}  # fmt: skip


#: The sources of the application that these tests run: whether the guide calls them producers.
SOURCES = {
    "generator": True,
    "writer view": True,
    "writer": True,
    "relay with transform": True,
    "relay": False,
    "relay from request": False,
}
HEADER = "| server | a stream is | a subscription or relay with `detach=True` | a producer with `detach=True` |"


def table(page: Path) -> dict[str, tuple[str, str, str]]:
    """The columns of the table: by default, and with the option."""
    lines = page.read_text().splitlines()
    start = lines.index(HEADER) + 2
    rows = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        server, by_default, opted, producers_opted = (cell.strip() for cell in line.strip("|").split("|"))
        rows[server] = (by_default, opted, producers_opted)
    return rows


def row_of(name: str) -> tuple[str, str, str]:
    """The tiers of a server of these tests, as the guide has them."""
    [cells] = [cells for row, cells in table(PAGE).items() if name in ROWS.get(row, ())]
    by_default, opted, producers_opted = (cell.split()[0].rstrip(",") for cell in cells)
    return by_default, opted, producers_opted


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with FakeSSEServer() as server:
        server.answer(times=None).event("one").stall()
        yield server.url


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_guide_is_what_subscriptions_are_tested_for(row: str):
    for name in ROWS[row]:
        assert row_of(name)[:2] == (KINDS[name].tier, KINDS[name].opted)
    if row == "gunicorn with HTTP/2":
        assert table(PAGE)[row] == ("served", "served", "served")


@pytest.mark.slow
@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_each_source_is_served_or_detached_as_the_guide_says(server: Server, upstream: str):
    by_default, opted, producers_opted = row_of(server.kind.name)
    for source, detach in itertools.product(SOURCES, ("auto", True)):
        expected = by_default if detach == "auto" else producers_opted if SOURCES[source] else opted
        query = urlencode({"upstream": upstream, "options": json.dumps({"detach": detach})})
        with server.wire() as wire:
            answer = wire.get(f"/flask/sources/{source.replace(' ', '%20')}?{query}")
            answer.expect(b":ok\ndata: one\n\n")
            [stream] = server.state()["streams"]
            assert stream["tier"] == expected, (source, detach)
        assert eventually(lambda: not server.state()["streams"])


@pytest.mark.slow
def test_on_uwsgi_a_producer_is_detached_with_the_option_that_the_guide_names(start: Callable[[Kind], Server]):
    option = table(PAGE)["uWSGI with `--http-socket`"][2].partition("`")[2].strip("`")
    kind = Kind("uwsgi_holy", uwsgi(APP, *option.split()), tier="served", inherits=False, framing=RAW)
    server = start(kind)
    for detach, expected in (("auto", "served"), (True, "detached")):
        with server.wire() as wire:
            options = urlencode({"options": json.dumps({"detach": detach})})
            wire.get(f"/flask/sources/generator?{options}").expect(b":ok\ndata: one\n\n")
            assert [stream["tier"] for stream in server.state()["streams"]] == [expected]
        assert eventually(lambda: not server.state()["streams"])


def test_the_guide_names_every_server_and_no_other():
    assert table(PAGE).keys() == ROWS.keys() | UNTRIED
    assert sorted(name for names in ROWS.values() for name in names) == sorted(KINDS)


def test_the_readme_says_the_same_as_the_guide():
    rows = {}
    for line in README.read_text().splitlines():
        server, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if server in README_ROWS:
            rows[server] = cells[0]
    assert rows.keys() == README_ROWS.keys()
    for row, names in README_ROWS.items():
        for name in names:
            by_default, opted, _ = table(PAGE)[name]
            if by_default == "detached":
                expected = "none"
            elif opted == "detached":
                expected = "a thread; none with `detach=True`"
            else:
                expected = "a greenlet" if "greenlet" in by_default else "a thread"
            assert rows[row].partition(" (")[0] == expected, name
