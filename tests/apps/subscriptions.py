"""What both frameworks' views do alike: how a query asks for a stream, and what is noted of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from ssesync import CloseReason, StreamStats, Subscription
from tests.apps import facts

#: Set by each view, and read when its stream ends: on another thread, in the same context.
whose: ContextVar[str] = ContextVar("whose", default="nobody")


def options_of(name: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The options of a subscription, with what notes its end under its name."""
    whose.set(name)
    facts.note(name, "view", threading.current_thread().name)

    def on_close(reason: CloseReason, stats: StreamStats) -> None:
        facts.note(name, "on_close", [reason.value, whose.get(), stats.events])
        if "fail" in query:
            raise RuntimeError("on_close fails")

    def on_connect(subscription: Subscription) -> list[Any]:
        return json.loads(query["first"])  # type: ignore[no-any-return]

    options: dict[str, Any] = {"key": query.get("key", name), "on_close": on_close}
    if "first" in query:
        options["on_connect"] = on_connect
    return options | json.loads(query.get("options", "{}"))


Publish = Callable[[str, Any], Any]


def publish(send: Publish, channel: str, data: list[Any]) -> list[Any]:
    return [send(channel, each) for each in data]
