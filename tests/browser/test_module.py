"""The browser module, against servers that are killed, frozen, overloaded, or have ended the stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ssesync import Broker, open_broker
from tests.examples.started import listens
from tests.redis_server import lasting_port
from tests.servers import ROOT, eventually

from .driver import waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

TIMEOUT = 40.0


class Site:
    """The page's server, and its broker from outside."""

    def __init__(self, folder: Path) -> None:
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = folder / "log"
        broker = f"sqlite:///{folder}/broker.db"
        self._environment = {**os.environ, "BROKER": broker, "PYTHONPATH": str(ROOT)}
        self.broker: Broker = open_broker(broker)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "4"]
        command += ["--bind", f"127.0.0.1:{self.port}", "--no-control-socket", "tests.apps.browser"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        assert eventually(lambda: listens(self.port)), self._log.read_text()

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the server."""
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()
            assert eventually(lambda: not listens(self.port))  # a worker, which has the socket too, ends a little later

    def control(self, **options: str) -> Any:
        with urllib.request.urlopen(f"{self.url}control?{urllib.parse.urlencode(options)}", timeout=TIMEOUT) as answer:
            return json.load(answer)

    def close(self) -> None:
        self.broker.close()
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture
def site(the_site: Site) -> Iterator[Site]:
    yield the_site
    the_site.control(mode="", signed_in="True")


class Page:
    """A tab with the page."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.handle = browser.current_window_handle
        browser.get(url)
        self.until(lambda: self.run("return !!window.follow"))

    def run(self, script: str, *arguments: Any) -> Any:
        self.browser.switch_to.window(self.handle)
        return self.browser.execute_script(script, *arguments)

    def until(self, condition: Callable[[], object]) -> None:
        waiting(self.browser, TIMEOUT, 0.02).until(lambda _: condition())

    def follow(self, url: str, **options: Any) -> None:
        """Follow a stream, and wait until it is open."""
        self.run("follow(arguments[0], arguments[1])", url, options)
        self.sees("open")

    @property
    def seen(self) -> list[str]:
        seen: list[str] = self.run("return window.seen")
        return seen

    def sees(self, text: str, times: int = 1) -> None:
        self.until(lambda: self.seen.count(text) >= times)

    @property
    def messages(self) -> list[str]:
        """Data of events, without what is of the connection."""
        return [text for text in self.seen if not text.startswith(("open", "error"))]


@pytest.fixture
def page(browser: Chrome, site: Site) -> Iterator[Page]:
    page = Page(browser, site.url)
    yield page
    page.run("window.stream?.close()")
    # Connections that broke, and refusals.
    allowed = ("net::ERR_", "503", "401", "404", "410")
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in complaints if not any(part in message for part in allowed)] == []


class Deploying(BaseHTTPRequestHandler):
    """A proxy whose server is gone."""

    def do_GET(self) -> None:
        self.send_error(503)
        asked.release()

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


asked = threading.Semaphore(0)


def test_a_page_comes_back_when_its_server_is_killed_and_then_answers_503(page: Page, site: Site) -> None:
    page.follow("/events")
    site.broker.publish("news", "one")
    page.sees("one")
    site.signal(signal.SIGKILL)
    page.sees("error 0")
    with ThreadingHTTPServer(("127.0.0.1", site.port), Deploying) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        # The browser itself, which gives up, and the module.
        for _ in range(3):
            assert asked.acquire(timeout=TIMEOUT)
        proxy.shutdown()
        thread.join()
    site.broker.publish("news", "two")
    site.start()
    page.sees("two")
    site.broker.publish("news", "three")
    page.sees("three")
    assert page.messages == ["one", "two", "three"]
    assert "error 2" not in page.seen


def test_a_page_notices_that_its_server_is_frozen(page: Page, site: Site) -> None:
    page.follow("/events", silence=1000)
    site.broker.publish("news", "one")
    page.sees("one")
    site.signal(signal.SIGSTOP)
    try:
        page.sees("error 0", 2)  # the connection, and the next one, which gets no answer
        site.broker.publish("news", "two")
    finally:
        site.signal(signal.SIGCONT)
    page.sees("two")
    assert page.messages == ["one", "two"]


