"""A page that a server has no room for: a browser gives up for good on a 503, and is answered so that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.live.overload.crowd import GTHREAD, Crowd, Server, limited, running

from .driver import waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: The browser comes back after 3 to 6 seconds.
TIMEOUT = 90


def hears_hello(browser: Chrome, server: Server) -> None:
    """Wait until the page, which is on its way back, receives an event that is published again and again."""

    def published_and_received(_: object) -> bool:
        server.fetch("/publish?text=hello")
        return bool(browser.execute_script("return seen.includes('hello')"))

    waiting(browser, TIMEOUT, 0.2).until(published_and_received)


def test_a_refused_page_reconnects_by_itself_and_is_admitted_later(browser: Chrome, tmp_path: Path) -> None:
    kind = limited(GTHREAD, 256, OPTIONS='{"max_detached": 1}')
    with running(kind, tmp_path) as server, Crowd(server, 1) as other:
        assert other.wait(lambda: len(other.admitted) == 1)
        browser.get(f"http://127.0.0.1:{server.port}/page")
        wait = waiting(browser, TIMEOUT, 0.05).until
        # Opened, as the answer is 200; ended, and waiting (0 is CONNECTING, 2 would be CLOSED).
        assert wait(lambda _: browser.execute_script("return seen.length > 1 && seen"))[:2] == ["open", "error 0"]
        assert server.state()["refused"] >= 1
        other.leave(1)
        hears_hello(browser, server)
        browser.get("about:blank")  # before the server ends


def test_a_page_comes_back_by_itself_when_the_broker_can_be_reached(browser: Chrome, tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    kind = limited(GTHREAD, 256, BROKER=f"sqlite:///{folder}/log.sqlite3")
    with running(kind, tmp_path) as server:
        browser.get(f"http://127.0.0.1:{server.port}/page")
        wait = waiting(browser, TIMEOUT, 0.05).until
        assert wait(lambda _: browser.execute_script("return seen.length > 1 && seen"))[:2] == ["open", "error 0"]
        assert "a client could not subscribe" in server.log()
        folder.mkdir()
        hears_hello(browser, server)
        browser.get("about:blank")
