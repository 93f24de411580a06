"""Streams take threads, and leave the others alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from .kinds import APPS, Target
from .switchboard import Switchboard


@pytest.mark.parametrize("app", APPS)
def test_four_threads_with_three_streams_still_answer(
    aim: Callable[[str, str], Target], switchboard: Switchboard, app: str
) -> None:
    target = aim("gthread", app)
    with contextlib.ExitStack() as connections:
        streams = []
        for number in range(3):
            connection = connections.enter_context(target.connect())
            response = connection.get(target.path("gate", line=switchboard.port, key=f"{target.key}-{number}"))
            response.expect(b":ok\n")
            streams.append((response, switchboard.producer()))
        for number in range(5):
            assert target.fetch("plain") == "plain"
            for _, producer in streams:
                producer.send(str(number))
            for response, _ in streams:
                response.expect(b"data: %d\n\n" % number)
        for response, producer in streams:
            producer.end()
            assert response.read() == b""
    assert not target.has_failed()