def test_a_silent_connection_is_given_up_and_keep_alives_that_are_events_prevent_that(page: Page, site: Site) -> None:
    page.follow("/silent", silence=1000)
    page.sees("open", 2)
    page.until(lambda: page.run("return window.pings > 5"))
    assert site.control()["answers"]["silent"] == 2
    assert page.seen == ["open", "error 0", "open"]


def test_an_overloaded_server_is_asked_again_until_it_has_room(page: Page, site: Site) -> None:
    page.follow("/events")
    site.broker.publish("news", "one")
    page.sees("one")
    for mode, text, requests in (("503", "two", "HEAD 503"), ("retry", "three", "GET retry")):
        site.control(mode=mode, revoke="")
        site.broker.publish("news", text)
        page.until(lambda requests=requests: site.control()["answers"].get(requests, 0) >= 3)
        assert page.messages[-1] != text
        site.control(mode="")
        page.sees(text)
    assert page.messages == ["one", "two", "three"]
    assert "error 2" not in page.seen


def test_each_connection_has_a_ticket_of_its_own_until_the_user_is_signed_out(page: Page, site: Site) -> None:
    page.run("follow(withTicket)")
    for number in range(1, 4):
        page.sees("open", number)
        site.broker.publish("news", f"live {number}")
        page.sees(f"live {number}")
        site.control(revoke="")
        site.broker.publish("news", f"meanwhile {number}")
    page.sees("open", 4)
    page.sees("meanwhile 3")
    assert page.messages == [f"{when} {number}" for number in range(1, 4) for when in ("live", "meanwhile")]
    site.control(signed_in="False", revoke="")
    page.sees("refused 401")
    assert page.seen[-2:] == ["refused 401", "error 2"]


def test_a_refusal_for_good_is_not_asked_again(page: Page, site: Site) -> None:
    page.run("follow('/private?ticket=used')")
    page.sees("refused 401")
    assert page.seen == ["error 0", "refused 401", "error 2"]


def test_a_reset_and_events_of_type_error_reach_the_page(page: Page, site: Site) -> None:
    page.follow("/events", lastEventId="lost-7")
    page.sees("reset")
    site.broker.publish("news", "a failure", type="error")
    site.broker.publish("news", "one")
    page.sees("one")
    assert page.seen == ["open", "reset", "event of type error: a failure", "one"]


@pytest.mark.parametrize("options", [{}, {"endEvents": ["end"]}], ids=["204", "final event"])
def test_a_run_is_followed_to_its_end(page: Page, site: Site, options: dict[str, Any]) -> None:
    name = f"run-{len(options)}"
    site.control(run=name)
    page.follow(f"/run/{name}", **options)
    page.until(lambda: page.seen[-1] == "error 2")
    assert page.messages[:2] == ["one", "two"]
    [end] = [json.loads(text.removeprefix("end ")) for text in page.seen if text.startswith("end ")]
    assert end == ({"state": "done", "events": 2} if options else None)


@pytest.fixture
def tabs(page: Page, site: Site) -> Iterator[tuple[Page, Page]]:
    page.browser.switch_to.new_window("tab")
    yield Page(page.browser, site.url), page
    for handle in page.browser.window_handles:
        if handle != page.handle:
            page.browser.switch_to.window(handle)
            page.browser.close()
    page.browser.switch_to.window(page.handle)


