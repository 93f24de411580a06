"""The part of the Redis broker that is its log."""

from __future__ import annotations

import heapq
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...broker import Broker
from ...entry import CLOSED, Entry, Start
from ...log import Page, merged
from ...message import Message, compiled
from ..acceptance import refusal
from . import scripts
from .append_scripts import APPEND, PUBLISH
from .link import Link

__all__ = ["RedisLog"]


class RedisLog(Broker):
    """Appends to a log in Redis, and reads it. A subclass makes the connection."""

    _prefix: str
    _index_size: int
    _link: Link

    def _run(self, script: str, *args: str | bytes | int, link: Link | None = None) -> Any:
        """Run one of the scripts.

        :param script: its text.
        :param args: its arguments after the prefix.
        :param link: the connection, if it is not the one for all but listening.
        :return: its result.
        :raises BrokerError: it could not be run.
        """
        return (link or self._link).run(script, f"{self._prefix}:meta", [self._prefix, *args])

    @property
    def _max_age(self) -> int:
        return 0 if self.limits.max_age is None else max(1, int(self.limits.max_age * 1_000_000))

    def _append(self, channel: str, body: bytes) -> str:
        epoch, number = self._run(PUBLISH, secrets.token_hex(4), *self._bounds, channel, body)
        if number == b"0":
            raise refusal(channel)
        return f"{epoch.decode()}-{int(number)}"

    @property
    def _bounds(self) -> tuple[int, ...]:
        limits = self.limits
        return limits.max_events, limits.max_bytes, self._max_age, limits.max_channels, self._index_size

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]:
        events = []
        for channel, body, final, number, outcome, owner in entries:
            end = "" if not final else "final" if outcome is None else f"{outcome.state}\n{outcome.reason}"
            events.append((channel, len(body), number, owner, end))
        bodies = b"".join([entry.body for entry in entries])
        epoch, *numbers = self._run(APPEND, secrets.token_hex(4), *self._bounds, int(whole), json.dumps(events), bodies)
        if whole and numbers and int(numbers[0]) == CLOSED:
            raise refusal(numbers[1].decode())
        return epoch.decode(), [int(number) for number in numbers]

    def _head(self) -> tuple[str, int]:
        epoch, head, _, _ = self._run(scripts.SINCE, secrets.token_hex(4), -1, 0)
        return epoch.decode(), int(head)

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """See :class:`Broker`."""
        return self._page(self._link, epoch, after, None, list(channels), list(patterns), limit)

    def _page(
        self, link: Link, epoch: str, after: int, upto: int | None, channels: list[str], patterns: list[str], limit: int
    ) -> Page:
        found, head = self._matching(link, after, channels, patterns)
        # Channels that are made later have their events after this position: the listener delivers those.
        upto = head if upto is None else upto
        count = max(10, limit // max(1, len(found))) + 1
        end = "+" if upto is None else f"{upto}-0"
        answered, head, lost, flat, *pages = self._run(
            scripts.READ, secrets.token_hex(4), epoch, after, end, count, self._max_age, int(bool(patterns)),
            len(channels), *found, link=link,
        )  # fmt: skip
        current, closed = answered.decode(), _closed(flat)
        if lost:
            return Page([], True, lost.decode(), current, int(head), closed)
        # If a channel has more events, the page ends here: later events of other channels may be newer than its next.
        known = min((_seq(entries[-1]) for entries in pages[1::2] if len(entries) == count), default=None)
        messages = [
            [Message.make(current, _seq(entry), name.decode(), entry[1][1], len(entry[1]) > 2) for entry in entries]
            for name, entries in zip(pages[::2], pages[1::2], strict=True)
        ]
        in_order = heapq.merge(*messages, key=lambda message: message.seq)
        page = merged(
            (message for message in in_order if known is None or message.seq <= known), limit, current, int(head)
        )
        return page._replace(complete=page.complete and known is None, closed=closed)

    def _matching(
        self, link: Link, after: int, channels: list[str], patterns: list[str]
    ) -> tuple[list[str], int | None]:
        """Add the channels whose names match and that have events after a number.

        :param link: the connection.
        :param after: the number.
        :param channels: the other channels.
        :param patterns: the patterns.
        :return: ``channels`` and then the others; where there are patterns, the number of the last event in the log.
        """
        if not patterns:
            return channels, None
        _, head, _, names = self._run(scripts.SINCE, secrets.token_hex(4), after, 0, link=link)
        matching = filter(compiled(*patterns).fullmatch, map(bytes.decode, names))
        return list(dict.fromkeys([*channels, *matching])), int(head)

    def start_of(self, channels: Iterable[str], patterns: Iterable[str], last: int | None) -> Start:
        """See :class:`Broker`."""
        named, globs = list(channels), [] if last == 0 else list(patterns)
        found, _ = self._matching(self._link, 0, named, globs)
        epoch, seq, flat = self._run(
            scripts.START, secrets.token_hex(4), -1 if last is None else last, self._max_age, int(bool(globs)),
            len(named), *found,
        )  # fmt: skip
        return Start(epoch.decode(), int(seq), _closed(flat))

    def find(self, epoch: str, seq: int) -> Message | None:
        """See :class:`Broker`."""
        found = self._run(scripts.FIND, secrets.token_hex(4), epoch, seq)
        if not found:
            return None
        name, fields = found
        return Message.make(epoch, seq, name.decode(), fields[1], len(fields) > 2)

    def _has_channel(self, name: str) -> bool:
        return bool(self._run(scripts.HAS, secrets.token_hex(4), name, self._max_age))


def _closed(flat: list[bytes]) -> Mapping[str, int]:
    return {name.decode(): int(seq) for name, seq in zip(flat[::2], flat[1::2], strict=True)}


def _seq(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])
