"""EventStream as servers see it: opening, keep-alives, ends, errors, hooks. Real servers are in tests/live."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from ssesync import CloseReason, Event, EventStream, Settings, SettingsError, StreamClosed, StreamStats, Writer
from ssesync.wire import KEEP_ALIVE, Decoder

from ...cases import each_case
from .test_mailbox import Running

OPENING = b":ok\n"


def environ(**values: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    setup_testing_defaults(result)
    result["QUERY_STRING"] = ""
    return {**result, **values}


def call(app: Any, **values: str) -> tuple[str, dict[str, str], list[bytes]]:
    """Serve one request as PEP 3333 has it; status, headers and chunks."""
    answer: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        answer[:] = [status, dict(headers)]
        return lambda data: None

    body = app(environ(**values), start_response)
    try:
        chunks = list(body)
    finally:
        body.close()
    return answer[0], answer[1], chunks


def events(chunks: list[bytes]) -> list[Event]:
    return Decoder().feed(b"".join(chunks))


class Closes:
    """An on_close that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[CloseReason, StreamStats]] = []

    def __call__(self, reason: CloseReason, stats: StreamStats) -> None:
        self.calls.append((reason, stats))

    @property
    def reasons(self) -> list[str]:
        return [str(reason) for reason, _ in self.calls]


@pytest.fixture(params=[True, False], ids=["threaded", "inline"])
def threaded(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


# what is sent


def test_an_iterable_is_served_with_its_headers(threaded: bool) -> None:
    status, headers, chunks = call(EventStream(["a", {"b": 1}, Event("c", id=3)], threaded=threaded))
    assert status == "200 OK"
    assert headers == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }
    assert chunks[0] == OPENING
    assert [event.data for event in events(chunks)] == ["a", '{"b":1}', "c"]


def test_headers_of_the_caller_win_and_are_added() -> None:
    _, headers, _ = call(EventStream([], headers={"cache-control": "private", "X-A": "1", "Connection": "close"}))
    assert headers == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "X-Accel-Buffering": "no",
        "cache-control": "private",
        "X-A": "1",
    }


def test_a_function_is_served_anew_for_every_request(threaded: bool) -> None:
    application = EventStream(lambda: iter(["x"]), threaded=threaded)
    for _ in range(3):
        assert [event.data for event in events(call(application)[2])] == ["x"]


def test_an_iterable_is_served_once() -> None:
    stream = EventStream(["x"])
    call(stream)
    with pytest.raises(RuntimeError, match="served already"):
        call(stream)


def test_a_writer_function_is_served(threaded: bool) -> None:
    def write(writer: Writer) -> None:
        writer.write_event("a", type="t")
        writer.finish()

    application = EventStream.from_writer(write, threaded=threaded)
    for _ in range(2):
        assert [(event.type, event.data) for event in events(call(application)[2])] == [("t", "a"), ("done", "")]


def test_a_writer_that_threads_write_to_is_served() -> None:
    writer = Writer()

    def produce() -> None:
        for number in range(5):
            writer.write_event(str(number))
        writer.close()

    producing = Running(produce)
    _, _, chunks = call(EventStream(writer))
    producing.join()
    assert [event.data for event in events(chunks)] == ["0", "1", "2", "3", "4"]


def test_a_stream_may_be_returned_after_a_start_response_of_ones_own() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> EventStream:
        stream = EventStream(["x"], environ=environ)
        start_response("200 OK", stream.headers)
        return stream

    assert [event.data for event in events(call(application)[2])] == ["x"]


def test_wsgiref_validate_finds_nothing(threaded: bool) -> None:
    status, _, chunks = call(validator(EventStream(["x"], threaded=threaded)))
    assert status == "200 OK"
    assert len(events(chunks)) == 1


def test_everything_pending_goes_out_joined() -> None:
    writer = Writer()
    stream = EventStream(writer)
    assert next(stream) == OPENING
    writer.write("a")
    writer.write("b")
    assert next(stream) == b"data: a\n\ndata: b\n\n"
    stream.close()


