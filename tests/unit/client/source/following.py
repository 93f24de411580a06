"""What the tests of EventSource share: a source whose waits take no time, a record of its hooks, its thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests

from ssesync import Event, EventSource
from ssesync.testing import Answer, FakeClock, FakeSSEServer, RecordedRequest, Steps

#: Whether threads are greenlets here.
GEVENT = "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("socket"))

# Longer than any test waits for something that goes well, shorter than the suite's limit for a test.
TIMEOUT = 90.0


def source_of(server: FakeSSEServer, url: str | Callable[[], str] | None = None, **options: Any) -> EventSource:
    """A source of the server's stream whose waits take no time."""
    options.setdefault("clock", FakeClock())
    return EventSource(url or server.url, **options)


def data_of(source: Any) -> list[str | None]:
    return [event.data for event in source]


def take(source: EventSource, into: list[str | None]) -> None:
    """All that comes until an error does."""
    for event in source:
        into.append(event.data)  # noqa: PERF401


def in_turn(*answers: Any) -> Callable[[RecordedRequest], Steps]:
    """A script that plays one answer, or its steps, after the other, and then 204."""
    waiting: Iterator[Steps] = iter(answers)
    return lambda request: next(waiting, Answer(204))


class Log:
    """What a source told its hooks, in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.errors: list[Exception] = []
        self.waits: list[float] = []

    @property
    def hooks(self) -> dict[str, Any]:
        return {"on_open": self._open, "on_error": self._error, "on_retry": self._retry, "on_comment": self._comment}

    @property
    def names(self) -> list[str]:
        """The kinds of error, in order."""
        return [type(error).__name__ for error in self.errors]

    def _open(self, response: requests.Response) -> None:
        self.entries.append(("open", response.status_code))

    def _error(self, error: Exception) -> None:
        self.errors.append(error)
        self.entries.append(("error", type(error).__name__))

    def _retry(self, error: Exception, delay: float, attempt: int) -> None:
        self.waits.append(delay)
        self.entries.append(("retry", type(error).__name__, attempt))

    def _comment(self, text: str) -> None:
        self.entries.append(("comment", text))


class Following:
    """Follows a source on a thread of its own."""

    def __init__(self, source: EventSource) -> None:
        self.source = source
        self.events: list[Event] = []
        self._came = threading.Condition()
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="test-following", daemon=True)
        self.thread.start()

    def wait_for_events(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.events) >= count or not self.thread.is_alive(), TIMEOUT)
        assert len(self.events) >= count, f"the source ended early: {self._error!r}"

    def result(self) -> list[Event]:
        """What came, once the source has ended by itself or by what the test did. Its error is raised."""
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive(), "the source did not end"
        if self._error is not None:
            raise self._error
        return self.events

    def _run(self) -> None:
        try:
            for event in self.source:
                with self._came:
                    self.events.append(event)
                    self._came.notify_all()
        except BaseException as error:
            self._error = error
        with self._came:
            self._came.notify_all()


def connecting_threads() -> list[threading.Thread]:
    """The threads that make requests for sources now."""
    return [thread for thread in threading.enumerate() if thread.name == "ssesync-connect"]


def wait_for(condition: Callable[[], object]) -> None:
    """For what ends soon but says no word when it does."""
    end = threading.Event()
    for _ in range(int(TIMEOUT / 0.01)):
        if condition():
            return
        end.wait(0.01)
    raise AssertionError("what was waited for did not come")
