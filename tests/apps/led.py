"""What the producers of the tests of contexts have in common: the test orders each of their steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssesync import CloseReason, Event, StreamClosed, StreamStats
from tests.apps import facts
from tests.apps.line import Line

Step = Callable[[], Any]


def led(line: int, steps: Mapping[str, Step], key: str = "") -> Iterator[Event]:
    """Send what each step returns, or the name of what it raises, as JSON.

    :param line: the port of the test's end of the line.
    :param steps: what the test can order, by name.
    :param key: whose end is noted.
    """
    yield Event("begun")
    with Line.call(line) as test:
        try:
            for order in test:
                if order["do"] == "end":
                    break
                yield Event(json.dumps(result_of(steps[order["do"]])))
        finally:
            facts.note(key, "order", "the producer's end")


def result_of(step: Step) -> Any:
    try:
        return step()
    except StreamClosed:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def noted(key: str) -> Callable[[CloseReason, StreamStats], None]:
    """Make an ``on_close`` that notes the reason and the figures.

    :param key: of the facts.
    """

    def on_close(reason: CloseReason, stats: StreamStats) -> None:
        facts.note(key, "order", "on_close")
        facts.note(key, "on_close", [reason.value, stats.events, stats.bytes, stats.keep_alives])

    return on_close


def options_of(query: Mapping[str, str]) -> dict[str, Any]:
    """The options of a stream that the test has put into the query."""
    options: dict[str, Any] = json.loads(query.get("options", "{}"))
    return options
