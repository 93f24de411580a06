"""The guide's table of servers has the results of this folder's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import ROOT

from .kinds import KINDS

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


def table(page: Path) -> dict[str, tuple[str, str]]:
    """The columns of the table: by default, and with the option."""
    lines = page.read_text().splitlines()
    start = lines.index("| server | a subscription is | with `detach=True` |") + 2
    rows = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        server, by_itself, opted = (cell.strip() for cell in line.strip("|").split("|"))
        rows[server] = (by_itself, opted)
    return rows


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_guide_is_what_the_tests_hold_its_servers_to(row: str):
    by_itself, opted = table(PAGE)[row]
    for name in ROWS[row]:
        assert by_itself.split()[0] == KINDS[name].tier
        assert opted.split()[0] == KINDS[name].opted
    if row == "gunicorn with HTTP/2":
        assert (by_itself, opted) == ("served", "served")


def test_the_guide_names_every_server_and_no_other():
    assert table(PAGE).keys() == ROWS.keys() | UNTRIED
    assert sorted(name for names in ROWS.values() for name in names) == sorted(KINDS)
