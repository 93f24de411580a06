"""Whatever a source is doing, it is ended and restarted from another thread at once.

The servers here stay silent for as long as the test lasts, and waits last for a minute: so whatever ends, is ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests

from ssesync import Backoff, CancelToken, EventSource, EventStream, StatusError
from ssesync.testing import HOLD, Answer, FakeSSEServer

from .following import TIMEOUT, Following, connecting_threads, data_of, in_turn, wait_for

# A wait that no test sits out.
MINUTE = Backoff(initial=0, max_retry_after=60)


class Situation:
    """A source that is in the middle of something, on a thread of its own."""

    def __init__(self, source: EventSource, server: FakeSSEServer, reached: Callable[[], object]) -> None:
        self.source = source
        self.server = server
        self.following = Following(source)
        wait_for(reached)
        assert self.following.thread.is_alive()


SITUATIONS: dict[str, Callable[..., Any]] = {}


def situation(make: Callable[..., Any]) -> Callable[..., Any]:
    SITUATIONS[make.__name__.replace("_", " ")] = make
    return make


@contextmanager
def _serving(*steps: Any, **options: Any) -> Iterator[FakeSSEServer]:
    server = FakeSSEServer(in_turn(*steps), **options).start()
    try:
        yield server
    finally:
        # A client that is cut off while it greets has not spoken HTTP.
        server.close(quiet=True)


@situation
@contextmanager
def waiting(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer(503, retry_after=60), Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        yield Situation(source, server, lambda: source.state == "waiting")


@situation
@contextmanager
def reading(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer().event("one").stall(), Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        made = Situation(source, server, lambda: source.state == "open")
        made.following.wait_for_events(1)
        yield made


@situation
@contextmanager
def reading_a_partial_event(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer().raw("id: 5\ndata: ha").stall(), Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        yield Situation(source, server, lambda: source.state == "open")


@situation
@contextmanager
def reading_over_tls(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer().event("one").stall(), Answer().event("again"), tls=tls[0]) as server:
        source = EventSource(server.url, backoff=MINUTE, verify=tls[1], **options)
        made = Situation(source, server, lambda: source.state == "open")
        made.following.wait_for_events(1)
        yield made


@situation
@contextmanager
def connecting_without_an_answer(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving([HOLD], Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        yield Situation(source, server, lambda: server.requests)


@situation
@contextmanager
def connecting_on_a_used_connection(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer().event("one"), [HOLD], Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        made = Situation(source, server, lambda: len(server.requests) == 2)
        assert server.connections == 1
        yield made


@situation
@contextmanager
def connecting_to_what_never_greets(tls: Any, **options: Any) -> Iterator[Situation]:
    # A server that speaks no TLS waits for the end of a request, which the greeting of TLS is not.
    with _serving() as server:
        url = f"https://127.0.0.1:{server.port}/"
        source = EventSource(url, backoff=MINUTE, verify=tls[1], **options)
        yield Situation(source, server, lambda: server.connections == 1)


@situation
@contextmanager
def connecting_through_a_proxy_that_says_nothing(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving([HOLD]) as server:
        proxies = {"https": server.url}
        source = EventSource("https://stream.invalid/", backoff=MINUTE, proxies=proxies, **options)
        yield Situation(source, server, lambda: server.requests)
        assert server.requests[0].method == "CONNECT"


@situation
@contextmanager
def following_a_redirect(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer(302, location="/there"), [HOLD], Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        yield Situation(source, server, lambda: len(server.requests) == 2)


@situation
@contextmanager
def following_a_redirect_whose_body_never_ends(tls: Any, **options: Any) -> Iterator[Situation]:
    with _serving(Answer(302, location="/there", framing="chunked").raw("x").stall()) as server:
        source = EventSource(server.url, backoff=MINUTE, **options)
        yield Situation(source, server, lambda: server.requests)


@situation
@contextmanager
def reading_an_error_that_never_ends(tls: Any, **options: Any) -> Iterator[Situation]:
    errors: list[Exception] = []
    with _serving(Answer(404, framing="chunked").raw("no such").stall(), Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, on_error=errors.append, **options)
        yield Situation(source, server, lambda: source.response is not None)
    assert not any(isinstance(error, StatusError) for error in errors)


@situation
@contextmanager
def asking_for_a_token(tls: Any, **options: Any) -> Iterator[Situation]:
    requested, go_on = threading.Semaphore(0), threading.Event()

    def headers() -> dict[str, str]:
        requested.release()
        assert go_on.is_set() or go_on.wait(TIMEOUT)
        return {}

    with _serving(Answer().event("again")) as server:
        source = EventSource(server.url, backoff=MINUTE, headers=headers, **options)
        made = Situation(source, server, lambda: requested.acquire(timeout=0.01))
        yield made
        before = len(server.requests)
        go_on.set()
        wait_for(lambda: not connecting_threads())
        # The answer came too late: nothing was asked with it.
        assert before == len(server.requests) or source.state != "closed"


def _event() -> tuple[Any, Callable[[], object]]:
    event = threading.Event()
    return event, event.set


def _token() -> tuple[Any, Callable[[], object]]:
    token = CancelToken()
    return token, token.set


def _stream() -> tuple[Any, Callable[[], object]]:
    stream = EventStream(iter([]))
    return stream, stream.cancel


SIGNALS = {"CancelToken": _token, "threading.Event": _event, "EventStream": _stream}


@pytest.mark.parametrize("name", SITUATIONS)
@pytest.mark.parametrize("end", ["close", "cancel", *SIGNALS])
def test_it_ends_at_once_and_quietly(name: str, end: str, tls: Any) -> None:
    options: dict[str, Any] = {}
    give = None
    if end in SIGNALS:
        options["cancel"], give = SIGNALS[end]()
    with SITUATIONS[name](tls, **options) as made:
        (give or getattr(made.source, end))()
        assert all(event.data == "one" for event in made.following.result())
        assert made.source.state == "closed"
        assert made.source.read() is None
        requests_so_far = len(made.server.requests)
        if name != "asking for a token":
            # Neither the thread nor the connection of a session of ours outlives its source for long.
            wait_for(lambda: not connecting_threads())
        if name not in ("asking for a token", "connecting to what never greets"):
            made.server.wait_for_client_left()
        assert len(made.server.requests) == requests_so_far


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name != "asking for a token"])
def test_it_restarts_at_once(name: str, tls: Any) -> None:
    with SITUATIONS[name](tls) as made:
        before = made.server.connections, len(made.server.requests)
        made.source.restart()
        wait_for(lambda: (made.server.connections, len(made.server.requests)) > before)
        if not name.endswith(("never greets", "says nothing", "whose body never ends")):
            wait_for(lambda: made.following.events and made.following.events[-1].data == "again")
        made.source.close()
        made.following.result()
        wait_for(lambda: not connecting_threads())


def test_restart_requests_another_token_while_the_first_request_runs(
    serve: Callable[..., FakeSSEServer],
) -> None:
    server = serve(in_turn(Answer().event("one")))
    requested, go_on = threading.Semaphore(0), threading.Event()
    tokens = iter(["late", "good", "good"])

    def headers() -> dict[str, str]:
        token = next(tokens)
        requested.release()
        if token == "late":
            assert go_on.wait(TIMEOUT)
        return {"Authorization": token}

    following = Following(EventSource(server.url, headers=headers, backoff=Backoff(initial=0)))
    assert requested.acquire(timeout=TIMEOUT)
    following.source.restart()
    assert [event.data for event in following.result()] == ["one"]
    go_on.set()
    wait_for(lambda: not connecting_threads())
    assert [request.headers["authorization"] for request in server.requests] == ["good", "good"]


def test_a_restart_resumes_where_the_consumer_was(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(in_turn(*[Answer().event(str(n), id=n).raw("id: half\ndata: ha").stall() for n in range(5)]))
    following = Following(EventSource(server.url, backoff=MINUTE))
    for count in range(1, 6):
        following.wait_for_events(count)
        following.source.restart()
    assert [event.data for event in following.result()] == list("01234")
    assert [request.last_event_id for request in server.requests] == ["", *"01234"]


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_ending_it_twice_and_from_the_loop_itself_does_no_harm(end: str, server: FakeSSEServer) -> None:
    server.answer().event("one").event("two").stall()
    source = EventSource(server.url)
    seen = []
    for event in source:
        seen.append(event.data)
        getattr(source, end)()
        getattr(source, end)()
    assert seen == ["one"]
    source.restart()
    assert source.read() is None
    server.wait_for_client_left()
    assert len(server.requests) == 1


def test_a_stream_view_whose_client_leaves_ends_the_source_it_reads(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(in_turn(Answer().event("one").stall()))
    stream = EventStream(iter([]))
    following = Following(EventSource(server.url, cancel=stream))
    following.wait_for_events(1)
    stream.close()
    assert len(following.result()) == 1
    server.wait_for_client_left()


class TestCallersSession:
    """Connections of a session that is the caller's: a source ends its own and touches no other."""

    def test_a_request_without_an_answer_is_abandoned_and_its_late_answer_closed(
        self, serve: Callable[..., FakeSSEServer], session: requests.Session
    ) -> None:
        go_on = threading.Event()
        server = serve(in_turn([go_on, *Answer().event("late").stall()]))
        following = Following(EventSource(server.url, session=session))
        server.wait_for_requests(1)
        following.source.close()
        assert following.result() == []
        assert len(connecting_threads()) == 1
        go_on.set()
        wait_for(lambda: not connecting_threads())
        server.wait_for_client_left()

    @pytest.mark.slow
    def test_it_ends_by_its_own_timeout_where_none_comes(
        self, serve: Callable[..., FakeSSEServer], session: requests.Session
    ) -> None:
        server = serve(in_turn([HOLD]))
        following = Following(EventSource(server.url, session=session, idle_timeout=0.3))
        server.wait_for_requests(1)
        following.source.close()
        assert following.result() == []
        wait_for(lambda: not connecting_threads())
        server.wait_for_client_left()

    def test_the_place_in_the_pool_is_free_after_close_though_nobody_reads_on(
        self, serve: Callable[..., FakeSSEServer]
    ) -> None:
        server = serve(lambda _: Answer().event("one").stall())
        with requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1, pool_block=True))
            sources = []  # kept, so that the garbage collector does not free it
            for _ in range(5):
                sources.append(EventSource(server.url, session=session))
                assert sources[-1].read() is not None
                sources[-1].close()


