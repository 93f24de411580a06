"""The AI chat example's page in Chromium: answers that survive a reload, in two tabs, stopped and broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import ai
from tests.examples.ai import FIRST, SECOND, TIMEOUT, Model
from tests.examples.started import Server

from .driver import By, Keys, waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Model]]:
    with ai.running(tmp_path_factory.mktemp("ai_chat")) as running:
        yield running


class Page:
    """The page, in one tab or two."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser
        self.tabs = [browser.current_window_handle]

    def open_second_tab(self) -> None:
        url = self.browser.current_url
        self.browser.switch_to.new_window("tab")
        self.tabs.append(self.browser.current_window_handle)
        self.browser.get(url)

    def close_second_tab(self) -> None:
        if len(self.tabs) == 2:
            self.browser.switch_to.window(self.tabs.pop())
            self.browser.close()
            self.browser.switch_to.window(self.tabs[0])

    def ask(self, question: str) -> None:
        self.browser.find_element(By.ID, "question").send_keys(question + Keys.ENTER)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(element => element.textContent)"
        return list(self.browser.execute_script(script, selector))

    def wait_for(self, holds: Callable[[], Any]) -> None:
        try:
            waiting(self.browser, TIMEOUT, 0.02).until(lambda _: holds())
        except Exception:
            raise AssertionError(self.texts("#talk > *, #connection")) from None

    def wait_for_answers(self, *answers: str, running: bool = False, ends: tuple[str, ...] | None = None) -> None:
        """Wait until these are the answers, and the last of them is in progress or none is."""
        button = "stop" if running else "send"
        self.wait_for(lambda: self.texts(".answer .text") == list(answers) and self.is_shown(button))
        assert self.texts(".answer .end") == list(ends or [""] * len(answers))

    def is_shown(self, name: str) -> bool:
        return self.browser.find_element(By.ID, name).is_displayed()

    def in_each_tab(self) -> Iterator[None]:
        for tab in self.tabs:
            self.browser.switch_to.window(tab)
            yield


@pytest.fixture
def page(running: tuple[Server, Model], browser: Chrome) -> Iterator[Page]:
    browser.get(running[0].url)
    page = Page(browser)
    try:
        yield page
    finally:
        page.close_second_tab()


def test_an_answer_survives_a_reload_and_is_followed_in_a_second_tab(
    page: Page, running: tuple[Server, Model], browser: Chrome
) -> None:
    server, model = running
    page.ask("wait <i>here</i>")
    page.wait_for_answers(FIRST, running=True)
    browser.refresh()
    page.wait_for_answers(FIRST, running=True)
    page.open_second_tab()
    page.wait_for_answers(FIRST, running=True)
    model.go_on("wait <i>here</i>")
    for _ in page.in_each_tab():
        page.wait_for_answers(FIRST + SECOND)
        browser.refresh()  # now it comes from the database
        page.wait_for_answers(FIRST + SECOND)
        assert page.texts(".question") == ["wait <i>here</i>"]
    assert model.questions("wait <i>here</i>") == 1
    requested = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert requested
    assert all(address.startswith(server.url) for address in requested)


def test_each_tab_shows_a_new_question_and_can_stop_its_answer(page: Page, browser: Chrome) -> None:
    page.open_second_tab()
    browser.switch_to.window(page.tabs[0])
    page.ask("wait for the stop")
    browser.switch_to.window(page.tabs[1])
    page.wait_for_answers(FIRST, running=True)
    browser.find_element(By.ID, "stop").send_keys(Keys.ENTER)
    for _ in page.in_each_tab():
        page.wait_for_answers(FIRST, ends=("Stopped.",))
        assert page.texts(".question") == ["wait for the stop"]


def test_an_answer_that_breaks_off_is_shown_as_incomplete(page: Page, browser: Chrome) -> None:
    page.ask("break off")
    page.wait_for_answers(FIRST, ends=("The answer broke off: the model failed.",))
    page.ask("And now?")
    page.wait_for_answers(FIRST, FIRST + SECOND, ends=("The answer broke off: the model failed.", ""))
    browser.refresh()
    page.wait_for_answers(FIRST, FIRST + SECOND, ends=("This answer is not complete.", ""))
