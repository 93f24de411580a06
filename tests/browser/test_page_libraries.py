"""htmx, Turbo and Datastar, as docs/guide/page-libraries.md has them: what their pages show after deploys, kills,
refusals and ends. All are in one page, and go through the same side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.apps.pages import NAMES, TEXT, Site
from tests.examples.started import listens
from tests.redis_server import lasting_port
from tests.sdk.nodes import need_node, version_of
from tests.servers import HOOKS, ROOT, eventually

from .driver import waiting

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

TIMEOUT = 90.0
#: With the library's module, or as far as they are described without it.
DESCRIBED = [name for name in NAMES if not name.endswith("-alone")]


class Pages:
    """The server, the sites as processes that publish have them, and the browser's page with a frame for each."""

    def __init__(self, browser: Chrome, folder: Path) -> None:
        self.browser = browser
        self.port = lasting_port()
        self._folder = folder
        self.sites = {name: Site(name, folder) for name in NAMES}
        self.start()

    def start(self) -> None:
        # Without connections that are kept: a request over one would reach a server that is about to end.
        command = [sys.executable, "-m", "gunicorn", "--config", HOOKS, "--worker-class", "gthread", "--threads", "4"]
        command += ["--keep-alive", "0", "--bind", f"127.0.0.1:{self.port}", "tests.apps.pages"]
        environment = {**os.environ, "FOLDER": str(self._folder), "PYTHONPATH": str(ROOT)}
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        assert eventually(lambda: listens(self.port), TIMEOUT), (self._folder / "log").read_text()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert eventually(lambda: not listens(self.port))  # a worker, which has the socket too, ends a little later

    def deploy(self) -> None:
        """Stop the server, as a deploy does, and publish something before the next one starts."""
        self.process.terminate()
        assert self.process.wait(TIMEOUT) == 0
        self.publish("while it is away")
        self.start()

    def refuse(self, status: int | None) -> None:
        path = self._folder / "refusal"
        if status is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(str(status))

    def publish(self, text: str) -> None:
        for site in self.sites.values():
            site.publish_line(text)

    def asked(self, name: str) -> list[tuple[str, int]]:
        """The requests of a page for its stream: the last event ID and the answer's status."""
        url = f"http://127.0.0.1:{self.port}/asked"
        request = urllib.request.Request(url, headers={"Host": f"{name}.localhost:{self.port}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return [tuple(each) for each in json.load(answer)]

    def lines(self) -> dict[str, list[str]]:
        """What each page shows."""
        shown = {}
        for place, name in enumerate(NAMES):
            self.browser.switch_to.default_content()
            self.browser.switch_to.frame(place)
            script = "return Array.from(document.querySelectorAll('li'), (line) => line.textContent)"
            shown[name] = self.browser.execute_script(script)
        return shown

    def until(self, condition: Callable[[], object]) -> None:
        waiting(self.browser, TIMEOUT, 0.1).until(lambda _: condition())

    def open(self) -> dict[str, int]:
        """Open the page, and wait until all have asked for their streams.

        :return: how many times each had before.
        """
        before = {name: len(self.asked(name)) for name in NAMES}
        self.browser.get(f"http://localhost:{self.port}/")
        self.until(lambda: all(len(self.asked(name)) > before[name] for name in NAMES))
        return before

    def show(self, wanted: dict[str, list[str]]) -> None:
        """Wait until the pages show these lines."""
        last: dict[str, list[str]] = {}

        def shown() -> bool:
            last.update(self.lines())
            return last == wanted

        try:
            self.until(shown)
        except Exception:
            assert last == wanted
            raise


@pytest.fixture(scope="module")
def the_pages(chromium: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    need_node()
    pages = Pages(chromium, tmp_path_factory.mktemp("pages"))
    yield pages
    pages.kill()
    for site in pages.sites.values():
        site.sse.broker.close()


@pytest.fixture
def pages(browser: Chrome, the_pages: Pages) -> Iterator[Pages]:
    the_pages.open()
    yield the_pages
    the_pages.refuse(None)
    browser.switch_to.default_content()
    browser.get("about:blank")
    browser.get_log("browser")  # connections that broke, and refusals


def test_each_library_updates_its_page_and_comes_back(pages: Pages) -> None:
    shown = {name: ["one <b>&"] for name in NAMES}
    pages.publish("one <b>&")
    pages.show(shown)

    pages.deploy()
    pages.publish("two")
    for name in NAMES:
        # Without resumable=False the end of the stream is the end for Datastar.
        if name != "datastar-alone":
            shown[name] += ["while it is away", "two"]
    pages.show(shown)

    pages.kill()
    pages.refuse(503)
    pages.start()
    connected = [name for name in NAMES if name != "datastar-alone"]
    pages.until(lambda: all(pages.asked(name) for name in connected))
    assert all(status == 503 for name in connected for _, status in pages.asked(name))
    pages.publish("three")
    pages.refuse(None)
    back = [*DESCRIBED, "htmx2-alone"]
    pages.until(lambda: all(pages.asked(name)[-1][1] == 200 for name in back))
    pages.publish("four")
    for name in back:
        # Two come back without an ID.
        shown[name] += ["four"] if name in ("datastar", "htmx2-alone") else ["three", "four"]
    pages.show(shown)
    assert len(pages.asked("turbo-alone")) == 1


@pytest.mark.sdk
def test_some_give_up_when_they_are_refused_at_first(pages: Pages) -> None:
    pages.refuse(503)
    before = pages.open()
    back = [name for name in NAMES if name not in ("htmx4", "turbo-alone", "datastar-alone")]
    pages.refuse(None)
    pages.until(lambda: all(pages.asked(name)[-1][1] == 200 for name in back))
    assert {len(pages.asked(name)) - before[name] for name in NAMES if name not in back} == {1}


@pytest.mark.sdk
def test_a_204_is_not_final_for_all(pages: Pages) -> None:
    pages.publish("one")
    pages.kill()
    pages.refuse(204)
    pages.start()
    final = ("turbo", "turbo-alone", "datastar-alone")
    pages.until(lambda: all(len(pages.asked(name)) >= (1 if name in final else 3) for name in NAMES))
    assert [len(pages.asked(name)) for name in final] == [1, 1, 1]


def test_the_end_of_a_stream_is_final(pages: Pages) -> None:
    pages.publish("one")
    pages.show({name: ["one"] for name in NAMES})
    before = {name: len(pages.asked(name)) for name in NAMES}
    for site in pages.sites.values():  # the last test of the module that publishes: the channel is closed then
        site.sse.publish("news", "", type="end", final=True)
    pages.until(lambda: all(len(pages.asked(name)) > before[name] for name in ("turbo", "turbo-alone", "datastar")))
    more = {name: [status for _, status in pages.asked(name)[before[name] :]] for name in NAMES}
    assert more == {name: [204] if name.startswith("turbo") else [] for name in NAMES} | {"datastar": more["datastar"]}


def test_the_page_names_the_versions_that_are_tried() -> None:
    need_node()
    packages = ("htmx.org", "htmx-ext-sse", "htmx4", "@hotwired/turbo", "@starfederation/datastar")
    row = next(line for line in TEXT.splitlines() if line.startswith("| tested release |"))
    assert [name for name in packages if version_of(name) not in row] == []
