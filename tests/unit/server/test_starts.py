"""How long a view waits for its first event, and which view a stream is of."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator

import pytest

from ssesync import EventStream, Settings, Writer
from ssesync.server import starts
from ssesync.server.factory import factory_of
from ssesync.server.starts import Views, view_of

from ...cases import each_case

AUTO = Settings()


def numbers(most: int = 3) -> Iterator[str]:
    yield from map(str, range(most))


def others() -> Iterator[str]:
    yield "x"


def test_a_stream_that_will_be_detached_waits_a_moment_until_its_view_has_raised() -> None:
    views = Views()
    assert views.wait(lambda: ("a", 1), AUTO, detached=True) == 0.02
    assert views.wait(lambda: ("a", 1), AUTO, detached=False) == 0.25
    views.raised(("a", 1))
    assert views.wait(lambda: ("a", 1), AUTO, detached=True) == 0.25
    assert views.wait(lambda: ("a", 2), AUTO, detached=True) == 0.02


@each_case("seconds", [0, 0.25, 3])
def test_what_was_set_by_hand_holds(seconds: float) -> None:
    views = Views()
    for _ in range(2):
        assert views.wait(lambda: ("a", 1), Settings(first_event_timeout=seconds), detached=True) == seconds
        views.raised(("a", 1))


def test_so_many_views_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_MOST", 3)
    views = Views()
    for number in range(5):
        views.raised(("a", number))
        views.raised(("a", number))
    waits = [views.wait(lambda n=number: ("a", n), AUTO, detached=True) for number in range(5)]
    assert waits == [0.02, 0.02, 0.25, 0.25, 0.25]


def test_a_view_is_remembered_while_its_last_stream_has_stayed_served() -> None:
    views = Views()
    assert not views.stays(lambda: ("a", 1))
    views.stayed(("a", 1))
    assert views.stays(lambda: ("a", 1))
    assert not views.stays(lambda: ("a", 2))
    views.detached(lambda: ("a", 2))
    assert views.stays(lambda: ("a", 1))
    views.detached(lambda: ("a", 1))
    assert not views.stays(lambda: ("a", 1))


class Numbers:
    def __iter__(self) -> Iterator[str]:
        yield "1"

    def each(self) -> Iterator[str]:
        yield "1"


def wrapped(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*args: object) -> object:
        return function(*args)

    return wrapper


@each_case(
    "same",
    [
        numbers,
        functools.partial(numbers, 5),
        functools.partial(functools.partial(numbers), 5),
        numbers(7),
        wrapped(numbers),
    ],
    ids=["function", "partial", "partial of a partial", "generator", "wrapped"],
)
def test_a_view_is_its_function_however_it_is_given(same: object) -> None:
    assert view_of(same) == view_of(numbers)
    assert view_of(same) != view_of(others)


def test_what_is_made_anew_for_each_request_is_one_view() -> None:
    def make() -> Callable[[], Iterator[str]]:
        return lambda: numbers(2)

    assert view_of(make()) == view_of(make())
    assert view_of(Numbers().each) == view_of(Numbers().each) != view_of(Numbers())
    assert view_of(Numbers()) == view_of(Numbers())


def test_a_function_that_wraps_itself_is_a_view() -> None:
    def view() -> Iterator[str]:
        yield "x"

    view.__wrapped__ = view  # type: ignore[attr-defined]
    assert view_of(view) == view_of(view)


def test_each_kind_of_source_has_a_view() -> None:
    def write(writer: Writer) -> None:
        writer.write("x")

    assert factory_of(numbers).view() == view_of(numbers)
    assert factory_of(numbers()).view() == view_of(numbers)
    assert EventStream.from_writer(write)._spec.factory.view() == view_of(write)
    assert factory_of(Writer()).view() == factory_of(Writer()).view()


def test_a_producer_that_raises_before_its_first_event_is_remembered_also_when_it_does_so_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = Views()
    monkeypatch.setattr("ssesync.server.producer.views", views)
    go = threading.Event()

    def late(writer: Writer) -> None:
        go.wait(90)
        raise LookupError

    def after_an_event(writer: Writer) -> None:
        writer.write("x")
        raise LookupError

    for produce in (late, after_an_event):
        stream = EventStream.from_writer(produce, first_event_timeout=0)
        stream.open({})
        go.set()
        list(stream)
    assert views.wait(lambda: view_of(late), AUTO, detached=True) == 0.25
    assert views.wait(lambda: view_of(after_an_event), AUTO, detached=True) == 0.02
