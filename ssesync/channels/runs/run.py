"""Run: the public object that starts and lookups return."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from ...cancel import CancelToken
from ...errors import RunUnknown, StreamClosed
from ...event import Event
from ...server.source import Followable
from ...text import shown
from .ending import Ending
from .production import Production
from .record import RunRecord, RunState
from .request import unknown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..keywords import FollowerOptions
    from ..subscription import Subscription
    from .runs import Runs

__all__ = ["Run"]


class Run(Followable):
    """A run: events that are produced once, in the background of one process, and followed by any number of clients.

    ::

        run = broker.start_run("answer:7", generate, question, subject=user)
        return EventStreamResponse(run)

    ``EventStream(run)`` is a stream that follows it: from its start, or from the client's last event ID, to its final
    event. A client may disconnect and reconnect at any time. The final event has the type ``end`` and the data
    ``{"state": …, "events": …, "reason": …, "error": …}``, of which all but ``state`` may be missing. After it the
    stream ends, and an ``EventSource`` that reconnects all the same is answered 204, on which it stops.

    Methods may be called from any thread. :meth:`write` and :meth:`write_text` are for the process that produces it.
    """

    def __init__(self, runs: Runs, record: RunRecord, production: Production | None = None) -> None:
        self._runs = runs
        self._record = record
        self._production = production

    @property
    def name(self) -> str:
        """Its name, which is that of its channel."""
        return self._record.name

    @property
    def subject(self) -> str:
        """The user that it belongs to."""
        return self._record.subject

    @property
    def fingerprint(self) -> str:
        """The fingerprint that it was started with."""
        return self._record.fingerprint

    @property
    def owned(self) -> bool:
        """Whether this process produces it, or did."""
        return self._mine is not None

    @property
    def state(self) -> RunState:
        """Its state, as far as this process knows it: see :meth:`refresh`."""
        return self._record.state if self._own_ending is None else self._own_ending.state

    @property
    def reason(self) -> str:
        """Why it has ended, if the state alone does not show it."""
        return self._record.reason if self._own_ending is None else self._own_ending.reason

    @property
    def began(self) -> float:
        """When it was added, as seconds since 1970."""
        return self._record.began

    @property
    def ended(self) -> float:
        """When it has ended, as seconds since 1970; ``0`` while it has not, or that is not known here: see
        :meth:`refresh`."""
        return self._record.ended

    @property
    def cancelled(self) -> CancelToken:
        """Set when the run ends before its producer does; in the process that produces it.

        :raises RuntimeError: another process produces it.
        """
        return self._own.cancelled

    @property
    def _own_ending(self) -> Ending | None:
        return None if self._production is None or self._record.state.ended else self._production.ended

    @property
    def _mine(self) -> Production | None:
        """What writes it, if this process produces it, and not the one that has forked it."""
        return self._production if self._runs.current is self._runs else None

    @property
    def _own(self) -> Production:
        mine = self._mine
        if mine is None:
            raise RuntimeError(f"the run {self.name!r} is not produced here: open_run() begins one that is queued")
        return mine

    def refresh(self) -> Run:
        """Ask the broker for the run's state.

        :return: this run.
        :raises BrokerError: the broker can't be asked.
        :raises RunUnknown: its time to be retained is over, or it was started anew.
        """
        found = self._runs.current.find(self.name, self.subject)
        if not found.is_same(self._record):
            raise unknown(self.name)
        self._record = found
        return self

    def write(self, item: Any, *, type: str | None = None) -> None:
        """Write an event. Waits while too many bytes of this process wait to be appended to the log.

        :param item: an :class:`Event` without an id, text, or anything that JSON can hold.
        :param type: the event's type, where ``item`` is no :class:`Event`.
        :raises EventError: the event has an id, or can't be written.
        :raises RuntimeError: another process produces the run.
        :raises StreamClosed: the run has ended.
        :raises TypeError: the item can't be sent.
        """
        self._own.write(item, type)

    def write_text(self, text: str, *, type: str | None = None) -> None:
        """Write text. It may be joined to the text of the same type that is written about the same moment: for models
        that give a few characters at a time.

        :param text: the text.
        :param type: the events' type.
        :raises RuntimeError: another process produces the run.
        :raises StreamClosed: the run has ended.
        """
        self._own.write_event(Event(text, type=type), joins=True)

    def stop(self) -> bool:
        """End the run, wherever it is produced. Its producer is cancelled, as one whose client has disconnected. In a
        signal handler that has interrupted its thread inside a broker, another thread ends it.

        :return: whether this call has ended it. ``False``: it had ended before, or that is not known yet.
        :raises BrokerError: the broker can't be reached.
        """
        return self._runs.current.stop(self._record)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended.

        :param timeout: seconds; ``None``: without end.
        :return: whether it has.
        :raises BrokerError: the broker can't be asked.
        """
        mine = self._mine
        if mine is not None:
            if not mine.wait(timeout):
                return False
        elif not self._runs.current.wait(self._record, timeout):
            return False
        self._refresh_at_end()
        return True

    def _refresh_at_end(self) -> None:
        try:
            self.refresh()
        except RunUnknown:
            if not self._record.state.ended and self._own_ending is None:
                self._record = self._record._replace(state=RunState.INTERRUPTED)

    def follow(self, last_event_id: str | None = None, **options: Unpack[FollowerOptions]) -> Subscription:
        """Subscribe to the run's events, from its start or after an event.

        :param last_event_id: the id that a client sent. One that is not known to the log, or not any more, begins with
            a ``reset`` event and the run's start.
        :param options: as for :meth:`Broker.subscribe`.
        :return: the subscription, which ends after the run's final event.
        :raises BrokerError: the log can't be reached or used.
        :raises RunUnknown: its time to be retained is over.
        """
        return self._runs.current.follow(self._record, last_event_id, cast("dict[str, Any]", options))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End a run of :meth:`Broker.open_run`: as one that is done, or that has failed if there was an exception.

        :return: whether the exception is the one by which a write has reported the run's end.
        """
        production = self._mine
        if production is None:
            return False
        if error is None:
            production.end(Ending(RunState.DONE))
        elif isinstance(error, StreamClosed) and production.reason is not None:
            production.end(Ending(RunState.STOPPED))
        else:
            production.fail(error)
        self._runs.finish(production)
        return isinstance(error, StreamClosed) and production.reason is not None

    def __repr__(self) -> str:
        return shown(self, self.name, state=self.state.value)
