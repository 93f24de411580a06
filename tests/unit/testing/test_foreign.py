"""The kit calls a test's functions under none of its locks."""

from __future__ import annotations

import threading

import requests

from ssesync.testing import FakeClock, FakeSSEServer

TIMEOUT = 90


def elsewhere(call: object) -> bool:
    """Whether a call on another thread comes back."""
    thread = threading.Thread(target=call, daemon=True)  # type: ignore[arg-type]
    thread.start()
    thread.join(TIMEOUT / 4)
    return not thread.is_alive()


def test_a_condition_of_an_answer_may_use_the_server() -> None:
    seen: list[bool] = []
    with FakeSSEServer() as server:
        server.answer(201, when=lambda _: seen.append(elsewhere(lambda: server.wait_for_requests(1))) or True)
        server.answer(202, times=2)
        assert [requests.get(server.url, timeout=TIMEOUT).status_code for _ in range(4)] == [201, 202, 202, 204]
    assert seen == [True]


def test_a_signal_may_use_the_clock_that_waits_for_it() -> None:
    clock = FakeClock()
    seen: list[bool] = []

    class Signal:
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(elsewhere(lambda: clock.waits))
            return False

    assert not clock.wait(Signal(), 5.0)
    assert clock.waits == [5.0]
    assert set(seen) == {True}


def test_a_server_that_is_being_closed_may_be_closed_once_more() -> None:
    server = FakeSSEServer().start()
    listener, server._listener = server._listener, None  # as another call has it that is not done yet
    server.close()
    server._listener = listener
    server.close()
