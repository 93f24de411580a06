"""The table of servers in "Thousands of streams" is what the tests of the servers hold."""

from __future__ import annotations

import re

from tests.detached.servers import KINDS

from .blocks import ROOT

# What the page calls what the tests call so. The same server on another transport is the same to the page.
NAMES = {
    "gthread": "gunicorn `gthread`",
    "gthread_unix": "gunicorn `gthread`",
    "gthread_preload": "gunicorn `gthread`",
    "sync": "gunicorn `sync`",
    "sync_unix": "gunicorn `sync`",
    "werkzeug": "Werkzeug, `flask run`",
    "werkzeug_alone": "Werkzeug, `flask run`",
    "werkzeug_unix": "Werkzeug, `flask run`",
    "flask_run": "Werkzeug, `flask run`",
    "flask_run_alone": "Werkzeug, `flask run`",
    "runserver": "Django `runserver`",
    "runserver_alone": "Django `runserver`",
    "wsgiref": "wsgiref",
    "cheroot": "cheroot",
    "uwsgi": "uWSGI with `--http-socket`",
    "waitress": "waitress",
    "gevent": "gunicorn `gevent`, gevent's own",
    "gthread_tls": "gunicorn over TLS",
}


def test_what_a_subscription_is_on_each_server() -> None:
    page = (ROOT / "docs" / "guide" / "detached.md").read_text("utf-8")
    table = page.partition("| server | a subscription is |")[2].partition("\n\n")[0]
    rows = {server: (by_itself, asked) for server, by_itself, asked in re.findall(r"\| (.+) \| (.+) \| (.+) \|", table)}
    assert KINDS.keys() == NAMES.keys()
    for kind in KINDS.values():
        told = tuple(cell.split(" ")[0] for cell in rows[NAMES[kind.name]])
        assert told == (kind.tier, kind.opted), kind.name
