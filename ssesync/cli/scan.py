"""Scan: counts of a stream's bytes, lines and events, and their times."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import EventTooLarge
from ..event import Event, seems_encoded
from ..wire.decoder import BOM, Decoder

__all__ = ["LARGEST_EVENT", "Burst", "LineScan", "Scan"]

#: The longest event that is read. Doctor reads no more than a few MB, so a longer event is reported as too large.
LARGEST_EVENT = 4 * 1024 * 1024
# Seconds; bytes that arrive within this time of those before them are one burst.
_TOGETHER = 0.05
# Events like these are keep-alives that every client handles as events.
_PINGS = ("ping", "pong", "keepalive", "heartbeat", "hb", "noop")
_MAX_BURSTS = 10_000
# Comments of a burst, types and IDs that are kept.
_MAX_KEPT = 100


@dataclass
class Burst:
    """Bytes that arrived together."""

    #: Seconds from the request to its first byte, and to its last.
    at: float
    end: float
    #: Seconds without a byte before it.
    silence: float
    size: int = 0
    events: int = 0
    comments: list[str] = field(default_factory=list)
    #: Whether its last byte ends an event or a comment; if not, a buffer of a fixed size has cut it.
    whole: bool = True


class Scan:
    """Counts the parts of a stream, from its bytes and their times (seconds since the request)."""

    def __init__(self) -> None:
        #: The counts of its bytes and lines.
        self.lines = LineScan()
        self.bursts: list[Burst] = []
        self.events = 0
        self.comments = 0
        self.types: Counter[str] = Counter()
        #: The first IDs, in their order.
        self.ids: list[str] = []
        self.retry: int | None = None
        self.ping_events: Counter[str] = Counter()
        #: Events whose data is an event that was encoded already.
        self.encoded_twice = 0
        self.too_large = False
        self._decoder = Decoder(max_event_size=LARGEST_EVENT, comments=True)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.lines.size

    def feed(self, at: float, data: bytes) -> None:
        """Add the next bytes.

        :param at: when they arrived.
        :param data: the bytes.
        """
        burst = self._burst(at)
        burst.end = at
        burst.size += len(data)
        self.lines.feed(data)
        burst.whole = not self.lines.in_event
        try:
            found: Sequence[Event] = [] if self.too_large else self._decoder.feed(data)
        except EventTooLarge as error:
            found = error.events
            self.too_large = True
        for event in found:
            self._count(event, burst)
        self.retry = self._decoder.retry

    @property
    def first_byte(self) -> float | None:
        """Seconds from the request to the first byte of the body."""
        return self.bursts[0].at if self.bursts else None

    def silences(self, until: float) -> list[float]:
        """List the spans without a byte, from the first byte to a time.

        :param until: that time.
        :return: seconds each.
        """
        spans = [burst.silence for burst in self.bursts[1:]]
        return [*spans, until - self.bursts[-1].end] if self.bursts else []

    def _burst(self, at: float) -> Burst:
        last = self.bursts[-1] if self.bursts else None
        # After so many bursts, the times of more show no more about the server.
        if last is None or (at - last.end > _TOGETHER and len(self.bursts) < _MAX_BURSTS):
            last = Burst(at, at, at if last is None else at - last.end)
            self.bursts.append(last)
        return last

    def _count(self, event: Event, burst: Burst) -> None:
        if event.data is None:
            self.comments += 1
            if len(burst.comments) < _MAX_KEPT:
                burst.comments.append((event.comment or "")[:100])
            return
        self.events += 1
        burst.events += 1
        if len(self.types) < _MAX_KEPT or event.type in self.types:
            self.types[event.type or "message"] += 1
        if event.id and len(self.ids) < _MAX_KEPT and event.id not in self.ids[-1:]:
            self.ids.append(event.id)
        self.encoded_twice += _is_encoded(event.data)
        name = _ping_name(event.type or "", event.data)
        if name:
            self.ping_events[name] += 1


class LineScan:
    """Counts a stream's bytes and lines, whether or not they make events."""

    def __init__(self) -> None:
        #: The number of bytes.
        self.size = 0
        #: Whether the stream begins with a byte order mark.
        self.bom = False
        #: The offset of the first byte that is not UTF-8.
        self.not_utf8: int | None = None
        self.events_with_id = 0
        #: Comments that a blank line follows although no event came before it.
        self.blank_after_comment = 0
        self.longest_event = 0
        #: Whether the stream is in the middle of an event or a line.
        self.in_event = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._opening = b""
        self._line = b""  # the beginning of the unfinished line
        self._line_size = 0
        self._after_cr = False
        self._block: set[bytes] = set()  # the names of the block's fields
        self._block_size = 0

    def feed(self, data: bytes) -> None:
        """Add the next bytes.

        :param data: the bytes.
        """
        self._check_bytes(data)
        self.size += len(data)
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r") if data else False
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if self._line_size:
                self._end_line((self._line + line)[:8], self._line_size + len(line))
                self._line, self._line_size = b"", 0
            else:
                self._end_line(line[:8], len(line))
        self._line = (self._line + rest)[:8]
        self._line_size += len(rest)
        if self._line and not self._line.startswith(b":"):
            self.longest_event = max(self.longest_event, self._block_size + self._line_size)
        self.in_event = self._line_size > 0 or bool(self._block - {b""})

    def _check_bytes(self, data: bytes) -> None:
        if self.size < len(BOM):
            self._opening = (self._opening + data)[: len(BOM)]
            self.bom = self._opening == BOM
        if self.not_utf8 is None:
            waiting = len(self._utf8.getstate()[0])
            try:
                self._utf8.decode(data)
            except UnicodeDecodeError as error:
                self.not_utf8 = self.size - waiting + error.start

    def _end_line(self, beginning: bytes, size: int) -> None:
        if not size:
            self.events_with_id += b"data" in self._block and b"id" in self._block
            self.blank_after_comment += self._block == {b""}
            self._block.clear()
            self._block_size = 0
            return
        name = beginning.removeprefix(BOM).partition(b":")[0]
        self._block.add(name)
        if name:
            self._block_size += size
            self.longest_event = max(self.longest_event, self._block_size)


def _is_encoded(data: str) -> bool:
    """Whether data seems to be an event, as it is or as a JSON string. The blank line may be missing."""
    if data.startswith('"'):
        try:
            text = json.loads(data)
        except ValueError:
            return False
        return isinstance(text, str) and seems_encoded(text)
    return data.startswith(_ENCODED) and seems_encoded(data, whole=False)


_ENCODED = ("data:", "event:", "id:", "retry:", ":")


def _ping_name(kind: str, data: str) -> str:
    """Describe an event that seems to be a keep-alive; ``""`` if it does not."""
    plain = kind.lower().replace("-", "").replace("_", "")
    if plain in _PINGS:
        return f"event: {kind}"
    if kind in ("", "message"):
        if not data:
            return "data: (empty)"
        if len(data) < 20 and data.lower().replace("-", "").replace("_", "") in _PINGS:
            return f"data: {data}"
    return ""
