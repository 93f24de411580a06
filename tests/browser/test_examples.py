"""The examples' pages. The tests check for content that only events can have added."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.examples.started import Server, gunicorn

from .driver import waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

TABLE = {"flask_live": "processes", "django_live": "busiest"}


def serving(name: str, folder: Path, **variables: str) -> contextlib.AbstractContextManager[Server]:
    return gunicorn(name, folder, LIVE_SSESYNC_BROKER=f"sqlite:///{folder}/jobs.db", **variables)


@pytest.fixture(scope="module", params=list(TABLE))
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(params=list(TABLE))
def slow_example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of its own, whose job takes seconds: long enough to be cut off in the middle."""
    with serving(request.param, tmp_path_factory.mktemp(request.param), LIVE_PAUSE="0.04") as server:
        yield server


def until(browser: Chrome, what: Callable[[], Any], seconds: float = 30) -> Any:
    return waiting(browser, seconds, 0.02).until(lambda _: what())


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


def answers(example: Server) -> list[int]:
    """The statuses that were sent to followers of jobs."""
    if example.example == "django_live":
        return example.answers("/job")
    lines = (example.folder / "access").read_text().splitlines()
    return [
        int(line.split()[1]) for line in lines if line.startswith("/jobs/") and not line.split()[0].endswith("/stop")
    ]


#: The state of a job that is done, and the answers for it. flask_live's page closes its stream at the final event. The
#: plain EventSource of django_live asks once more, and the 204 closes it: the page never does.
DONE = {"flask_live": ("done", [200]), "django_live": ("closed", [200, 204])}


def test_the_jobs_bar_reaches_100_percent_and_the_browser_stays_away(example: Server, browser: Chrome) -> None:
    before = len(answers(example))
    browser.get(example.url)
    assert attribute(browser, "bar", "aria-valuenow") == "0"
    click(browser, "start")
    state, statuses = DONE[example.example]
    until(browser, lambda: attribute(browser, "job-state", "data-state") == state)
    assert attribute(browser, "bar", "aria-valuenow") == "100"
    assert attribute(browser, "bar", "data-events") == "100"
    if example.example == "django_live":
        assert attribute(browser, "bar", "data-cuts") == "0"
    assert text(browser, "percent") == "100 %"
    # The log's line comes after the answer.
    until(browser, lambda: len(answers(example)) >= before + len(statuses))
    assert answers(example)[before:] == statuses


def test_a_job_that_is_done_can_be_started_anew(example: Server, browser: Chrome) -> None:
    before, (state, statuses) = len(answers(example)), DONE[example.example]
    browser.get(example.url)
    for times in (1, 2):
        click(browser, "start")
        # The page's own state may still be that of the job before; the server's log is not.
        until(browser, lambda times=times: len(answers(example)) >= before + len(statuses) * times)
        until(browser, lambda: attribute(browser, "job-state", "data-state") == state)
        assert attribute(browser, "bar", "data-events") == "100"
    assert answers(example)[before:] == 2 * statuses


@pytest.mark.parametrize("slow_example", ["django_live"], indirect=True)
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


@pytest.mark.parametrize("slow_example", ["flask_live"], indirect=True)
def test_a_job_survives_a_reload_and_is_followed_by_a_second_tab(slow_example: Server, browser: Chrome) -> None:
    browser.get(slow_example.url)
    click(browser, "start")
    until(browser, lambda: int(attribute(browser, "bar", "aria-valuenow") or 0) >= 10)
    browser.refresh()
    until(browser, lambda: int(attribute(browser, "bar", "aria-valuenow") or 0) >= 20)
    address, first = browser.current_url, browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(address)
    for handle in (browser.current_window_handle, first):
        browser.switch_to.window(handle)
        until(browser, lambda: attribute(browser, "job-state", "data-state") == "done")
        assert attribute(browser, "bar", "data-events") == "100"
        if handle != first:
            browser.close()
    # Both tabs, and the first one before its reload: one producer for all.
    assert slow_example.answers("/jobs") == [202]


@pytest.mark.parametrize("slow_example", ["flask_live"], indirect=True)
@pytest.mark.parametrize("state", ["stopped", "interrupted"])
def test_the_page_shows_how_a_job_ended(slow_example: Server, browser: Chrome, state: str) -> None:
    browser.get(slow_example.url)
    click(browser, "start")
    until(browser, lambda: int(attribute(browser, "bar", "aria-valuenow") or 0) >= 10)
    if state == "stopped":
        click(browser, "stop")
    else:
        (worker,) = psutil.Process(slow_example.process.pid).children()
        os.kill(worker.pid, signal.SIGKILL)
    until(browser, lambda: attribute(browser, "job-state", "data-state") == state)
    # A new job can be started.
    until(browser, lambda: browser.execute_script("return !document.getElementById('start').disabled"))
    assert attribute(browser, "job-state", "data-state") == state
    # The browser's console has the two connections that broke, and nothing else.
    assert all("net::ERR_" in entry["message"] for entry in browser.get_log("browser"))
