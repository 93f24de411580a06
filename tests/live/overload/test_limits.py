"""Beyond the soft limit of open files, which is the application's and its children's alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.servers import Kind

from .crowd import GTHREAD, SYNC, Crowd, Server, limited

Start = Callable[[Kind], Server]
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("kind", [GTHREAD, pytest.param(SYNC, marks=pytest.mark.matrix)], ids=lambda kind: kind.name)
def test_streams_go_beyond_the_soft_limit_and_nothing_else_does(start: Start, kind: Kind) -> None:
    server = start(limited(kind, 1024, 4096))
    with Crowd(server, 1300) as crowd:
        assert crowd.wait(lambda: len(crowd.admitted) == 1300)
        limits = json.loads(server.fetch("/limits"))
        assert limits.pop("fd") < 300
        assert limits == {"own": [1024, 4096], "program": [1024, 4096], "forked": 1024}
        # The child that was forked has closed what it inherited, and ended no stream.
        server.fetch("/publish?text=hello")
        assert crowd.all_get("hello")


def test_the_environment_says_how_far(start: Start) -> None:
    server = start(limited(GTHREAD, 256, 1024, SSESYNC_OPEN_FILES="0"))
    with Crowd(server, 300) as crowd:
        assert crowd.wait(crowd.is_answered)
        assert len(crowd.admitted) == 128
    server.stop()


def test_what_the_environment_says_must_be_a_number(start: Start) -> None:
    with pytest.raises(RuntimeError, match=r"SSESYNC_OPEN_FILES takes a number of open files.*'many'"):
        start(limited(GTHREAD, 256, 1024, SSESYNC_OPEN_FILES="many"))