def test_a_large_event_goes_out_whole_in_pieces_without_its_rest_being_copied_for_each() -> None:
    writer = Writer()
    stream = EventStream(writer)
    assert next(stream) == OPENING
    writer.write("x" * 4_000_000)
    writer.close()
    first = next(stream)
    tracemalloc.start()
    try:
        pieces = [first, *stream]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(map(len, pieces)) <= 65536
    assert [event.data for event in events(pieces)] == ["x" * 4_000_000]
    # The pieces themselves, and not a second copy of what is still to come.
    assert peak < 6_000_000


@each_case(
    "options, opening",
    [
        ({}, b":ok\n"),
        ({"retry": 3000}, b"retry: 3000\n"),
        ({"retry": 0}, b"retry: 0\n"),
        ({"padding": 4}, b":    \n:ok\n"),
        ({"padding": 4, "retry": 1}, b":    \nretry: 1\n"),
    ],
)
def test_the_first_chunk_is_there_before_any_event_and_dispatches_nothing(
    options: dict[str, int], opening: bytes
) -> None:
    stream = EventStream(Writer(), **options)
    assert next(stream) == opening
    assert Decoder().feed(opening + b"\n") == []
    stream.close()


# keep-alives


@pytest.mark.parametrize(("event", "sent"), [(None, KEEP_ALIVE), ("ping", b"event: ping\ndata: \n\n")])
def test_silence_is_filled_with_keep_alives_that_are_counted(event: str | None, sent: bytes) -> None:
    closes = Closes()
    writer = Writer(Settings(keep_alive_event=event))
    stream = EventStream(writer, keep_alive=0.01, keep_alive_event=event, on_close=closes)
    next(stream)
    assert [next(stream), next(stream)] == [sent, sent]
    writer.write("x")
    assert next(stream) == b"data: x\n\n"
    writer.write_keep_alive()
    assert next(stream) == sent
    writer.close()
    assert list(stream) == []
    stats = closes.calls[0][1]
    assert (stats.keep_alives, stats.events) == (2, 1)


def test_keep_alives_are_off_with_none() -> None:
    writer = Writer()
    stream = EventStream(writer, keep_alive=None)
    next(stream)
    waiting = Running(lambda: next(stream))
    assert waiting.blocked()
    writer.write("x")
    assert waiting.join() == b"data: x\n\n"
    stream.close()


# ends


def test_on_close_comes_once_with_the_reason_and_what_the_stream_came_to(threaded: bool) -> None:
    closes = Closes()
    _, _, chunks = call(EventStream(["a", "b"], on_close=closes, threaded=threaded))
    assert closes.reasons == ["done"]
    stats = closes.calls[0][1]
    assert (stats.events, stats.bytes, stats.keep_alives) == (2, len(b"".join(chunks)), 0)
    assert stats.seconds >= 0


def test_a_server_that_closes_early_means_that_the_client_is_gone(threaded: bool) -> None:
    closed_on: list[threading.Thread] = []
    ran_on: list[threading.Thread] = []
    gone = threading.Event()

    def endless() -> Iterator[str]:
        ran_on.append(threading.current_thread())
        try:
            while True:
                yield "x"
        finally:
            closed_on.append(threading.current_thread())
            gone.set()

    closes = Closes()
    stream = EventStream(endless, on_close=closes, threaded=threaded, max_pending_events=2)
    next(stream)
    next(stream)
    stream.close()
    stream.close()
    assert gone.wait(90)
    assert closed_on == ran_on
    assert closes.reasons == ["client_gone"]
    assert stream.closed
    assert stream.cancelled.reason == "client_gone"
    assert list(stream) == []


def test_cancel_from_another_thread_ends_a_silent_stream_at_once() -> None:
    closes = Closes()
    stream = EventStream(Writer(), keep_alive=None, on_close=closes)
    next(stream)
    waiting = Running(lambda: list(stream))
    assert waiting.blocked()
    stream.cancel("shutdown")
    stream.cancel("client_gone")
    [last] = waiting.join()
    assert events([last])[0].type == "error"
    assert closes.reasons == ["shutdown"]
    assert stream.reason == "shutdown"


