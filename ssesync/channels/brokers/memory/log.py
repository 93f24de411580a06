"""The log of the memory broker. Every method is called with the broker's lock held."""

from __future__ import annotations

import bisect
import heapq
import itertools
import operator
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable

from ....errors import ChannelError, excerpt
from ...entry import Entry, Start
from ...log import Page, merged
from ...message import Message, compiled
from ...options import Limits
from ...runs.record import RunRecord
from ..acceptance import ChannelState, refusal
from .runs import RunTable

__all__ = ["ChannelLog", "MemoryLog"]

# Expired runs that are removed when one is added.
_SWEEP = 20


class ChannelLog:
    """A channel's events."""

    __slots__ = ("begin", "closed", "entries", "size", "trimmed")

    def __init__(self, trimmed: int, begin: int = 0) -> None:
        self.entries: deque[tuple[int, float, Message]] = deque()  # seq, time, message
        self.size = 0
        self.trimmed = trimmed  # up to this seq
        self.begin = begin  # of a run's channel: the log's head when it was added
        self.closed = 0  # the number of its final event

    @property
    def tail(self) -> int:
        """The number of the last event. Without events: that of the last one that was trimmed, or the head from which
        a run's channel begins."""
        return self.entries[-1][0] if self.entries else max(self.trimmed, self.begin)

    def after(self, seq: int, limit: int) -> list[Message]:
        """The messages after a number.

        :param seq: the number.
        :param limit: how many at most: else each page of a client that is far behind would cost as much as all.
        :return: the messages.
        """
        first = bisect.bisect_right(self.entries, seq, key=operator.itemgetter(0))
        return [message for _, _, message in itertools.islice(self.entries, first, first + limit)]


