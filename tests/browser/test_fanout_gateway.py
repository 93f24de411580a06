"""The fan-out example's page in Chromium: prices as they come, and figures that count this page too."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssesync import EventSource
from tests.examples import fanout

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def test_the_page_shows_prices_and_is_one_of_the_readers(browser: Chrome, tmp_path: Path) -> None:
    def text(name: str) -> str:
        return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", name))

    def until(holds: Callable[[], Any]) -> None:
        end = time.monotonic() + fanout.TIMEOUT
        while not holds():
            assert time.monotonic() < end, browser.execute_script("return document.body.innerText")
            time.sleep(0.02)

    with fanout.running(30) as system:
        browser.get(f"{system.url}/")
        until(lambda: int(text("count")) > 5 and text("readers") == "31")
        assert (text("state"), text("upstream"), text("plural")) == ("live", "1", "")
        rows = browser.execute_script(
            "const cells = row => [...row.cells].map(cell => cell.textContent);"
            "return [...document.querySelectorAll('#prices tr')].map(cells)"
        )
        assert [row[0] for row in rows] == ["ALDER", "BIRCH", "CEDAR", "MAPLE", "ROWAN", "WILLOW"]
        assert all(float(row[2]) > 0 and row[3].endswith(" %") for row in rows)
        before = browser.execute_script("return document.querySelector('td path').getAttribute('d')")
        until(lambda: browser.execute_script("return document.querySelector('td path').getAttribute('d')") != before)
        browser.save_screenshot(str(tmp_path / "prices.png"))
        browser.get("about:blank")
        with system.reading() as source:
            until(lambda: readers(source) == 31)
            browser.back()
            until(lambda: readers(source) == 32)
            until(lambda: text("readers") == "32")
        browser.get("about:blank")


def readers(source: EventSource) -> int:
    event = source.read()
    assert event is not None
    return int(event.json()["gateway"]["readers"])