def test_two_tabs_share_a_connection_and_the_second_goes_on_when_the_first_is_closed(
    tabs: tuple[Page, Page], site: Site
) -> None:
    first, second = tabs
    begin = site.control()["position"]
    first.follow("/events", share="news", lastEventId=begin)
    site.broker.publish("news", "one")
    first.sees("one")
    # The second one shows an older state, and gets what came since from the first.
    second.follow("/events", share="news", lastEventId=begin)
    second.sees("one")
    site.broker.publish("news", "two")
    for tab in tabs:
        tab.sees("two")
    assert site.control()["streams"] == 1
    # A state from before the leader's first event: it can't give what is missing.
    second.run("stream.close(); seen.length = 0")
    second.follow("/events", share="news", lastEventId="old-1")
    second.sees("reset")
    assert first.messages == ["one", "two"]
    first.run("return 0")
    first.browser.close()
    site.broker.publish("news", "three")
    second.sees("three")
    assert second.messages == ["reset", "three"]
    assert site.control()["streams"] == 1


def test_tabs_get_each_event_once_while_leaders_change(page: Page, site: Site) -> None:
    ids: list[str] = [site.broker.publish("news", "0")]
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.005):
            ids.append(site.broker.publish("news", str(len(ids))))

    publisher = threading.Thread(target=publish)
    publisher.start()
    tabs: list[tuple[Page, int]] = []
    try:
        for _ in range(6):
            page.browser.switch_to.new_window("tab")
            tab = Page(page.browser, site.url)
            tabs.append((tab, len(ids) - 1))
            tab.follow("/events", share="often", lastEventId=ids[tabs[-1][1]])
            if len(tabs) > 2:
                leader, begin = tabs.pop(0)
                assert_follows(leader, begin)
                page.browser.close()
                page.browser.switch_to.window(page.handle)
    finally:
        stop.set()
        publisher.join()
    for tab, begin in tabs:
        tab.sees(str(len(ids) - 1))
        assert_follows(tab, begin)
        page.browser.close()
        page.browser.switch_to.window(page.handle)


def assert_follows(tab: Page, begin: int) -> None:
    """Assert that a tab got all events after one of them, each once."""
    messages = tab.messages
    assert messages == [str(number) for number in range(begin + 1, begin + 1 + len(messages))]


def test_a_tab_takes_over_when_the_leader_is_frozen(tabs: tuple[Page, Page], site: Site) -> None:
    first, second = tabs
    first.follow("/events", share="frozen", silence=1000)
    second.follow("/events", share="frozen", silence=1000)
    site.broker.publish("news", "zero")
    for tab in (second, first):
        tab.sees("zero")
    first.browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
    site.broker.publish("news", "one")
    second.sees("open", 2)
    site.broker.publish("news", "two")
    second.sees("two")
    assert second.messages == ["zero", "one", "two"]
    first.browser.switch_to.window(first.handle)
    first.browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    first.sees("two")
    assert first.messages == ["zero", "one", "two"]


def test_a_page_connects_at_once_when_it_is_online_again(page: Page, site: Site) -> None:
    page.follow("/events", minWait=600_000, maxWait=600_000)
    site.broker.publish("news", "zero")
    page.sees("zero")
    page.browser.execute_cdp_cmd("Network.enable", {})
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    site.control(revoke="")
    page.sees("error 0")
    site.broker.publish("news", "one")
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    page.sees("one")


def test_a_page_connects_anew_after_the_machine_has_slept(page: Page, site: Site) -> None:
    page.follow("/events", silence=8000)
    page.run("const now = Date.now; Date.now = () => now() + 600_000")
    page.sees("open", 2)
    site.broker.publish("news", "one")
    page.sees("one")
    assert page.seen == ["open", "error 0", "open", "one"]


def test_a_page_in_the_back_forward_cache_has_no_connection_and_misses_nothing(page: Page, site: Site) -> None:
    page.follow("/events")
    site.broker.publish("news", "one")
    page.sees("one")
    page.browser.get(f"{site.url}other")
    page.until(lambda: site.control()["streams"] == 0)
    site.broker.publish("news", "two")
    page.browser.back()
    page.until(lambda: page.run("return window.persisted !== undefined"))
    assert page.run("return window.persisted") is True
    page.sees("two")
    assert page.messages == ["one", "two"]
