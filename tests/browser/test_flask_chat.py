"""The chat's page, twice: two people in one browser, as cookies go by the host's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples.chat import Chat, running

from .driver import Keys, waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with running(tmp_path_factory.mktemp("flask_chat")) as chat:
        yield chat


class Page:
    """One of several windows."""

    def __init__(self, browser: Chrome, handle: str) -> None:
        self.browser = browser
        self._handle = handle

    def run(self, script: str, *arguments: Any) -> Any:
        self.browser.switch_to.window(self._handle)
        return self.browser.execute_script(script, *arguments)

    def wait(self, what: Callable[[], Any]) -> Any:
        return waiting(self.browser, 40, 0.05).until(lambda _: what())

    def come_in(self, url: str, name: str) -> None:
        self.browser.switch_to.window(self._handle)
        self.browser.get(url)
        if self.run("return document.body.dataset.name"):  # of a test before
            self.run("document.getElementById('sign-out').click()")
        self.wait(lambda: self.run("return !document.getElementById('entrance').hidden"))
        self.browser.find_element("id", "name").send_keys(name, Keys.ENTER)
        self.wait(self.is_live)

    def is_live(self) -> bool:
        return bool(self.run("return document.getElementById('state').dataset.state === 'live'"))

    def type(self, *keys: str) -> None:
        self.browser.switch_to.window(self._handle)
        self.browser.find_element("id", "text").send_keys(*keys)

    def texts(self, of: str = "messages") -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll(`#${arguments[0]} .message .text`)].map(each => each.textContent)", of
        )
        return found

    def people(self) -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll('#people li')].map(each => each.dataset.name)"
        )  # fmt: skip
        return found


@pytest.fixture
def pages(browser: Chrome) -> Iterator[tuple[Page, Page]]:
    first = browser.current_window_handle
    browser.switch_to.new_window("window")
    second = browser.current_window_handle
    yield Page(browser, first), Page(browser, second)
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)


def test_two_pages_see_each_other_and_miss_nothing_when_the_server_is_killed(
    chat: Chat, pages: tuple[Page, Page]
) -> None:
    ada, grace = pages
    ada.come_in(chat.url, "Ada")
    grace.come_in(chat.url.replace("127.0.0.1", "localhost"), "Grace")
    for page in pages:
        page.wait(lambda page=page: page.people() == ["Ada", "Grace"])
    messages = ["<b>hello</b> & <img src=x onerror=document.title='no'>", "hello yourself", "over and\nout"]
    ada.type(messages[0], Keys.ENTER)
    grace.wait(lambda: grace.texts() == messages[:1])
    grace.type(messages[1], Keys.ENTER)
    grace.wait(lambda: grace.texts() == messages[:2])
    grace.type("over and", Keys.SHIFT, Keys.ENTER, Keys.NULL, "out", Keys.ENTER)
    for page in pages:
        page.wait(lambda page=page: page.texts() == messages)
    assert ada.run("return document.title") == "Lobby · flask_chat"
    assert ada.run("return document.querySelectorAll('#messages b, #messages img').length") == 3  # three names

    chat.kill()
    for page in pages:
        page.wait(lambda page=page: not page.is_live())
    # While the server is away, both write, and a script publishes.
    ada.type("is it gone?", Keys.ENTER)
    grace.type("it is", Keys.ENTER)
    assert (ada.texts("outbox"), grace.texts("outbox")) == (["is it gone?"], ["it is"])
    chat.say("lobby", "I am still here.")
    chat.start()
    later = ["I am still here.", "is it gone?", "it is"]
    for page in pages:
        page.wait(lambda page=page: page.is_live() and sorted(page.texts()[3:]) == sorted(later))
        page.wait(lambda page=page: page.texts("outbox") == [])
        page.wait(lambda page=page: sorted(page.people()) == ["Ada", "Grace"])
    # The same for both, in the order of the events, and once.
    assert ada.texts() == grace.texts()
    assert ada.texts()[:3] == messages
    # A page that is opened later shows the same.
    everything = ada.texts()
    ada.browser.refresh()
    ada.wait(lambda: ada.is_live() and len(ada.texts()) == len(everything))
    assert sorted(ada.texts()) == sorted(everything)
    # The console has only the broken connections.
    assert all("net::ERR_" in entry["message"] for entry in ada.browser.get_log("browser"))


def test_rooms_are_changed_by_keys_and_show_where_there_is_something_new(chat: Chat, browser: Chrome) -> None:
    page = Page(browser, browser.current_window_handle)
    page.come_in(chat.url, "Ada")
    chat.say("garden", "tulips")
    page.wait(lambda: page.run("return document.querySelector('#rooms a[data-slug=garden] b')?.textContent") == "1")
    page.type(Keys.ALT, Keys.DOWN)
    page.wait(lambda: page.texts() == ["tulips"] and page.is_live())
    assert browser.current_url == f"{chat.url}garden"
    assert page.run("return document.querySelector('#rooms a[data-slug=garden] b')") is None
    browser.back()
    page.wait(lambda: page.run("return document.getElementById('room-title').textContent") == "Lobby")


def test_what_the_server_refuses_can_be_discarded(chat: Chat, browser: Chrome) -> None:
    page = Page(browser, browser.current_window_handle)
    page.come_in(chat.url, "Ada")
    page.run("document.getElementById('text').maxLength = 9999")
    page.run("document.getElementById('text').value = 'x'.repeat(2001)")
    page.type(Keys.ENTER)
    page.wait(lambda: page.run("return document.querySelector('#outbox .failed .why')?.textContent.includes('2000')"))
    page.run("[...document.querySelectorAll('#outbox .why button')].at(-1).click()")
    assert page.texts("outbox") == []
    assert ["400" in entry["message"] for entry in browser.get_log("browser")] == [True]