class MemoryLog:
    """All channels, and the runs.

    :param epoch: the log's epoch.
    :param limits: how much the log keeps.
    """

    def __init__(self, epoch: str, limits: Limits) -> None:
        self.epoch = epoch
        self.seq = 0
        #: The channels that the limits apply to, in the order of their last events.
        self.logs: OrderedDict[str, ChannelLog] = OrderedDict()
        self.runs = RunTable()
        self._limits = limits
        self._of_runs: OrderedDict[str, ChannelLog] = OrderedDict()  # in the order of their last events, too
        self._base = 0  # up to this seq, channels may be missing
        # Up to this seq, channels of runs may be missing. It is not in _base: else each client that comes back with an
        # older id for a channel that does not exist would get a reset whenever runs have expired.
        self._run_base = 0

    def append(self, channel: str, body: bytes) -> Message:
        """Append an event.

        :param channel: its channel.
        :param body: the event, encoded without an id.
        :return: its message.
        :raises ChannelClosed: the channel is closed, or is a run's.
        """
        log = self.logs.get(channel)
        if log.closed if log is not None else channel in self._of_runs:
            raise refusal(channel)
        now = time.monotonic()
        message = self._put(log, channel, body, now, False)
        self._remove_channels(now)
        return message

    def append_accepted(self, entry: Entry) -> Message:
        """Append an entry that was accepted, with the outcome of its run.

        :param entry: the entry.
        :return: its message.
        """
        now = time.monotonic()
        log = self._of_runs.get(entry.channel)
        if log is None:
            message = self._put(self.logs.get(entry.channel), entry.channel, entry.body, now, entry.final)
            self._remove_channels(now)
            return message
        self._of_runs.move_to_end(entry.channel)
        message = self._enter(log, entry.channel, entry.body, now, entry.final)
        if entry.outcome is not None:
            self.runs.end(entry.channel, entry.outcome)
        return message

    def state_of(self, channel: str) -> ChannelState:
        """The state of a channel.

        :param channel: the channel.
        :return: its state, of which the caller may change the copy.
        """
        log = self._of_runs.get(channel)
        if log is not None:
            return ChannelState(log.closed > 0, True, len(log.entries), self.runs.owner_of(channel))
        log = self.logs.get(channel)
        return ChannelState(log is not None and log.closed > 0)

    def has(self, channel: str) -> bool:
        """Whether there is a channel.

        :param channel: its name.
        :return: whether the log has it. A run's channel is there until the run expires.
        """
        self._remove_channels(time.monotonic())
        return self.runs.get(channel) is not None if channel in self._of_runs else channel in self.logs

    def _put(self, log: ChannelLog | None, channel: str, body: bytes, now: float, final: bool) -> Message:
        """Append an event to a channel that the limits apply to, and trim it."""
        if log is None:
            log = self.logs[channel] = ChannelLog(self._base)
        else:
            self.logs.move_to_end(channel)
        message = self._enter(log, channel, body, now, final)
        limits = self._limits
        while len(log.entries) > 1 and (len(log.entries) > limits.max_events or log.size > limits.max_bytes):
            _trim(log)
        self._expire(log, now)
        return message

    def _enter(self, log: ChannelLog, channel: str, body: bytes, now: float, final: bool) -> Message:
        self.seq += 1
        message = Message.make(self.epoch, self.seq, channel, body, final)
        log.entries.append((message.seq, now, message))
        log.size += len(message)
        if final:
            log.closed = message.seq
        return message

    def read(self, epoch: str, after: int, names: Collection[str], patterns: Collection[str], limit: int) -> Page:
        """See :class:`ssesync.channels.log.Log`."""
        logs, base = self._find(names, patterns)
        closed = self._closed(names)
        if epoch != self.epoch or after > self.seq:
            return Page([], True, "unknown", self.epoch, self.seq, closed)
        if after < max([base, *(log.trimmed for log in logs)]):
            return Page([], True, "trimmed", self.epoch, self.seq, closed)
        messages = heapq.merge(*(log.after(after, limit + 1) for log in logs), key=lambda message: message.seq)
        return merged(messages, limit, self.epoch, self.seq, closed)

    def start_of(self, names: Collection[str], patterns: Collection[str], last: int | None) -> Start:
        """See :class:`ssesync.channels.log.Log`."""
        if last == 0:
            return Start(self.epoch, self.seq, self._closed(names))
        logs, base = self._find(names, patterns)
        begin = max([base, *(max(log.trimmed, log.begin) for log in logs)])
        if last is not None:
            seqs = (entry[0] for log in logs for entry in itertools.islice(reversed(log.entries), last + 1))
            newest = heapq.nlargest(last + 1, seqs)
            if len(newest) > last:
                begin = max(begin, newest[last])
        return Start(self.epoch, begin, self._closed(names))

    def find(self, seq: int) -> Message | None:
        """Find an event.

        :param seq: its number.
        :return: its message; ``None`` if it is not there.
        """
        for logs in (self.logs, self._of_runs):
            for log in reversed(logs.values()):
                if log.tail < seq:
                    break
                if log.trimmed < seq and (found := log.after(seq - 1, 1)) and found[0].seq == seq:
                    return found[0]
        return None

    def add_run(self, record: RunRecord, most: int | None, restart: bool) -> tuple[bool, RunRecord | None]:
        """See :class:`ssesync.channels.backend.Backend`."""
        for name in self.runs.expired(_SWEEP):
            self._remove_run(name)
        present = self.runs.get(record.name)
        if present is not None and not (restart and present.state.ended and present.subject == record.subject):
            return False, present
        if record.name in self.logs:
            raise ChannelError(f"{excerpt(record.name)} is a channel already, and so can't be a run")
        if most is not None and self.runs.active(record.subject) >= most:
            return False, None
        if record.name in self._of_runs:
            self._remove_run(record.name)
        self._of_runs[record.name] = ChannelLog(max(self._base, self._run_base), self.seq)
        self.runs.add(record)
        return True, record

    def _remove_run(self, name: str) -> None:
        self._run_base = max(self._run_base, self._of_runs.pop(name).tail)
        self.runs.remove(name)

    def _find(self, names: Collection[str], patterns: Collection[str]) -> tuple[list[ChannelLog], int]:
        """Find channels.

        :return: their logs, without what is too old; and the number up to which they may have had events that are
            not there, as channels were removed.
        """
        now = time.monotonic()
        self._remove_channels(now)
        found = dict.fromkeys(names)
        if patterns:
            fits = compiled(*patterns).fullmatch
            found.update(dict.fromkeys(filter(fits, itertools.chain(self.logs, self._of_runs))))
        logs = [log for name in found if (log := self._log_of(name)) is not None]
        for name in found:
            if name in self.logs:
                self._expire(self.logs[name], now)
        return logs, self._base if patterns or len(logs) < len(found) else 0

    def _log_of(self, name: str) -> ChannelLog | None:
        return self.logs.get(name) or self._of_runs.get(name)

    def _closed(self, names: Iterable[str]) -> dict[str, int]:
        return {name: log.closed for name in names if (log := self._log_of(name)) is not None and log.closed}

    def _expire(self, log: ChannelLog, now: float) -> None:
        max_age = self._limits.max_age
        if max_age is not None:
            while log.entries and log.entries[0][1] < now - max_age:
                _trim(log)

    def _remove_channels(self, now: float) -> None:
        max_age = self._limits.max_age
        while self.logs:
            name, log = next(iter(self.logs.items()))
            too_old = max_age is not None and (not log.entries or log.entries[-1][1] < now - max_age)
            if not too_old and len(self.logs) <= self._limits.max_channels:
                return
            self._base = max(self._base, log.tail)
            del self.logs[name]


def _trim(log: ChannelLog) -> None:
    seq, _, message = log.entries.popleft()
    log.trimmed = seq
    log.size -= len(message)
