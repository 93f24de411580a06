"""The board's page, for two users in one browser: cookies go by the host's name, and the server has two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples.board import Board, running

from .driver import Keys, waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(tmp_path_factory.mktemp("board")) as board:
        yield board


class Page:
    """One user's window. What it was asked to keep would be gone if the page had been loaded again."""

    def __init__(self, browser: Chrome, handle: str, url: str, name: str) -> None:
        self.browser, self._handle, self._url = browser, handle, url
        browser.switch_to.window(handle)
        browser.get(url)
        if browser.find_elements("name", "username"):
            browser.find_element("name", "username").send_keys(name)
            browser.find_element("name", "password").send_keys("demo", Keys.ENTER)
        self.wait(lambda: self.run("return document.getElementById('state')?.dataset.state === 'live'"))
        self.run("window.loaded = 'once'")

    def run(self, script: str, *arguments: Any) -> Any:
        self.browser.switch_to.window(self._handle)
        return self.browser.execute_script(script, *arguments)

    def wait(self, what: Callable[[], Any]) -> Any:
        return waiting(self.browser, 40, 0.05).until(lambda _: what())

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def sees(self, selector: str, text: str) -> bool:
        return any(text in each for each in self.texts(selector))

    def pin(self, text: str) -> None:
        self.run("document.activeElement.blur()")
        self.browser.switch_to.active_element.send_keys("n")  # to the notice's text
        self.browser.switch_to.active_element.send_keys(text, Keys.CONTROL, Keys.ENTER)
        self.wait(lambda: self.sees(".notice p", text))

    def was_never_reloaded(self) -> bool:
        return bool(self.run("return window.loaded === 'once'"))


@pytest.fixture
def pages(board: Board, browser: Chrome) -> Iterator[tuple[Page, Page]]:
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    yield (
        Page(browser, first, board.url, "ada"),
        Page(browser, second, board.url.replace("127.0.0.1", "localhost"), "grace"),
    )
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)


def test_a_notice_appears_on_both_pages_and_a_note_only_on_its_users(board: Board, pages: tuple[Page, Page]) -> None:
    ada, grace = pages
    ada.pin("The kettle is back.")
    grace.wait(lambda: grace.sees(".notice p", "The kettle is back."))
    grace.run("document.querySelector('.notice .thanks').click()")
    ada.wait(lambda: ada.sees("#notes li", "grace thanks you for “The kettle is back.”"))
    assert ada.sees(".notice .thanks", "♥ grace")
    assert ada.run("return document.title") == "(1) Notice board"
    board.manage("tell", "grace", "Your parcel is here.")
    grace.wait(lambda: grace.sees("#notes li", "Your parcel is here."))
    board.manage("sse_publish", "board", "The kitchen is closed.", "--type", "announcement")
    for page in pages:
        page.wait(lambda page=page: page.sees("#announcement", "The kitchen is closed."))
    assert not ada.sees("#notes li", "parcel")
    assert not grace.sees("#notes li", "thanks you")
    ada.run("[...document.querySelectorAll('button')].find(each => each.textContent === 'Take down').click()")
    grace.wait(lambda: not grace.sees(".notice p", "The kettle is back."))
    assert ada.was_never_reloaded()
    assert grace.was_never_reloaded()


def test_what_users_write_is_never_read_as_markup(board: Board, pages: tuple[Page, Page]) -> None:
    ada, grace = pages
    evil = "<img src=x onerror=\"document.title='broken into'\"><script>alert(1)</script></ul>"
    ada.pin(evil)
    grace.wait(lambda: evil in grace.texts(".notice p"))
    board.manage("tell", "grace", evil)
    board.manage("sse_publish", "board", evil, "--type", "announcement")
    grace.wait(lambda: grace.sees("#notes li", evil) and grace.sees("#announcement", evil))
    grace.run("location.reload()")
    grace.wait(lambda: evil in grace.texts(".notice p"))
    assert grace.run("return document.querySelectorAll('img').length") == 0
    assert "broken" not in grace.run("return document.title")


def test_a_page_misses_nothing_while_the_server_is_away(board: Board, pages: tuple[Page, Page]) -> None:
    ada, _ = pages
    board.stop()
    ada.wait(lambda: ada.run("return document.getElementById('state').dataset.state === 'broken'"))
    board.manage("tell", "ada", "while the server was away")
    board.start()
    ada.wait(lambda: ada.sees("#notes li.new", "while the server was away"))
    assert ada.was_never_reloaded()
    # The console has the connection that broke, and perhaps a worker that was about to stop.
    messages = [entry["message"] for entry in ada.browser.get_log("browser")]
    assert all("net::ERR_" in message or " 503 " in message for message in messages), messages


def test_signing_out_closes_the_users_other_pages(board: Board, pages: tuple[Page, Page]) -> None:
    ada, grace = pages
    ada.browser.switch_to.new_window("tab")
    other = ada.browser.current_window_handle
    ada.browser.get(board.url)
    ada.browser.find_element("css selector", "header form button").click()
    # A page that is closed at once may not have sent it.
    ada.wait(lambda: ada.browser.find_elements("name", "username"))
    assert ada.browser.current_window_handle == other
    ada.browser.close()
    ada.wait(lambda: ada.run("return document.querySelector('[name=username]') !== null"))
    assert grace.was_never_reloaded()
    # Refused it was, and said so.
    assert all("403" in entry["message"] for entry in ada.browser.get_log("browser"))
