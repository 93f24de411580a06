"""What a source tells while it follows: hooks and their order, its states, comments, the response."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import requests

from ssesync import CancelToken, Event, EventSource, StatusError
from ssesync.testing import FIN, Answer, FakeClock, FakeSSEServer

from ....cases import each_case
from .following import Following, Log, connecting_threads, data_of, in_turn, source_of, wait_for


def test_hooks_are_called_in_the_order_in_which_things_happen(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(
        in_turn(
            Answer(503),
            Answer().comment("hello").event("one", id=1).keep_alive().drop(),
            Answer().event("two", id=2),
            Answer(404),
        )
    )
    log = Log()
    with pytest.raises(StatusError):
        source_of(server, **log.hooks).for_each(lambda event: log.entries.append(("event", event.data)))
    assert log.entries == [
        ("error", "StatusError"),
        ("retry", "StatusError", 1),
        ("open", 200),
        ("comment", "hello"),
        ("event", "one"),
        ("comment", "keep-alive"),
        ("error", "ConnectionLost"),
        ("retry", "ConnectionLost", 2),
        ("open", 200),
        ("event", "two"),
        ("error", "StreamEnded"),
        ("retry", "StreamEnded", 1),
        ("error", "StatusError"),
    ]


def test_on_retry_gets_the_wait_that_follows(server: FakeSSEServer) -> None:
    server.answer(503, times=6)
    clock, log = FakeClock(), Log()
    assert data_of(source_of(server, clock=clock, **log.hooks)) == []
    assert log.waits == clock.waits
    assert len(log.waits) == 6


def test_hooks_run_on_the_consumers_thread(server: FakeSSEServer) -> None:
    server.answer(503)
    server.answer().keep_alive().event("one")
    threads = set()

    def note(*_: object) -> None:
        threads.add(threading.current_thread())

    source = source_of(server, on_open=note, on_error=note, on_retry=note, on_comment=note, should_retry=note)
    assert data_of(source) == ["one"]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("hook", ["on_open", "on_error", "on_retry", "on_comment", "until"])
def test_what_a_hook_raises_goes_to_the_consumer_and_leaves_nothing_open(hook: str, server: FakeSSEServer) -> None:
    server.answer().keep_alive().event("one").stall()
    if hook in ("on_error", "on_retry"):
        server = FakeSSEServer(lambda _: Answer(503)).start()

    def fail(*_: object) -> None:
        raise ZeroDivisionError(hook)

    hooks: dict[str, Any] = {hook: fail}
    source = source_of(server, **hooks)
    with pytest.raises(ZeroDivisionError, match=hook):
        data_of(source)
    assert source.state == "closed"
    assert source.read() is None
    server.wait_for_client_left()
    server.close()


@each_case("hook", ["on_open", "on_error", "on_retry", "on_comment"])
@each_case("end", ["close", "restart"])
def test_a_hook_may_close_and_restart(hook: str, end: str, serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(in_turn(Answer(503), Answer().keep_alive().event("one").stall(), Answer().event("two")))
    did: list[None] = []

    def act(*_: object) -> None:
        if not did:
            did.append(None)
            getattr(source, end)()

    hooks: dict[str, Any] = {hook: act}
    source = source_of(server, should_retry=lambda _: len(server.requests) < 3, **hooks)
    if end == "restart" and hook in ("on_error", "on_retry"):
        # The wait is left out, and then the stream comes that the test has to end.
        assert source.read() == Event("one", type="message")
        source.restart()
    came = data_of(source)
    if end == "close":
        assert came == []
        assert source.state == "closed"
        assert len(server.requests) == (1 if hook in ("on_error", "on_retry") else 2)
    else:
        assert came == ["two"]


def test_the_states(server: FakeSSEServer) -> None:
    server.answer(503)
    server.answer().event("one")
    states: list[str] = []

    def note(*_: object) -> None:
        states.append(source.state)

    def headers() -> dict[str, str]:
        states.append(source.state)
        return {}

    source = source_of(server, headers=headers, on_open=note, on_error=note, on_retry=note)
    note()
    for _ in source:
        note()
    assert states == [
        "connecting",
        "connecting",
        "waiting",
        "waiting",
        "connecting",
        "open",
        "open",
        "waiting",
        "waiting",
        "connecting",
    ]
    assert source.state == "closed"


def test_no_request_is_sent_before_the_first_event_is_requested(server: FakeSSEServer) -> None:
    with source_of(server) as source:
        assert source.response is None
        assert source.attempt == 0
        assert source.retry is None
        iter(source)
    assert source.state == "closed"
    assert source.read() is None
    assert server.requests == []


def test_the_response_is_there_with_its_headers_and_history(server: FakeSSEServer) -> None:
    server.answer(302, location="/there")
    server.answer(headers={"X-Served-By": "a"}).event("one").stall()
    with source_of(server) as source:
        source.read()
        assert isinstance(source.response, requests.Response)
        assert source.response.headers["X-Served-By"] == "a"
        assert [response.status_code for response in source.response.history] == [302]


class TestComments:
    def test_they_come_in_their_places(self, server: FakeSSEServer) -> None:
        server.answer().comment("a").event("one", id=1).comment("b\nc").event("two").drop()
        server.answer().keep_alive().event("three")
        log = Log()
        came = [(event.data, event.comment) for event in source_of(server, **log.hooks).events_and_comments()]
        assert came == [
            (None, "a"),
            ("one", None),
            (None, "b"),
            (None, "c"),
            ("two", None),
            (None, "keep-alive"),
            ("three", None),
        ]
        assert [entry[1] for entry in log.entries if entry[0] == "comment"] == ["a", "b", "c", "keep-alive"]

    def test_they_come_as_soon_as_their_line_is_complete(self, server: FakeSSEServer) -> None:
        received = threading.Event()
        server.answer().raw(": hello\n").wait_for(received).event("one")
        source = source_of(server, on_comment=lambda _: received.set())
        assert data_of(source) == ["one"]

    def test_iterating_gives_events_only(self, server: FakeSSEServer) -> None:
        server.answer().comment("a").raw("\n\nid: 1\n\nretry: 5\n\nevent: x\n\n").event("one").keep_alive()
        events = list(source_of(server))
        assert events == [Event("one", type="message", id="1")]


class TestForEach:
    def test_it_calls_with_every_event_to_the_end(self, server: FakeSSEServer) -> None:
        server.answer().event("one").drop()
        server.answer().event("two")
        seen: list[str | None] = []
        source_of(server).for_each(lambda event: seen.append(event.data))
        assert seen == ["one", "two"]

    def test_cancel_ends_it_quietly(self, server: FakeSSEServer) -> None:
        server.answer().event("one").event("two").stall()
        token = CancelToken()
        seen: list[str | None] = []

        def handle(event: Event) -> None:
            seen.append(event.data)
            token.set()

        source = source_of(server)
        source.for_each(handle, cancel=token)
        assert seen == ["one"]
        assert source.state == "closed"
        assert not token._callbacks

    def test_what_is_no_cancel_is_refused(self) -> None:
        source = EventSource("http://127.0.0.1/")
        with pytest.raises(TypeError, match="cancel="):
            source.for_each(print, cancel=3)
        with pytest.raises(TypeError, match="cancel="):
            EventSource("http://127.0.0.1/", cancel="yes")


class TestCancelThatOutlivesTheSource:
    """What ends sources, such as the end of a process, may live for as long as the process."""

    @pytest.mark.parametrize("how", ["to its end", "closed", "left", "never begun", "failed"])
    def test_it_keeps_nothing_of_sources_that_are_over(self, how: str, serve: Callable[..., FakeSSEServer]) -> None:
        token = CancelToken()
        server = serve(in_turn(Answer(404) if how == "failed" else Answer().event("one")))
        source = source_of(server, cancel=token)
        if how == "to its end":
            assert data_of(source) == ["one"]
        elif how == "closed":
            assert source.read() is not None
            source.close()
        elif how == "left":
            for _ in source:
                break
        elif how == "failed":
            with pytest.raises(StatusError):
                source.read()
        else:
            source.close()
        assert not token._callbacks

    # Python's own warning of a connection that nobody has closed.
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("kind", [CancelToken, threading.Event])
    @pytest.mark.parametrize("begun", [True, False])
    def test_nor_of_sources_that_were_dropped(
        self, begun: bool, kind: Callable[[], Any], serve: Callable[..., FakeSSEServer]
    ) -> None:
        signal = kind()
        server = serve(lambda _: Answer().event("one").stall())
        source = source_of(server, cancel=signal)
        if begun:
            assert source.read() is not None
        alive = weakref.ref(source)
        del source
        gc.collect()
        assert alive() is None
        assert not getattr(signal, "_callbacks", [])
        wait_for(lambda: not any(thread.name == "ssesync-cancel" for thread in threading.enumerate()))
        if begun:
            server.wait_for_client_left()

    def test_one_that_was_set_before_ends_the_source_before_it_begins(self, server: FakeSSEServer) -> None:
        token = CancelToken()
        token.set()
        source = source_of(server, cancel=token)
        assert source.state == "closed"
        assert source.read() is None
        assert server.requests == []


FAILURES: dict[str, Any] = {
    "busy": lambda _: Answer(503, framing="close"),
    "dropped": lambda _: [FIN],
    "lost": lambda _: Answer().event("x").drop(),
}


def descriptors() -> int:
    return psutil.Process().num_fds()


def objects_of_requests() -> int:
    """How many there are of the kinds that a connection is made of."""
    gc.collect()
    makers = ("ssesync.client", "requests.", "urllib3.", "http.client", "socket")
    return sum(str(getattr(type(each), "__module__", "")).startswith(makers) for each in gc.get_objects())


class TestLeavingNothing:
    """What is followed for days leaves nothing behind."""

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", FAILURES)
    def test_failures_leave_no_objects_no_threads_and_no_descriptors(
        self, kind: str, serve: Callable[..., FakeSSEServer]
    ) -> None:
        server = serve(FAILURES[kind])
        objects: list[int] = []
        open_at: list[int] = []

        def note(error: Exception, delay: float, attempt: int) -> None:
            if attempt in (10, 40):
                open_at.append(descriptors())
                objects.append(objects_of_requests())
            if attempt == 40:
                source.close()

        source = source_of(server, on_retry=note)
        gc.collect()
        gc.disable()  # a descriptor must not wait for the garbage collector
        try:
            assert all(event == Event("x", type="message") for event in source)
        finally:
            gc.enable()
        # What the server's own threads still have open varies by a few.
        assert abs(objects[1] - objects[0]) < 20
        assert abs(open_at[1] - open_at[0]) < 10
        wait_for(lambda: not connecting_threads())

    def test_it_can_be_neither_pickled_nor_copied_deeply(self) -> None:
        source = EventSource("http://127.0.0.1/")
        for attempt in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                attempt(source)


def test_two_threads_that_close_while_a_third_restarts_do_no_harm(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(lambda _: Answer().event("x", id=1).stall())
    for _ in range(20):
        following = Following(source_of(server))
        following.wait_for_events(1)
        barrier = threading.Barrier(3)

        def act(name: str, barrier: threading.Barrier = barrier, source: EventSource = following.source) -> None:
            barrier.wait(90)
            for _ in range(5):
                getattr(source, name)()

        threads = [threading.Thread(target=act, args=(name,)) for name in ("close", "cancel", "restart")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert following.result()
        assert following.source.state == "closed"
    wait_for(lambda: not connecting_threads())
