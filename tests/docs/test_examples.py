"""Every code block of the documentation that is marked for it does what the page says."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, override_settings
from django.urls import path

from ssesync import EventStream, Reader

from ..cases import each_case
from .blocks import ROOT, Block, all_blocks, blocks_of
from .feed import serving

BLOCKS = all_blocks()
RUN = [block for block in BLOCKS if block.runs]
PLACEHOLDER = "http://127.0.0.1:8000"


@pytest.fixture(autouse=True)
def _streams_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    streams: list[EventStream] = []
    real = EventStream.open

    def open_and_note(self: EventStream, environ: Any = None) -> str:
        streams.append(self)
        return real(self, environ)

    monkeypatch.setattr(EventStream, "open", open_and_note)
    yield
    for stream in streams:
        stream.cancel("shutdown")


@each_case("block", BLOCKS, ids=str)
def test_a_python_block_is_python(block: Block) -> None:
    compile(block.code, str(block), "exec")


# Django's own end of a request looks at its connections, which earlier tests may have opened.
@pytest.mark.django_db
@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_does_what_the_page_says(block: Block, feed: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "needs" in block.options:
        pytest.importorskip(block.options["needs"])
    if "process" in block.options:
        assert run_apart(block, feed) == block.output
        return
    namespace = run(block, feed)
    if block.output is not None:
        assert capsys.readouterr().out == block.output
    with framework(block, namespace) as (app, client):
        for name, function in list(namespace.items()):
            if name.startswith("test_"):
                function(client()) if inspect.signature(function).parameters else function()
        if "get" in block.options or "post" in block.options:
            assert app is not None, f"{block} defines nothing that can be served"
            with serving(app) as base:
                read(block, base)


def test_the_readme_and_every_guide_page_have_blocks_that_are_run() -> None:
    silent = {block.page for block in BLOCKS} - {block.page for block in RUN}
    assert not silent, f"no block of these pages is run; see tests/docs/blocks.py for how to mark one: {silent}"


def test_a_mistake_in_a_mark_is_found() -> None:
    with pytest.raises(AssertionError, match="unknown words"):
        blocks_of("<!-- test: gte=/ -->\n```python\npass\n```\n", "page.md")


def run(block: Block, feed: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__", "url": f"{feed}/events"}
    if "after" in block.options:
        first = next(b for b in BLOCKS if b.page == block.page and b.options.get("name") == block.options["after"])
        namespace = run(first, feed)
    exec(compile(block.code.replace(PLACEHOLDER, feed), str(block), "exec"), namespace)
    return namespace


def run_apart(block: Block, feed: str) -> str:
    """What the block prints as a process of its own."""
    command = [sys.executable, "-W", "error", "-c", block.source.replace(PLACEHOLDER, feed)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # communicate() would lose what readline() has read beyond the first line.
        limit = threading.Timer(200, process.kill)
        limit.start()
        try:
            printed = process.stdout.readline()
            if "signal" in block.options:
                process.send_signal(signal.Signals[block.options["signal"]])
            printed += process.stdout.read()
        finally:
            limit.cancel()
            process.kill()
    assert process.returncode == 0
    return printed


@contextlib.contextmanager
def framework(block: Block, namespace: dict[str, Any]) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """What of the block can be served, and how to make a test client for it."""
    patterns = namespace.get("urlpatterns")
    if "view" in block.options:
        route = block.options.get("get") or block.options["post"]
        patterns = [path(route.lstrip("/"), namespace[block.options["view"]])]
    if patterns is not None:
        urls = types.ModuleType("urls_of_a_documentation_page")
        urls.urlpatterns = patterns  # type: ignore[attr-defined]
        with override_settings(ROOT_URLCONF=urls):
            yield WSGIHandler(), Client
    else:
        app = namespace.get("app", namespace.get("application"))
        yield app, getattr(app, "test_client", dict)


def read(block: Block, base: str) -> None:
    method = "GET" if "get" in block.options else "POST"
    target = base + block.options[method.lower()]
    headers = {"Accept": "text/event-stream"}
    with requests.request(method, target, headers=headers, stream=True, timeout=20) as response:
        if "status" in block.options:
            assert response.status_code == int(block.options["status"])
            return
        assert response.status_code == 200, response.text[:500]
        reader = Reader(response)
        for _ in range(int(block.options.get("events", "1"))):
            event = reader.read()
            assert event is not None, "the stream ended too early"
            assert event.type != "error", event
        reader.close()
