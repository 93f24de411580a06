"""Bytes to events, however the bytes are cut (HTML standard, "Server-sent events", "Interpreting an event stream").

The law of this file: a result never depends on where the chunks were cut, and time is linear in the input.

The method: line ends of new bytes are made LF. Everything up to the last blank line is processed at once: a run of
blocks of one data line by one regular expression, the rest by another, which divides it into whole blocks of the usual
shapes and single lines. The lines after the last blank line are processed one by one, and their size is counted. The
unfinished last line is buffered as a list of fragments that is joined once. UTF-8 can be decoded in pieces because a
piece always ends at a line end, and that byte is no part of any longer sequence. For the expressions the bytes are read
as Latin-1, so that only the pieces that are not ASCII cost a decoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Literal, overload

from ..errors import EventTooLarge
from ..event import E, Event, ReceivedEvent, UncheckedEvent

__all__ = ["Decoder"]

BOM = b"\xef\xbb\xbf"
MAX_EVENT_SIZE = 16 * 1024 * 1024
_BUFFERED = (b"data", b"id", b"event")
_KNOWN = (*_BUFFERED, b"retry")
# The name of a line that is not buffered: an unknown field, or a comment that is not returned or too long.
_SKIPPED = b"?"
# A line without a colon within six bytes is no field: the longest names have five.
_NAME_SIZE = 6
# int() refuses more than 4,300 digits; a delay of 10**18 ms is longer than every limit.
_RETRY_DIGITS = 18
# Blocks of one data line, and then, as one more that seems empty, all the rest if it is no such block. So no text is
# searched twice: an expression without the rest would search every line for the next such block.
_SINGLES = re.compile(r"data: (.*)\n\n|(?s:.+)").findall
_SINGLE_OVERHEAD = len("data: \n\n")
# A run of data lines after an id and a type, each optional. The line rules process an empty id, since "" differs from
# none there, and an id with NUL, which must not hide one before it. 64 lines of data bound the stack that the
# repetition needs.
_RUN = r"(?:(?:id: ?([^ \n\0][^\n\0]*)|event: ?([^ \n].*))\n){0,2}data: ?(.*(?:\ndata: .*){0,63})\n"
# With the blank line if it is next: the expression never backtracks over matched text, a character at a time.
_BLOCK = re.compile(_RUN + r"(\n?)").match
# A run with the blank line if it is next, or else one line of any kind. So every text that ends in a blank line is
# divided without a gap and without backtracking: a run that no blank line ends stays pending.
_BLOCKS = re.compile(_RUN + r"(\n?)|(.*\n)").findall
# Regular expressions, split and count step character by character (20 to 55 us for 64 kB), find of one byte does
# not (0.7 us): if no line ends between these two offsets, lines are found one by one.
_SAMPLE_FROM, _SAMPLE_TO = 256, 1024


class Decoder(Generic[E]):
    """An incremental decoder of bytes to events.

    A decoded event is a :class:`ssesync.ReceivedEvent`: ``type`` is ``"message"`` if the stream names none, ``id`` the
    last event ID in force, ``""`` until the stream has set one.

    :param last_event_id: the ID that a resumed stream starts with.
    :param max_event_size: the bytes that one unfinished event may hold: its ``data``, ``id`` and ``event`` lines and
        the line that is still incomplete. 16 MiB by default; may be changed at any time. Comments and unknown fields
        are skipped without being buffered and do not count.
    :param comments: return comments too, in their order among the events, as an :class:`ssesync.Event` that has only
        ``comment`` set, as soon as their line is complete.
    :param retry_on_events: set ``retry`` of each event to the reconnection time that its own block sets. Without it
        ``retry`` is ``None``, and events compare equal whatever reconnection time their blocks set.

    Not thread-safe. After :class:`ssesync.EventTooLarge` the decoder is of no further use.
    """

    @overload  # with comments, some of the events have no data
    def __init__(
        self: Decoder[ReceivedEvent], last_event_id: str | None = None, *, max_event_size: int = ...,
        comments: Literal[False] = False, retry_on_events: bool = False,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Decoder[Event], last_event_id: str | None = None, *, max_event_size: int = ..., comments: bool,
        retry_on_events: bool = False,
    ) -> None: ...  # fmt: skip
    def __init__(
        self,
        last_event_id: str | None = None,
        *,
        max_event_size: int = MAX_EVENT_SIZE,
        comments: bool = False,
        retry_on_events: bool = False,
    ) -> None:
        self.max_event_size = max_event_size
        #: The reconnection time in milliseconds that the stream has set last, ``None`` if it has set none.
        self.retry: int | None = None
        #: The reconnection times that the newest bytes set: each with the number of the events before it, among those
        #: that :meth:`feed` has returned for these bytes (or :class:`ssesync.EventTooLarge` carries), and milliseconds.
        self.retries: list[tuple[int, int]] = []
        #: Whether comments are returned; may be changed at any time, for the lines that begin from then on.
        self.comments = comments
        self._data: list[str] = []
        self._type = ""
        self._retry_on_events = retry_on_events
        self._block_retry: int | None = None  # of the pending block, with retry_on_events
        self._id = self._committed_id = last_event_id or ""
        self._idle = False  # nothing is pending: the next chunk starts a block
        self._started = False
        self._after_cr = False
        self._partial = _PartialLine()
        self._buffered = 0

    @property
    def last_event_id(self) -> str:
        """The last event ID in force after everything that was fed, ``""`` if there is none."""
        return self._committed_id

    def feed(self, chunk: bytes) -> list[E]:
        """Decode the next bytes of the stream.

        :param chunk: the bytes, cut anywhere.
        :return: the events that they complete, often none.
        :raises EventTooLarge: an event passes ``max_event_size``.
        """
        out: list[Any] = []
        if self.retries:
            self.retries = []
        if self._idle and len(chunk) <= _SAMPLE_TO <= self.max_event_size:
            # One event a chunk, as a live stream sends them: two thirds of the time that the general way needs.
            text = chunk.decode("latin-1")
            if "\r" in text and text[-1] != "\r":
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            if text.startswith("data: ") and text.find("\n") == len(text) - 2 and text[-1] == "\n":
                return [_event(_utf8(text[6:-2]), "message", self._id)]
            # Without a line end at the end the match would backtrack over its last line, a character at a time.
            block = _BLOCK(text) if text.endswith("\n\n") else None
            if block is not None and block.end() == len(text):
                new_id, kind, data, blank = block.groups("")
                if blank:
                    if "\n" in data:
                        data = data.replace("\ndata: ", "\n")
                    if not text.isascii():
                        new_id, kind, data = _utf8(new_id), _utf8(kind), _utf8(data)
                    if new_id:
                        self._id = self._committed_id = new_id
                    return [_event(data, kind or "message", self._id)]
        if not self._started:
            chunk = self._without_bom(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        partial = self._partial
        if partial.pieces or partial.name:
            chunk = self._finish_line(chunk, out)
        last = chunk.rfind(b"\n") + 1
        if last:
            # From the last line end backwards: searching for two bytes costs 55 us per 64 kB that hold none.
            end = chunk.rfind(b"\n\n", 0, last) + 2
            if end > 1 and self._buffered + end <= self.max_event_size:
                if end > _SAMPLE_TO and chunk.find(b"\n", _SAMPLE_FROM, _SAMPLE_TO) < 0:
                    self._process(_long_lines(chunk, end), out)
                else:
                    self._decode_complete(chunk if end == len(chunk) else chunk[:end], out)
                self._buffered = 0
            else:
                end = 0
            if end < last:
                for line in chunk[end : last - 1].split(b"\n"):
                    self._process_counted(line, out)
            chunk = chunk[last:]
        if chunk:
            self._buffer_partial(chunk, out)
        self._idle = (
            not (partial.pieces or partial.name or self._after_cr or self._buffered or self._type or self._data)
            and self._block_retry is None
            and self._started
        )
        return out

    def _decode_complete(self, chunk: bytes, out: list[Any]) -> None:
        """Decode bytes that end in a blank line by the standard's rules, the usual blocks in bulk."""
        if self._data or self._type or self._block_retry is not None:
            # The rest of a block that an earlier chunk began.
            end = 1 if chunk.startswith(b"\n") else chunk.find(b"\n\n") + 2
            self._process(chunk[: end - 1].decode("utf-8", "replace").split("\n"), out)
            chunk = chunk[end:]
            if not chunk:
                return
        text = chunk.decode("latin-1")
        singles = _SINGLES(text)
        if not singles[-1]:
            singles.pop()  # the rest, or empty data: _decode_rest decides
        done = sum(map(len, singles)) + len(singles) * _SINGLE_OVERHEAD
        if not text.isascii():
            singles = [data if data.isascii() else _utf8(data) for data in singles]
        event_id = self._committed_id = self._id
        for data in singles:
            event = UncheckedEvent()
            event.data = data
            event.type = "message"
            event.id = event_id
            event.retry = event.comment = None
            event.__class__ = ReceivedEvent  # type: ignore[assignment]
            out.append(event)
        if done < len(text):
            self._decode_rest(text[done:], out)

    def _decode_rest(self, text: str, out: list[Any]) -> None:
        pending = False
        plain = text.isascii()
        event_id = self._id
        for new_id, kind, data, blank, line in _BLOCKS(text):
            if line:
                self._id = event_id
                self._process((_utf8(line[:-1]),), out)
                event_id = self._id
                pending = bool(self._data or self._type) or self._block_retry is not None
                continue
            if "\n" in data:
                data = data.replace("\ndata: ", "\n")
            if not plain:
                if not data.isascii():
                    data = _utf8(data)
                kind = kind and _utf8(kind)
                new_id = new_id and _utf8(new_id)
            if new_id:
                event_id = new_id
            if pending or not blank:
                self._type = kind or self._type
                self._data.append(data)
                pending = True
                if blank:
                    self._id = event_id
                    self._process(("",), out)
                    pending = False
                continue
            event = UncheckedEvent()
            event.data = data
            event.type = kind or "message"
            event.id = event_id
            event.retry = event.comment = None
            event.__class__ = ReceivedEvent  # type: ignore[assignment]
            out.append(event)
        self._id = self._committed_id = event_id

    def _process(self, lines: Iterable[str], out: list[Any]) -> None:
        """Process lines, without their ends, by the standard's field rules."""
        data = self._data
        for line in lines:
            if not line:
                self._committed_id = self._id
                if data:
                    event = _event("\n".join(data), self._type or "message", self._id)
                    if self._block_retry is not None:
                        object.__setattr__(event, "retry", self._block_retry)
                    out.append(event)
                    data.clear()
                self._type = ""
                self._block_retry = None
                continue
            if line.startswith("data: "):
                data.append(line[6:])
                continue
            name, _, value = line.partition(":")
            if value.startswith(" "):
                value = value[1:]
            if name == "data":
                data.append(value)
            elif name == "id":
                if "\0" not in value:
                    self._id = value
            elif name == "event":
                self._type = value
            elif name == "retry":
                if value.isascii() and value.isdigit():
                    digits = value.lstrip("0")
                    self.retry = int(digits or "0") if len(digits) <= _RETRY_DIGITS else 10**_RETRY_DIGITS
                    if self.retries and self.retries[-1][0] == len(out):
                        self.retries.pop()  # it was in force for no event
                    self.retries.append((len(out), self.retry))
                    if self._retry_on_events:
                        self._block_retry = self.retry
            elif not name and self.comments:
                out.append(Event(comment=value))

    def _process_counted(self, line: bytes, out: list[Any]) -> None:
        """Process one line, and check the size of the buffered lines against the limit."""
        if not line:
            self._buffered = 0
        else:
            name = line[:_NAME_SIZE].partition(b":")[0]
            if name in _KNOWN:
                self._check(self._buffered + len(line), out)
                if name in _BUFFERED:
                    self._buffered += len(line)
            elif name or not self.comments or len(line) > self.max_event_size:
                return
        self._process((line.decode("utf-8", "replace"),), out)

    def _buffer_partial(self, piece: bytes, out: list[Any]) -> None:
        line = self._partial
        if line.name is _SKIPPED or not piece:
            return
        line.pieces.append(piece)
        line.size += len(piece)
        if not line.name:
            head = b"".join(line.pieces[:_NAME_SIZE])[:_NAME_SIZE]
            name, colon, _ = head.partition(b":")
            if not colon and len(head) < _NAME_SIZE:
                return
            line.name = name if name in _KNOWN else b":" if not name and self.comments else _SKIPPED
        if line.name in _KNOWN:
            self._check(self._buffered + line.size, out)
        elif line.name is _SKIPPED or line.size > self.max_event_size:
            line.clear(_SKIPPED)

    def _finish_line(self, chunk: bytes, out: list[Any]) -> bytes:
        """End the unfinished line with the chunk's first line. Both may be long, so only the line is joined.

        :return: the rest of the chunk.
        """
        end = chunk.find(b"\n") + 1
        if not end:
            self._buffer_partial(chunk, out)
            return b""
        partial = self._partial
        if partial.name is _SKIPPED:
            partial.name = b""
        else:
            partial.pieces.append(chunk[: end - 1])
            line = b"".join(partial.pieces)
            partial.clear()
            self._process_counted(line, out)
        return chunk[end:]

    def _check(self, size: int, out: list[Any]) -> None:
        if size > self.max_event_size:
            raise EventTooLarge(size, self.max_event_size, out)

    def _without_bom(self, chunk: bytes) -> bytes:
        head = b"".join(self._partial.pieces) + chunk
        self._partial.pieces.clear()
        if len(head) < len(BOM) and BOM.startswith(head):
            self._partial.pieces.append(head)
            return b""
        self._started = True
        return head.removeprefix(BOM)

    def _with_lf(self, chunk: bytes) -> bytes:
        """CR LF and CR become LF. A CR at the end counts at once; an LF right after it is ignored."""
        if not chunk:
            return chunk
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return chunk
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class _PartialLine:
    """The unfinished line at the end of the input."""

    __slots__ = ("name", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.clear()

    def clear(self, name: bytes = b"") -> None:
        self.pieces.clear()
        self.size = 0
        self.name = name  # a known field, b":" a comment to return, _SKIPPED, b"" not known yet


def _long_lines(chunk: bytes, end: int) -> Iterator[str]:
    start = 0
    with memoryview(chunk) as view:
        while start < end:
            stop = chunk.find(b"\n", start)
            yield str(view[start:stop], "utf-8", "replace")
            start = stop + 1


def _event(data: str, type: str, id: str) -> Any:
    # Loops that make events have these lines inline: the call would cost a fifth of the whole event.
    event = UncheckedEvent()
    event.data = data
    event.type = type
    event.id = id
    event.retry = event.comment = None
    event.__class__ = ReceivedEvent  # type: ignore[assignment]
    return event


def _utf8(text: str) -> str:
    """Decode as UTF-8 text that was read as Latin-1."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")
