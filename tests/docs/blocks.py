"""Finds the code blocks of the README and of docs/, and says which of them are to be run.

A fenced ``python`` block is run when an HTML comment, which readers don't see, stands before it::

    <!-- test: get=/clock events=2 -->

The words in it, all optional:

``get=/path``, ``post=/path``
    Serve what the block defines (``app`` or ``application``, Django's ``urlpatterns``, or the one Django view named
    by ``view=``) by a real server, and read from that path.
``events=2``
    How many events must arrive there; without it, one.
``status=403``
    The answer is no stream but this status.
``view=clock``
    The Django view to serve, in a block without ``urlpatterns``.
``name=app``, ``after=app``
    Give a block a name; run the block of that name, from the same page, first.
``needs=sseclient``
    Skip the block where that module is not installed.
``process``, ``signal=SIGTERM``
    Run it as a Python process of its own; send it that signal when it has printed its first line. It must exit with 0.

Functions named ``test_…`` in a block are called, with the ``client`` of the block's framework if they ask for it.
In a script, ``http://127.0.0.1:8000`` stands for a server that the tests run (see ``feed.py``), and ``url`` for one
stream of it. What a script prints must be what the next block shows, if ``<!-- output -->`` stands before that one.
Scripts run in an empty folder, and the waits between an ``EventSource``'s connections pass quickly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(
    r"(?:^<!--[ ]*(?P<mark>test|output)(?::[ ]*(?P<options>[^>]*?))?[ ]*-->\n+)?"
    r"^```(?P<language>\w+)\n(?P<source>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OPTIONS = {"get", "post", "events", "status", "view", "name", "after", "needs", "process", "signal"}


@dataclass
class Block:
    page: str
    line: int
    source: str
    runs: bool
    options: dict[str, str] = field(default_factory=dict)
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def code(self) -> str:
        """The source, moved down so that tracebacks name the page's own lines."""
        return "\n" * self.line + self.source


def blocks_of(text: str, page: str) -> list[Block]:
    found: list[Block] = []
    for match in FENCE.finditer(text):
        mark, language, source = match["mark"], match["language"], match["source"]
        line = text.count("\n", 0, match.start("source"))
        if mark == "output":
            found[-1].output = source
        elif language == "python":
            options = dict(word.partition("=")[::2] for word in (match["options"] or "").split())
            unknown = options.keys() - OPTIONS
            assert not unknown, f"{page}:{line}: unknown words {unknown} in the test comment"
            found.append(Block(page, line, source, mark == "test", options))
    return found


def pages() -> list[Path]:
    docs = [page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts]
    return sorted(page for page in [ROOT / "README.md", *docs] if page.exists())


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page.read_text("utf-8"), str(page.relative_to(ROOT)))]
