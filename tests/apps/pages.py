"""Pages of htmx, Turbo and Datastar: the blocks of docs/guide/page-libraries.md, an application for each section.

Each is a host of its own, as its URLs begin with a slash: ``turbo.localhost``. ``localhost`` has a page with all of
them in frames, as some libraries disconnect in a hidden tab.

Environment: FOLDER, where the brokers' files are.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, send_from_directory

from tests.docs.blocks import ROOT, blocks_of
from tests.sdk.nodes import PACKAGES

TEXT = (ROOT / "docs" / "guide" / "page-libraries.md").read_text("utf-8")
BLOCKS = {block.options["name"]: block for block in blocks_of(TEXT, "page-libraries.md") if "name" in block.options}
#: The sections, and what their pages load.
SCRIPTS = {
    "htmx2": ("htmx.org/dist/htmx.js", "htmx-ext-sse/dist/sse.js"),
    "htmx4": ("htmx4/dist/htmx.js", "htmx4/dist/ext/hx-sse.js"),
    "turbo": ("@hotwired/turbo/dist/turbo.es2017-umd.js",),
    "datastar": ("@starfederation/datastar/dist/datastar.js",),
}
#: Parts of a section's HTML, and what a second page has in their place: without the module, or without what the section
#: says of Datastar.
ALONE = {
    "htmx2": {r"<script.*": ""},
    "turbo": {r"<script.*": '<turbo-stream-source src="/events"></turbo-stream-source>'},
    "datastar": {r'\s+data-on-datastar-sse="[^"]*"': "", "/lines": "/events"},
}
NAMES = [*SCRIPTS, *(f"{section}-alone" for section in ALONE)]
STREAMS = ("/events", "/lines")
#: Milliseconds. Shorter ones would lead back to a server that has yet to close its sockets.
RETRY = 500
HEAD = "<!doctype html><title>page</title><link rel=icon href='data:,'>"


def html_of(name: str) -> str:
    """The HTML of a section's page."""
    section, _, alone = name.partition("-")
    [title] = [match for match in re.finditer(r"^## (.*)$", TEXT, re.MULTILINE) if slug(match[1]) == section]
    found = re.compile(r"^```html\n(.*?)^```$", re.MULTILINE | re.DOTALL).search(TEXT, title.end())
    assert found is not None
    html = found[1]
    for part, other in ALONE[section].items() if alone else ():
        html, count = re.subn(part, other, html, flags=re.DOTALL)
        assert count == 1
    return html


def slug(title: str) -> str:
    return title.lower().replace(" ", "")


class Site:
    """The application of a page.

    :param name: the section, or that with ``-alone``.
    :param folder: for the broker's file, and for ``refusal``, a file with the status of a refusal.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.refusal = folder / "refusal"
        #: For each request for a stream, the last event ID and the status of the answer.
        self.asked: list[tuple[str, int]] = []
        section = name.partition("-")[0]
        settings = {"SSESYNC_BROKER": f"sqlite:///{folder}/{name}.db", "SSESYNC": {"retry": RETRY}}
        given = Flask.default_config
        Flask.default_config = type(given)({**given, **settings})
        try:
            made: dict[str, Any] = {"__name__": f"pages.{section}"}
            for block in (BLOCKS["app"], BLOCKS[section]):
                exec(compile(block.code, block.page, "exec"), made)
        finally:
            Flask.default_config = given
        self.app: Flask = made["app"]
        self.sse = made["sse"]
        self.publish_line: Callable[[str], None] = made["publish_line"]
        self.app.before_request(self.refuse)
        self.app.after_request(self.note)
        self.app.add_url_rule("/", view_func=self.page)
        self.app.add_url_rule("/packages/<path:name>", view_func=self.package)
        self.app.add_url_rule("/asked", view_func=self.asked_for)

    def refuse(self) -> Response | None:
        with contextlib.suppress(FileNotFoundError):
            if request.path in STREAMS:
                return Response(status=int(self.refusal.read_text()))
        return None

    def note(self, response: Response) -> Response:
        if request.path in STREAMS and request.method == "GET":
            last_event_id = request.headers.get("Last-Event-ID") or request.args.get("lastEventId", "")
            self.asked.append((last_event_id, response.status_code))
        return response

    def page(self) -> str:
        scripts = SCRIPTS[self.name.partition("-")[0]]
        loaded = (f"<script {kind(path)} src='/packages/{path}'></script>" for path in scripts)
        return HEAD + "".join(loaded) + html_of(self.name)

    def package(self, name: str) -> Response:
        return send_from_directory(PACKAGES, name)

    def asked_for(self) -> list[tuple[str, int]]:
        return self.asked


def kind(path: str) -> str:
    return "type=module" if "datastar" in path else ""


SITES = {name: Site(name, Path(os.environ["FOLDER"])) for name in NAMES} if "FOLDER" in os.environ else {}


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    host, _, port = environ["HTTP_HOST"].partition(":")
    site = SITES.get(host.partition(".")[0])
    if site is not None:
        return site.app(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/html")])
    return [(HEAD + "".join(f'<iframe src="http://{name}.localhost:{port}/"></iframe>' for name in NAMES)).encode()]
