"""A run in the process that produces it: numbers its events, joins texts, holds its bounds, and ends it once."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from ...cancel import CancelToken
from ...errors import CloseReason, EventError, StreamClosed
from ...event import Event, written_id
from ...locks import Once, Waiters
from ...reactor import run_foreign
from ...text import escape
from ...wire.decoder import Decoder
from ...wire.encoder import encode
from ..entry import CLOSED, Entry
from ..reentry import entered
from .appender import Appender, Item
from .ending import Ending, bound_passed, error_of, final_entry
from .options import RunOptions
from .record import RunRecord, RunState
from .writer import RunSource, RunWriter, event_of

__all__ = ["LOST", "REFUSED", "Production"]

logger = logging.getLogger("ssesync")

#: In place of a reason: the log has refused an event, as the run was ended by another process; or the log is gone.
REFUSED, LOST = "refused", "lost"
# Texts that are joined at most.
_MOST_JOINED = 500


class Production:
    """See the module. Its methods may be called from any thread.

    :param record: the run, which this process owns.
    :param options: its options.
    :param appender: the process's.
    :param over: called when the run has ended and its end is known, on a thread that must not wait.
    """

    def __init__(
        self, record: RunRecord, options: RunOptions, appender: Appender, over: Callable[[Production], object]
    ) -> None:
        self.record = record
        self.options = options
        #: How many events were numbered.
        self.events = 0
        self.began = time.monotonic()
        #: How it ended, once that is in the log, or can't be found out any more.
        self.ended: Ending | None = None
        self._appender = appender
        self._over = over
        self._bytes = 0
        # Text that waits for more text, with its type.
        self._text: list[str] = []
        self._type: str | None = None
        self._bound = ""  # the one that was passed
        self._endings: list[Ending] = []  # the first one counts
        self._source = RunSource(self)
        self._waiters = Waiters()
        self._is_first_end = Once()

    @property
    def cancelled(self) -> CancelToken:
        """Set when the run ends before its producer does."""
        return self._source.cancelled

    @property
    def reason(self) -> CloseReason | None:
        """Why the writer is closed, ``None`` while it is not."""
        return self._source.reason

    def make_writer(self) -> RunWriter:
        """Make the writer of the producer.

        :return: the writer.
        """
        return RunWriter(self, self._source)

    # What the producer writes.

    def write(self, item: Any, type: str | None = None) -> None:
        """Write an item; text may be joined to other text, where the run has ``merge``.

        :param item: an event, text, or a value for the JSON encoder.
        :param type: the event's type, where ``item`` is no event.
        :raises StreamClosed: the run has ended.
        """
        joins = self.options.merge is not None and isinstance(item, str)
        self.write_event(event_of(item, type, self.options.dumps), joins=joins)

    def write_blocks(self, data: bytes) -> None:
        """Write whole blocks of an event stream: each of their events by itself, without its id.

        :param data: the blocks.
        :raises StreamClosed: the run has ended.
        """
        for event in Decoder().feed(data):
            self.write_event(Event(event.data, type=None if event.type == "message" else event.type))

    def write_event(self, event: Event, *, joins: bool = False) -> None:
        """Write an event. One without data is left out.

        :param event: the event.
        :param joins: whether it is text that may be joined to what is written before and after it.
        :raises EventError: it has an id.
        :raises StreamClosed: the run has ended.
        """
        if (event_id := written_id(event)) is not None:
            raise EventError("id", event_id, "is given by the broker: write the event of a run without one")
        if event.data is None:
            return
        self._appender.wait_for_room(self._is_closed)
        body = b"" if joins else encode(event)
        with entered(), self._appender.lock:
            closed = self._is_closed()
            if not closed:
                if joins:
                    self._join(event)
                else:
                    if self._text:
                        self.flush()
                    self._put(body)
        self._appender.wake()
        if self._bound:
            self.flushed()
        if closed or self._bound:
            raise StreamClosed(self._source.reason or self._endings[0].closes_with)

    def _is_closed(self) -> bool:
        return bool(self._endings) or not self._source.mailbox.is_idle  # nothing is put into it: it is closed

    # With the appender's lock held.

    def _join(self, event: Event) -> None:
        if self._text and (self._type != event.type or len(self._text) >= _MOST_JOINED):
            self.flush()
        if not self._text:
            self._type = event.type
            self._appender.hold(self, self.options.merge or 0.0)
        self._text.append(event.data or "")

    def flush(self) -> None:
        """See :class:`ssesync.channels.runs.appender.Sender`."""
        if self._text:
            text, self._text = "".join(self._text), []
            self._appender.release(self)
            self._put(encode(Event(text, type=self._type)))

    def _put(self, body: bytes) -> None:
        options = self.options
        if self._bound:
            return
        if self.events >= options.max_events:
            self._bound = "max_events"
        elif self._bytes + len(body) > options.max_bytes:
            self._bound = "max_bytes"
        else:
            self.events += 1
            self._bytes += len(body)
            if options.numbered:
                body = _with_number(body, self.events)
            self._appender.put(Item(Entry(self.record.name, body, number=self.events, owner=self.record.owner), self))

    # How it ends.

    def end(self, ending: Ending) -> bool:
        """Write the final event. The first end counts.

        :param ending: how the run ends.
        :return: whether this call was the first.
        """
        with entered(), self._appender.lock:
            if self._endings:
                return False
            self.flush()
            if self._bound and ending.state is RunState.DONE:
                ending = bound_passed(self._bound)
            self._endings.append(ending)
            self._appender.put(
                Item(final_entry(self.record, ending, owner=self.record.owner, events=self.events), self)
            )
        self._appender.wake()
        self._close(ending)
        return True

    def fail(self, error: BaseException) -> None:
        """End the run, as its producer has raised an error.

        :param error: the error.
        """
        self.end(Ending(RunState.FAILED, "error", error_of(self.options.settings, error, self.record.name)))

    def withdraw(self, ending: Ending) -> None:
        """Note that the run was ended in the log by another thread or process, which gave it its final event. If this
        process ends it at the same moment, the log says later which of the two came first. Any number of times.

        :param ending: how it ended.
        """
        with entered(), self._appender.lock:
            if self._endings:
                return
            self._endings.append(ending)
            self._text = []
            self._appender.release(self)
        self._close(ending)
        self._finish(ending)

    def supersede(self) -> None:
        """Note that another run has its name by now: other processes have ended it, and nothing of it is appended."""
        with entered(), self._appender.lock:
            self._appender.discard(self)
        self._appender.notify()
        self._give_up(Ending(RunState.STOPPED))

    def cancel(self, ending: Ending) -> None:
        """Cancel the producer, and leave the end of the run to other processes. Takes no lock.

        :param ending: how the run would end.
        """
        self._endings.append(ending)
        self._close(ending)
        self.ended = self.ended or self._endings[0]
        self._waiters.wake()

    def check_time(self, now: float) -> None:
        """End the run if it has taken longer than it may.

        :param now: the time on the monotonic clock.
        """
        longest = self.options.max_seconds
        if longest is not None and now - self.began >= longest:
            self.end(bound_passed("max_seconds"))

    def wait(self, timeout: float | None) -> bool:
        """Wait until the run has ended, and its end is known.

        :param timeout: seconds; ``None``: without end.
        :return: whether it has.
        """
        return self._waiters.wait(lambda: self.ended is not None, timeout)

    def _close(self, ending: Ending) -> None:
        reason = ending.closes_with
        self._source.mailbox.close(reason)
        if ending.state is not RunState.DONE:
            self._source.cancelled._set(reason.value, run_foreign)
        self._appender.notify()

    def _finish(self, ending: Ending) -> None:
        if self._is_first_end():
            self.ended = ending
            self._over(self)
            self._waiters.wake()

    # On the appender's thread.

    def flushed(self) -> None:
        """See :class:`ssesync.channels.runs.appender.Sender`."""
        if self._bound:
            self.end(bound_passed(self._bound))

    def appended(self, entry: Entry, number: int) -> None:
        """See :class:`ssesync.channels.runs.appender.Sender`."""
        if number != CLOSED:
            self._finish(self._endings[0])
        else:
            self._give_up(Ending(RunState.INTERRUPTED, REFUSED))

    def lost(self, error: Exception) -> None:
        """See :class:`ssesync.channels.runs.appender.Sender`."""
        if self.ended is None:
            logger.error(
                "the run %s can't be written to the log, and is given up: %s", escape(self.record.name), escape(error)
            )
        self._give_up(Ending(RunState.INTERRUPTED, LOST))

    def _give_up(self, ending: Ending) -> None:
        self.withdraw(ending)
        self._finish(ending)


def _with_number(body: bytes, number: int) -> bytes:
    """Add a member to an event's data, if that is a JSON object. Other text may begin like one."""
    head, found, rest = body.partition(b"data: {")
    if not found or (head and not head.endswith(b"\n")):
        return body
    try:
        members = json.loads(b"{" + rest.replace(b"\ndata: ", b"\n"))
    except (ValueError, RecursionError):
        return body
    return b'%sdata: {"sequence_number":%d%s%s' % (head, number, b"," if members else b"", rest)
