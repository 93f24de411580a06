"""The examples' pages. The tests check for content that only events can have added."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from tests.examples.started import Server, gunicorn

TABLE = {"flask_live": "processes", "django_live": "busiest"}


@pytest.fixture(scope="module", params=list(TABLE))
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with gunicorn(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(params=list(TABLE))
def slow_example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of its own, whose job takes seconds: long enough to be cut off in the middle."""
    with gunicorn(request.param, tmp_path_factory.mktemp(request.param), LIVE_PAUSE="0.04") as server:
        yield server


def until(browser: Chrome, what: Callable[[], Any], seconds: float = 30) -> Any:
    return WebDriverWait(browser, seconds, poll_frequency=0.02).until(lambda _: what())


def text(browser: Chrome, element: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", element))


def attribute(browser: Chrome, element: str, name: str) -> str | None:
    value = browser.find_element("id", element).get_dom_attribute(name)
    return None if value is None else str(value)


def click(browser: Chrome, element: str) -> None:
    """The page grows under the pointer as its first events are drawn, so that a click may meet nothing."""
    button = browser.find_element("id", element)
    browser.execute_script(
        "window.met = false; arguments[0].addEventListener('click', () => { window.met = true; }, {once: true})", button
    )

    def met() -> bool:
        button.click()
        return bool(browser.execute_script("return window.met"))

    until(browser, met)


def events(browser: Chrome) -> int:
    """The number of events that the page shows."""
    return int("0" + "".join(character for character in text(browser, "state") if character.isdecimal()))


def test_the_machine_is_drawn_as_events_arrive(example: Server, browser: Chrome) -> None:
    browser.get(example.url)
    until(browser, lambda: events(browser) > 0)
    assert attribute(browser, "state", "data-state") == "live"
    before = events(browser)
    until(browser, lambda: events(browser) > before + 1)
    rows = browser.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} tr`)].map(row => row.cells[0].textContent)",
        TABLE[example.example],
    )
    if example.example == "flask_live":
        assert rows[0] == str(example.process.pid)
        assert float(text(browser, "load")) >= 0
        assert browser.execute_script("return document.querySelectorAll('svg path').length") == 6
    else:
        assert len(rows) == 8
        assert all(row.isdecimal() for row in rows)
        assert text(browser, "load-figure").endswith(f"{psutil.cpu_count()} cores")
    requested = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(address.startswith(example.url) for address in requested)


def test_the_jobs_bar_reaches_100_percent_and_the_browser_stays_away(example: Server, browser: Chrome) -> None:
    before = len(example.answers("/job"))
    browser.get(example.url)
    assert attribute(browser, "bar", "aria-valuenow") == "0"
    click(browser, "start")
    # The EventSource is closed for good by the 204; the page never closes it.
    until(browser, lambda: attribute(browser, "job-state", "data-state") == "closed")
    assert attribute(browser, "bar", "aria-valuenow") == "100"
    assert attribute(browser, "bar", "data-events") == "100"
    assert attribute(browser, "bar", "data-cuts") == "0"
    assert text(browser, "percent") == "100 %"
    # The log's line comes after the answer.
    until(browser, lambda: len(example.answers("/job")) >= before + 2)
    assert example.answers("/job")[before:] == [200, 204]


def test_a_job_that_is_done_can_be_started_anew(example: Server, browser: Chrome) -> None:
    before = len(example.answers("/job"))
    browser.get(example.url)
    for times in (1, 2):
        click(browser, "start")
        # The page's own state may still be that of the job before; the server's log is not.
        until(browser, lambda times=times: len(example.answers("/job")) >= before + 2 * times)
        until(browser, lambda: attribute(browser, "job-state", "data-state") == "closed")
        assert attribute(browser, "bar", "data-events") == "100"
    assert example.answers("/job")[before:] == [200, 204, 200, 204]


def test_the_page_goes_on_where_it_was_when_the_server_is_killed_and_comes_back(
    slow_example: Server, browser: Chrome
) -> None:
    browser.get(slow_example.url)
    click(browser, "start")
    until(browser, lambda: int(attribute(browser, "bar", "aria-valuenow") or 0) >= 10)
    (worker,) = psutil.Process(slow_example.process.pid).children()
    os.kill(worker.pid, signal.SIGKILL)
    until(browser, lambda: attribute(browser, "job-state", "data-state") == "closed")
    assert attribute(browser, "bar", "data-cuts") == "1"
    assert attribute(browser, "bar", "aria-valuenow") == "100"
    # As many events as percents: none was lost and none came twice.
    assert attribute(browser, "bar", "data-events") == "100"
    # The statistics go on as well.
    before = events(browser)
    until(browser, lambda: events(browser) > before)
    # The browser's console has the two connections that broke, and nothing else.
    assert all("net::ERR_" in entry["message"] for entry in browser.get_log("browser"))
