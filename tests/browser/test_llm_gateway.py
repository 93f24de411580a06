"""The gateway example's page in Chromium: tokens as they come, and a stop that ends the model's production."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import llm

from .driver import By

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def system() -> Iterator[llm.Running]:
    with llm.running(MODEL_PACE="30") as system:
        yield system


class Page:
    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def text(self, selector: str) -> str:
        return str(self.browser.execute_script(
            "return document.querySelector(arguments[0])?.textContent ?? ''", selector
        ))  # fmt: skip

    def number(self, name: str) -> int:
        return int(re.sub(r"\D", "", self.text(f"#{name}")) or 0)

    def click(self, name: str) -> None:
        self.browser.find_element(By.ID, name).click()

    def ask(self, question: str) -> None:
        field = self.browser.find_element(By.ID, "prompt")
        field.clear()
        field.send_keys(question)
        self.click("send")

    def is_shown(self, name: str) -> bool:
        return self.browser.find_element(By.ID, name).is_displayed()

    def wait_for(self, holds: Callable[[], Any]) -> Any:
        end = time.monotonic() + llm.TIMEOUT
        while not (result := holds()):
            assert time.monotonic() < end, self.text("body")
            time.sleep(0.02)
        return result


@pytest.fixture
def page(system: llm.Running, browser: Chrome) -> Page:
    system.wait_until_at_rest()
    browser.get(f"{system.url}/")
    return Page(browser)


def test_tokens_are_seen_as_they_come_and_stop_ends_the_model(
    page: Page, system: llm.Running, browser: Chrome, tmp_path: Path
) -> None:
    before = system.counters()
    page.ask("How <b>does</b> a token get here?")
    seen = [page.wait_for(lambda: page.number("arrived"))]
    while len(seen) < 8:
        seen.append(page.wait_for(lambda: page.number("arrived") > seen[-1] and page.number("arrived")))
    assert page.text(".asked") == "How <b>does</b> a token get here?"
    assert page.text(".answer").startswith("Each token appears")
    assert not page.is_shown("send")
    page.wait_for(lambda: page.text("#running") == "1")
    browser.save_screenshot(str(tmp_path / "streaming.png"))
    page.click("stop")
    page.wait_for(lambda: page.text(".end").startswith("Stopped after "))
    produced = system.wait_until_at_rest() - before["produced"]
    arrived = page.number("arrived")
    # Of the 400 that were asked for; what was on its way when the connection was closed is lost.
    assert seen[-1] <= arrived <= produced < 400
    assert page.text(".end") == f"Stopped after {arrived} tokens"
    page.wait_for(lambda: page.text("#running") == "0")
    page.wait_for(lambda: page.number("produced") == before["produced"] + produced)
    assert page.number("spared") == page.number("asked") - page.number("produced")
    assert page.is_shown("send")
    browser.save_screenshot(str(tmp_path / "stopped.png"))


def test_leaving_the_page_ends_the_model(page: Page, system: llm.Running, browser: Chrome) -> None:
    before = system.counters()["produced"]
    page.ask("And now?")
    page.wait_for(lambda: page.number("arrived") > 3)
    browser.get("about:blank")
    assert system.wait_until_at_rest() - before < 400


def test_a_complete_answer_is_shown_as_such_and_another_can_be_requested(page: Page, browser: Chrome) -> None:
    # As many tokens as the page asks for take too long here.
    browser.execute_script("""
        const real = window.fetch;
        window.fetch = (url, options) =>
            real(url, {...options, body: JSON.stringify({...JSON.parse(options.body), max_tokens: 12})});
    """)
    page.ask("Once")
    page.wait_for(lambda: page.text(".end") == "Complete, 12 tokens")
    page.ask("Twice")
    page.wait_for(lambda: page.text(".end:last-child") == "Complete, 12 tokens" and page.number("arrived") == 12)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".answer")) == 2


def test_a_refusal_of_the_model_is_shown_with_its_text(page: Page, browser: Chrome) -> None:
    browser.execute_script("""
        const real = window.fetch;
        window.fetch = (url, options) =>
            real(url, {...options, headers: {...options.headers, Authorization: "Bearer wrong"}});
    """)
    page.ask("Please")
    page.wait_for(lambda: page.text(".end.failed") == "Incorrect API key provided.")
    assert page.is_shown("send")
    browser.get_log("browser")  # that it was a 401


def test_an_answer_in_the_background_survives_a_reload_and_is_stopped_by_the_page(browser: Chrome) -> None:
    # Its answer takes longer than a slow browser on a busy machine.
    with llm.running(MODEL_PACE="6") as system:
        browser.get(f"{system.url}/")
        check_background(Page(browser), system, browser)
        browser.get("about:blank")


def check_background(page: Page, system: llm.Running, browser: Chrome) -> None:
    before = system.counters()
    # By the keyboard: the page still grows, and a click could meet something else.
    browser.find_element(By.ID, "keep").send_keys(" ")
    assert browser.find_element(By.ID, "keep").is_selected()
    page.ask("How does a token get here?")
    page.wait_for(lambda: page.number("arrived") > 5)
    browser.refresh()
    seen = page.wait_for(lambda: page.number("arrived") > 10 and page.number("arrived"))
    # From its start, although the first part came before the reload.
    assert page.text(".answer").startswith("Each token appears")
    assert page.text(".asked") == "How does a token get here?"
    assert system.counters()["requests"] == before["requests"] + 1
    browser.find_element(By.ID, "stop").send_keys("\n")
    page.wait_for(lambda: page.text(".end").startswith("Stopped after "))
    assert seen <= page.number("arrived") <= system.wait_until_at_rest() - before["produced"] < 400
    browser.refresh()
    page.wait_for(lambda: page.is_shown("send"))
    assert not page.text(".answer")
