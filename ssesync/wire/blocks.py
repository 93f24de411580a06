"""The blocks of an event stream that a relay passes on unchanged: where keep-alives may be inserted, and event IDs."""

from __future__ import annotations

import re

from .decoder import BOM

__all__ = ["Blocks", "sets_id"]

# A line end, and two of them: an event ends there.
_EOL = rb"(?:\r\n|\r(?!\n)|\n)"
_BLANK = re.compile(_EOL + b"{2}")
# Lines that are complete by themselves where a block begins: comments, reconnection times, more blank lines. They take
# effect at once, so they must not wait for the event after them.
_ALONE = re.compile(rb"(?:(?:(?::|retry:)[^\r\n]*)?" + _EOL + b")*")
# A line that sets the client's last event ID.
_ID = re.compile(rb"(?:^|[\r\n])id:([^\r\n]*)")


def sets_id(data: bytes) -> bool | None:
    """Whether a client that was sent these blocks has a last event ID to resume from.

    :param data: whole blocks.
    :return: whether it has; ``None``: they set no ID.
    """
    ids = _ID.findall(data) if b"id:" in data else None
    return ids[-1].removeprefix(b" ") != b"" if ids else None


class Blocks:
    """Finds the offsets in a stream where a keep-alive may be inserted: after a blank line, and after a comment there.

    The bytes of an unfinished block are buffered, and joined once, however many pieces they arrive in.
    """

    __slots__ = ("_alone", "_buffered", "_has_lf", "_started", "size")

    def __init__(self) -> None:
        #: The number of bytes that are buffered.
        self.size = 0
        self._buffered: list[bytes] = []
        self._alone = False  # the buffered bytes may become a line that is complete by itself
        self._started = False
        self._has_lf = False

    @property
    def is_between(self) -> bool:
        """Whether nothing is buffered, and a piece that ends with LF LF and has no CR is passed on as it is."""
        return not self.size and self._has_lf and self._started

    def feed(self, chunk: bytes) -> tuple[bytes, int]:
        """Add the next bytes.

        :param chunk: the bytes.
        :return: the bytes to send now, and how many blocks end in them.
        """
        if not self._started:
            chunk = self._without_bom(chunk)
        self._has_lf = self._has_lf or b"\n" in chunk
        tail = b"".join(self._buffered[-3:])[-3:]
        window = tail + chunk
        end, blocks = self._last_blank(window)
        if not end and self._buffered and not (self._alone and (b"\n" in chunk or b"\r" in chunk)):
            self._buffer(chunk)
            return b"", 0
        data = b"".join([*self._buffered, chunk])
        if end:
            end += len(data) - len(window)
        alone = _ALONE.match(data, end, self._limit(data))
        end = alone.end() if alone is not None else end
        self._buffered.clear()
        self.size = 0
        rest = data[end:]
        self._alone = rest.startswith((b":", b"retry:")) or b"retry:".startswith(rest)
        self._buffer(rest)
        return data[:end], blocks

    def rest(self) -> bytes:
        """The buffered bytes, at the stream's end."""
        return b"".join(self._buffered)

    def _buffer(self, data: bytes) -> None:
        if data:
            self._buffered.append(data)
            self.size += len(data)

    def _last_blank(self, window: bytes) -> tuple[int, int]:
        """The offset after the last blank line, 0 without any, and how many there are."""
        if b"\r" not in window:
            end = window.rfind(b"\n\n") + 2
            return (end, window.count(b"\n\n")) if end > 1 else (0, 0)
        ends = [match.end() for match in _BLANK.finditer(window, 0, self._limit(window))]
        return (ends[-1], len(ends)) if ends else (0, 0)

    def _limit(self, data: bytes) -> int:
        """The offset up to which line ends are certain: in a stream of CR LF, a CR at the end is half of one."""
        return len(data) - (self._has_lf and data.endswith(b"\r"))

    def _without_bom(self, chunk: bytes) -> bytes:
        """Remove a byte order mark: the preamble comes before it, and within a stream it would corrupt the first
        line."""
        head = self.rest() + chunk
        self._buffered.clear()
        self.size = 0
        if len(head) < len(BOM) and BOM.startswith(head):
            self._buffer(head)
            return b""
        self._started = True
        return head[len(BOM) :] if head.startswith(BOM) else head
