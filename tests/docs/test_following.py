"""What the examples of "Following a stream for days" promise beyond what they print."""

from __future__ import annotations

import io
import signal
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command

from .feed import WORDS
from .test_examples import BLOCKS, run

PROCESSES = "docs/guide/client-processes.md"


def example(name: str, feed: str, page: str = "docs/guide/following.md") -> dict[str, Any]:
    return run(next(each for each in BLOCKS if each.page == page and each.options.get("name") == name), feed)


@pytest.fixture
def _sigterm_is_given_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_crash_in_the_middle_of_an_event_neither_loses_nor_doubles_it(feed: str) -> None:
    names = example("totals", feed)
    names["db"] = db = sqlite3.connect("totals.db")
    count = names["count"]
    complete = dict(db.execute("SELECT * FROM totals"))
    assert sum(complete.values()) == len(WORDS)
    for table in ("totals", "places"):
        with db:
            db.execute(f"DELETE FROM {table}")

    for crash_at in range(1, 4):
        counted = 0

        def count_and_crash(word: str, crash_at: int = crash_at) -> None:
            nonlocal counted
            count(word)
            counted += 1
            if counted == crash_at:
                raise RuntimeError("the power is gone")

        names["count"] = count_and_crash
        with pytest.raises(RuntimeError, match="the power is gone"):
            names["follow"]()
    names["count"] = count
    names["follow"]()

    assert dict(db.execute("SELECT * FROM totals")) == complete
    db.close()


def test_the_thread_in_the_web_application_keeps_the_newest_event(feed: str) -> None:
    names = example("board", feed, PROCESSES)
    names["start"]()
    for thread in threading.enumerate():
        if thread.name == "news":
            thread.join(90)
    assert names["app"].test_client().get("/latest").json == {"word": WORDS[-1]}


@pytest.mark.django_db
@pytest.mark.usefixtures("_sigterm_is_given_back")
def test_the_management_command_writes_every_event(feed: str) -> None:
    written = io.StringIO()
    call_command(example("command", feed, PROCESSES)["Command"](stdout=written))
    assert written.getvalue().split() == WORDS
