"""The example of "Replay and reset": a client that gets a reset fetches its state again, and continues."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from ssesync_flask import SSE

from .feed import serving
from .test_examples import BLOCKS, run


class Complete(Exception):
    pass


class Shown(dict[str, int]):
    """A state that ends the client when it has the last event."""

    def __setitem__(self, key: str, value: int) -> None:
        super().__setitem__(key, value)
        if key == "last":
            raise Complete


def test_a_client_that_is_reset_fetches_the_state_and_goes_on_from_there() -> None:
    page = "docs/guide/replay-and-reset.md"
    block = next(each for each in BLOCKS if each.page == page and each.options.get("name") == "reset")
    follow = run(block, "")["follow"]
    app = Flask(__name__)
    sse = SSE(app)

    @app.get("/state")
    def state() -> Any:
        sse.publish("state", {"key": "b", "value": 3})
        sse.publish("state", {"key": "last", "value": 4})
        return {"a": 1, "b": 2}

    @app.get("/events")
    def events() -> Any:
        return sse.subscribe("state", last_event_id="gone-1")

    shown = Shown(old=0)
    with serving(app) as base, pytest.raises(Complete):
        follow(f"{base}/events", f"{base}/state", shown)

    assert shown == {"a": 1, "b": 3, "last": 4}