def test_a_producer_learns_from_its_writer_that_the_client_is_gone() -> None:
    learnt: list[str] = []
    done = threading.Event()

    def write(writer: Writer) -> None:
        try:
            while True:
                writer.write("x")
        except StreamClosed as error:
            learnt.append(error.reason)
            raise
        finally:
            done.set()

    stream = EventStream.from_writer(write, max_pending_events=1)
    stream.open()
    next(stream)
    stream.close()
    assert done.wait(90)
    assert learnt == ["client_gone"]


def test_a_sleeping_producer_wakes_when_the_client_leaves() -> None:
    woke = threading.Event()

    def write(writer: Writer) -> None:
        writer.write("x")
        if writer.cancelled.wait(90):
            woke.set()

    stream = EventStream.from_writer(write)
    next(stream)
    stream.close()
    assert woke.wait(90)


@pytest.mark.slow
def test_a_stream_that_is_dropped_unserved_ends_its_producer() -> None:
    done = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            done.set()

    stream = EventStream(endless, max_pending_events=1)
    stream.open()
    del stream
    gc.collect()
    assert done.wait(90)


@pytest.mark.slow
def test_a_stream_that_is_over_is_freed_with_its_thread() -> None:
    before = {thread.ident for thread in threading.enumerate()}
    stream = EventStream(["x"])
    list(stream)
    stream.close()
    reference = weakref.ref(stream)
    del stream
    gc.collect()
    assert reference() is None
    for thread in threading.enumerate():
        if thread.ident not in before and thread.name != "ssesync-reactor":
            thread.join(90)
    left = [thread.name for thread in threading.enumerate() if thread.ident not in before]
    assert left in ([], ["ssesync-reactor"])


def test_what_on_close_raises_is_logged_and_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def on_close(reason: CloseReason, stats: StreamStats) -> None:
        raise ZeroDivisionError

    assert len(events(call(EventStream(["x"], on_close=on_close))[2])) == 1
    assert "on_close" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_on_start_comes_before_the_first_byte_on_the_servers_thread() -> None:
    started: list[threading.Thread] = []
    stream = EventStream(["x"], on_start=lambda: started.append(threading.current_thread()))
    stream.open()
    assert started == []
    next(stream)
    assert started == [threading.current_thread()]
    stream.close()


# HEAD and 204


def test_head_gets_headers_and_no_producer(threaded: bool) -> None:
    ran: list[int] = []
    closes = Closes()
    stream = EventStream(lambda: ran.append(1) or [], on_close=closes, threaded=threaded)  # type: ignore[func-returns-value]
    status, headers, chunks = call(stream, REQUEST_METHOD="HEAD")
    assert (status, chunks, ran, closes.calls) == ("200 OK", [], [], [])
    assert headers["Content-Type"].startswith("text/event-stream")


def test_head_closes_a_generator_that_was_given() -> None:
    generator = (item for item in ["x"])
    call(EventStream(generator), REQUEST_METHOD="HEAD")
    assert generator.gi_frame is None


def test_head_ends_a_writer_that_was_given() -> None:
    writer = Writer()
    call(EventStream(writer), REQUEST_METHOD="HEAD")
    with pytest.raises(StreamClosed):
        writer.write("x")


def test_a_client_that_has_all_is_answered_204() -> None:
    application = EventStream(lambda: ["x"], finished=lambda last_event_id: last_event_id == "7")
    assert call(application, HTTP_LAST_EVENT_ID="7") == ("204 No Content", {}, [])
    assert call(application, HTTP_LAST_EVENT_ID="6")[0] == "200 OK"
    assert call(application)[0] == "200 OK"


def test_the_writer_has_the_last_event_id() -> None:
    def write(writer: Writer) -> None:
        writer.write(writer.last_event_id)

    _, _, chunks = call(EventStream.from_writer(write), HTTP_LAST_EVENT_ID="ü".encode().decode("latin-1"))
    assert events(chunks)[0].data == "ü"


# errors