class TestMany:
    @pytest.mark.slow
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_100_readers_of_a_silent_server_all_end_and_no_other_connection_does(
        self, scheme: str, serve: Callable[..., FakeSSEServer], tls: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        escaped: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", escaped.append)
        more = threading.Semaphore(0)
        live = Answer().event("live")
        for number in range(10):
            live.wait_for(more).event(str(number))
        server = serve(
            lambda request: live if request.path == "/live" else Answer().event("one").stall(),
            tls=tls[0] if scheme == "https" else None,
            patience=TIMEOUT,
        )
        token = CancelToken()
        with requests.Session() as session, ExitStack() as stack:
            session.mount(f"{scheme}://", requests.adapters.HTTPAdapter(pool_maxsize=101, pool_block=True))
            session.verify = tls[1]
            other = stack.enter_context(EventSource(f"{server.url}live", session=session, reconnect=False))
            assert other.read().data == "live"  # type: ignore[union-attr]
            followings = [Following(EventSource(server.url, session=session, cancel=token)) for _ in range(100)]
            for following in followings:
                following.wait_for_events(1)
            token.set()
            for following in followings:
                assert [event.data for event in following.result()] == ["one"]
            for _ in range(10):
                more.release()
            assert data_of(other) == [str(number) for number in range(10)]
            for _ in range(100):
                server.wait_for_client_left()
            # Their places are free, and none of the connections that were cut is given out.
            for _ in range(5):
                source = EventSource(server.url, session=session)
                assert source.read() is not None
                source.close()
        assert escaped == []
        wait_for(lambda: not connecting_threads())


def test_however_often_it_is_restarted_few_requests_that_nobody_waits_for_are_left_on_a_caller_s_session() -> None:
    with _serving(*[[HOLD]] * 100) as server, requests.Session() as session:
        source = EventSource(server.url, session=session, backoff=MINUTE)
        following = Following(source)
        for count in range(1, 9):
            wait_for(lambda count=count: len(server.requests) == count)
            source.restart()
        for _ in range(20):
            source.restart()
            assert len(connecting_threads()) <= 8
        source.close()
        assert following.result() == []
        assert len(server.requests) == 8
    wait_for(lambda: not connecting_threads())
