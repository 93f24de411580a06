"""The guide's script for pages with tickets, and a page without it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, abort, request

from ssesync_flask import SSE
from tests.docs.blocks import ROOT
from tests.docs.feed import serving

from .driver import waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

GUIDE = (ROOT / "docs" / "guide" / "authorisation.md").read_text("utf-8")
(SCRIPT,) = re.findall(r"^```js\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


class Site:
    """The guide's application, with counters."""

    def __init__(self) -> None:
        self.app = app = Flask(__name__)
        app.secret_key = "for tests only"
        self.sse = SSE(app, retry=50)
        self.statuses: list[int] = []
        self.connected = threading.Semaphore(0)
        app.add_url_rule("/", view_func=lambda: "<!doctype html><title>-</title><link rel=icon href='data:,'>")
        app.add_url_rule("/ticket", view_func=self.ticket, methods=["POST"])
        app.add_url_rule("/events", view_func=self.events)
        app.after_request(self.count)

    def ticket(self) -> Any:
        if request.headers.get("Authorization") != "Bearer 5f0c":
            abort(401)
        return {"ticket": self.sse.issue_ticket("ada", channels=["news"])}

    def events(self) -> Any:
        ticket = self.sse.redeem_ticket()
        return self.sse.subscribe(
            *ticket.channels, key=ticket.subject, on_connect=lambda subscription: self.connected.release()
        )

    def count(self, response: Any) -> Any:
        if request.path == "/events":
            self.statuses.append(response.status_code)
        return response


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.sse.broker.close()


def test_a_page_that_gets_a_new_ticket_each_time_misses_nothing(site: Site, browser: Chrome) -> None:
    with serving(site.app) as base:
        browser.get(base)
        browser.execute_script(
            "const script = document.createElement('script'); script.type = 'module'; script.text = arguments[0];"
            "window.seen = []; document.head.append(script)",
            f"{SCRIPT}; follow(text => window.seen.push(text));",
        )
        for n in range(3):
            assert site.connected.acquire(timeout=90)
            site.sse.publish("news", f"live {n}")
            waiting(browser, 30, 0.02).until(
                lambda _, n=n: browser.execute_script("return window.seen.at(-1)") == f"live {n}"
            )
            # The stream ends, and more is published before its client can be back.
            site.sse.revoke("ada")
            site.sse.publish("news", f"meanwhile {n}")
        assert site.connected.acquire(timeout=90)
        waiting(browser, 30, 0.02).until(lambda _: len(browser.execute_script("return window.seen")) == 6)
        expected = [text for n in range(3) for text in (f"live {n}", f"meanwhile {n}")]
        assert browser.execute_script("return window.seen") == expected
        assert site.statuses == [200] * 4
        browser.get("about:blank")


def test_an_eventsource_that_comes_back_by_itself_is_refused_and_stays_away(site: Site, browser: Chrome) -> None:
    with serving(site.app) as base:
        browser.get(base)
        with site.app.app_context():
            ticket = site.sse.issue_ticket("ada", channels=["news"])
        browser.execute_script("window.source = new EventSource('/events?ticket=' + arguments[0])", ticket)
        assert site.connected.acquire(timeout=90)
        site.sse.revoke("ada")
        waiting(browser, 30, 0.02).until(lambda _: browser.execute_script("return window.source.readyState") == 2)
        assert site.statuses == [200, 401]
    assert ["401" in entry["message"] for entry in browser.get_log("browser")] == [True]
