"""Selenium's parts that the pages' tests use. It is imported with the first browser: each process that collects the
tests would take most of a second for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.support.wait import WebDriverWait


class Keys:
    """Keys, as the WebDriver standard names them."""

    NULL = "\ue000"
    ENTER = "\ue007"
    SHIFT = "\ue008"
    CONTROL = "\ue009"
    ALT = "\ue00a"
    DOWN = "\ue015"


class By:
    """Ways to find an element, as the WebDriver standard names them; Selenium makes a selector of an id."""

    ID = "id"
    CSS_SELECTOR = "css selector"


def waiting(browser: Chrome, seconds: float, poll_frequency: float) -> WebDriverWait[Chrome]:
    """A wait for so many seconds, which looks that often."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=poll_frequency)