def test_what_is_raised_before_the_first_event_surfaces_in_the_view(threaded: bool) -> None:
    def refuse() -> Iterator[str]:
        raise PermissionError("not you")
        yield

    closes = Closes()
    with pytest.raises(PermissionError, match="not you"):
        call(EventStream(refuse, on_close=closes, threaded=threaded, first_event_timeout=30))
    assert closes.reasons == ["error"]


def test_what_a_writer_function_raises_before_the_first_event_surfaces_too(threaded: bool) -> None:
    def refuse(writer: Writer) -> None:
        raise PermissionError("not you")

    with pytest.raises(PermissionError):
        call(EventStream.from_writer(refuse, threaded=threaded, first_event_timeout=30))


def test_an_exception_after_the_first_event_is_logged_and_reported_without_its_text(
    threaded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Iterator[str]:
        yield "x"
        raise ValueError("secret")

    closes = Closes()
    status, _, chunks = call(EventStream(fail, on_close=closes, threaded=threaded, name="/the/path"))
    first, last = events(chunks)
    assert (status, first.data, last.type) == ("200 OK", "x", "error")
    message = "The stream ended because of an error on the server."
    error = {"message": message, "type": "server_error", "code": None}
    assert last.json() == {"message": message, "type": "error", "error": error}
    assert b"secret" not in b"".join(chunks)
    assert closes.reasons == ["error"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "/the/path" in record.getMessage()
    assert record.exc_info is not None
    assert "secret" in caplog.text


def test_a_late_failure_without_any_event_is_an_error_event() -> None:
    may_fail = threading.Event()

    def fail() -> Iterator[str]:
        may_fail.wait(90)
        raise ValueError("late")
        yield

    stream = EventStream(fail, first_event_timeout=0)
    assert stream.open() == "200 OK"
    assert next(stream) == OPENING
    may_fail.set()
    assert events(list(stream))[0].type == "error"


def test_an_item_that_can_not_be_sent_is_the_producers_error(threaded: bool) -> None:
    with pytest.raises(TypeError, match="'object'"):
        call(EventStream([object()], threaded=threaded, first_event_timeout=30))


def test_the_wait_for_the_first_event_ends_when_there_is_one() -> None:
    stream = EventStream(["x"], first_event_timeout=10_000)
    opening = Running(stream.open)
    assert opening.join() == "200 OK"
    assert len(events(list(stream))) == 1


def test_the_wait_for_the_first_event_is_bounded() -> None:
    go = threading.Event()

    def slow() -> Iterator[str]:
        go.wait(90)
        yield "x"

    stream = EventStream(slow, first_event_timeout=0.01)
    assert stream.open() == "200 OK"
    assert next(stream) == OPENING
    go.set()
    assert len(events(list(stream))) == 1


@each_case(
    "source, name",
    [("text", "str"), (b"bytes", "bytes"), ({"a": 1}, "dict"), (Event("x"), "Event"), (5, "int"), (None, "NoneType")],
)
def test_a_source_that_gives_no_events_is_refused_by_type(source: Any, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        EventStream(source)


def test_asynchronous_producers_are_refused() -> None:
    async def coroutine() -> None: ...

    async def generator() -> Any:
        yield

    for source in (coroutine, generator):
        with pytest.raises(TypeError, match="async def"):
            EventStream(source)
        with pytest.raises(TypeError, match="async def"):
            EventStream.from_writer(source)
    items = generator()
    with pytest.raises(TypeError, match="async_generator"):
        EventStream(items)
    with pytest.raises(TypeError, match="coroutine"):
        EventStream(coroutine())  # type: ignore[arg-type]


def test_objects_whose_call_is_asynchronous_are_refused() -> None:
    class Producer:
        async def __call__(self) -> Any:
            yield "x"

    for source in (Producer(), functools.partial(Producer())):
        with pytest.raises(TypeError, match="async def"):
            EventStream(source)


def test_what_can_be_iterated_over_either_way_is_and_a_future_is_not() -> None:
    class Both:
        def __iter__(self) -> Iterator[str]:
            return iter(["x"])

        def __aiter__(self) -> Any:
            raise AssertionError

    for source in (Both(), Both):
        assert [event.data for event in events(call(EventStream(source))[2])] == ["x"]
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    with pytest.raises(TypeError, match="Future"):
        EventStream(future)
    loop.close()


@pytest.mark.parametrize("name", ["finished", "on_close"])
def test_callbacks_that_are_asynchronous_or_no_functions_are_refused(name: str) -> None:
    async def callback(*args: Any) -> bool:
        return False

    with pytest.raises(TypeError, match=f"{name} is called synchronously"):
        EventStream([], **{name: callback})
    with pytest.raises(TypeError, match=f"{name} takes a function, got 'x'"):
        EventStream([], **{name: "x"})  # type: ignore[arg-type]


def test_a_writer_function_that_yields_is_refused_instead_of_silently_doing_nothing() -> None:
    def confused(writer: Writer) -> Iterator[str]:
        yield "x"

    with pytest.raises(TypeError, match=r"confused\(\) yields, but it is called with a writer: .* event_stream"):
        EventStream.from_writer(confused)
    with pytest.raises(TypeError, match="yields"):
        call(EventStream.from_writer(lambda writer: confused(writer), first_event_timeout=30))
    with pytest.raises(TypeError, match="function"):
        EventStream.from_writer("no function")  # type: ignore[arg-type]


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="did you mean 'keep_alive'"):
        EventStream([], keepalive=5)
    with pytest.raises(SettingsError, match="did you mean 'on_close'"):
        EventStream([], onclose=print)


# where the producer runs


def test_a_producer_has_the_context_that_the_stream_was_made_in(threaded: bool) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    variable.set("of the request")
    stream = EventStream(lambda: iter([variable.get()]), threaded=threaded)
    assert events(call(stream)[2])[0].data == "of the request"


def test_a_threaded_producer_has_a_thread_of_its_own_and_an_inline_one_the_callers(threaded: bool) -> None:
    stream = EventStream(lambda: iter([threading.get_ident()]), threaded=threaded)
    assert (events(call(stream)[2])[0].data == str(threading.get_ident())) is not threaded


def test_the_scope_is_round_all_that_the_producer_does_on_its_thread(threaded: bool) -> None:
    seen: list[tuple[str, int]] = []
    closed = threading.Event()

    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        seen.append(("enter", threading.get_ident()))
        yield
        seen.append(("exit", threading.get_ident()))
        closed.set()

    def produce() -> Iterator[str]:
        seen.append(("produce", threading.get_ident()))
        try:
            yield "x"
        finally:
            seen.append(("close", threading.get_ident()))

    call(EventStream(produce, scope=scope, threaded=threaded))
    assert closed.wait(90)
    assert [what for what, _ in seen] == ["enter", "produce", "close", "exit"]
    assert len({thread for _, thread in seen}) == 1


def test_an_inline_generator_runs_one_step_for_each_pull() -> None:
    made: list[int] = []

    def count() -> Iterator[str]:
        for number in range(10):
            made.append(number)
            yield str(number)

    stream = EventStream(count, threaded=False, first_event_timeout=0)
    stream.open()
    assert made == []
    next(stream)
    assert made == []
    next(stream)
    assert made == [0]
    stream.close()


def test_an_inline_function_that_never_ends_is_an_error_instead_of_a_hang() -> None:
    def endless(writer: Writer) -> None:
        while True:
            writer.write("x")

    stream = EventStream.from_writer(endless, threaded=False)
    _, _, chunks = call(stream)
    received = events(chunks)
    assert len(received) == 10_001
    assert received[-1].type == "error"


def test_a_producer_waits_when_the_client_is_slow() -> None:
    made: list[int] = []

    def produce() -> Iterator[str]:
        for number in range(100):
            made.append(number)
            yield str(number)

    stream = EventStream(produce, max_pending_events=5)
    stream.open()
    next(stream)
    assert Running(lambda: threading.Event().wait(0.2)).join() is False
    assert len(made) <= 6
    assert len(events([b"", *stream])) == 100


def test_settings_can_be_given_whole_and_by_name() -> None:
    stream = EventStream([], settings=Settings(retry=5, padding=1), retry=7)
    assert (stream.settings.retry, stream.settings.padding) == (7, 1)
