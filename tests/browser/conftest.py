"""A headless Chromium, Debian's, with its own driver: nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--window-size=1100,900",
]


def needed(command: str, package: str) -> str:
    """Where the command is. Without it the test is skipped; under CI=true it fails, as nothing would be tested."""
    found = shutil.which(command)
    if found is None:
        reason = f"there is no {command}; Debian has it in the package {package}"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """The browser, one for all tests, with a profile that knows nothing."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = needed("chromium", "chromium")
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A driver that is given is not searched for.
    service = Service(needed("chromedriver", "chromium-driver"))
    browser = Chrome(options=options, service=service)
    try:
        browser.set_page_load_timeout(30)
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    """The browser on an empty page, before the test and after it. Complaints in its console fail the test."""
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield chromium
    complaints = chromium.get_log("browser")
    chromium.get("about:blank")
    assert complaints == []
