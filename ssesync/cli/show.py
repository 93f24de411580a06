"""The formats of events: text, on a terminal or not, and JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.highlighter import JSONHighlighter
from rich.text import Text

from ..event import Event
from .text import escape, escape_json, json_lines

__all__ = ["Arrived", "Columns", "json_line"]

# The columns before the data: a longer type or id moves the data of its own line only.
_WIDEST = {"type": 16, "id": 12}
_MARGIN = 4
# A line of more characters is not laid out, which would take too long.
_LONGEST_LAYOUT = 20_000
_TIME, _TYPE, _PLAIN_TYPE, _ID, _DATA, _COMMENT, _RETRY = "dim", "bold magenta", "magenta", "yellow", "", "dim", "cyan"
_highlight = JSONHighlighter().highlight


@dataclass(frozen=True)
class Arrived:
    """An event or a comment, and when it arrived."""

    event: Event
    #: Seconds since 1970, since the start of the command, and since the event before.
    at: float
    since_start: float
    since_last: float
    #: The reconnection time that is to be shown with it.
    retry: int | None = None


def json_line(arrived: Arrived, *, timing: bool, decode: bool = False) -> str:
    """Format an event as one line of JSON.

    :param arrived: the event.
    :param timing: add the times.
    :param decode: data that is JSON is a value, and not text.
    :return: the line.
    """
    event = arrived.event
    fields: dict[str, Any] = {}
    if event.data is None:
        fields["comment"] = event.comment or ""
    else:
        fields["type"] = event.type or "message"
        fields["data"] = _decoded(event.data) if decode else event.data
        if event.id:
            fields["id"] = event.id
    if arrived.retry is not None:
        fields["retry"] = arrived.retry
    if timing:
        fields["time"] = round(arrived.at, 6)
        fields["since_start"] = round(arrived.since_start, 6)
        fields["since_last"] = round(arrived.since_last, 6)
    return escape_json(json.dumps(fields, ensure_ascii=False)) + "\n"


def _decoded(data: str) -> Any:
    """The value of data that is JSON, unless it could not be written as JSON again."""
    try:
        value = json.loads(data)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return data
    return value


class Columns:
    """Lays events out: time, type and id in columns, then the data; on lines of its own if it is long or has several
    lines."""

    def __init__(self, *, timing: bool) -> None:
        self._timing = timing
        self._widths = {"type": 0, "id": 0}

    def plain(self, arrived: Arrived) -> str:
        """Format an event for a pipe or a file.

        :param arrived: the event.
        :return: its lines, without colours and with control characters escaped.
        """
        head, data = self._parts(arrived)
        text = "".join(part for part, _ in head)
        lines = data.split("\n")
        if len(lines) == 1:
            return f"{text}{escape(data)}".rstrip() + "\n"
        return "".join(f"{line}\n" for line in (text.rstrip(), *(" " * _MARGIN + escape(line) for line in lines)))

    def drawn(self, arrived: Arrived) -> Drawn:
        """Format an event for a terminal.

        :param arrived: the event.
        :return: an object that rich draws.
        """
        head, data = self._parts(arrived)
        return Drawn(head, data, _COMMENT if arrived.event.data is None else _DATA)

    def _parts(self, arrived: Arrived) -> tuple[list[tuple[str, str]], str]:
        event = arrived.event
        head = [(self._when(arrived), _TIME), ("  ", "")]
        if event.data is None:
            return [*head, (": ", _COMMENT)], event.comment or ""
        kind = escape(event.type or "message")
        head += self._column("type", kind, _PLAIN_TYPE if kind == "message" else _TYPE)
        if event.id or self._widths["id"]:
            head += self._column("id", f"#{escape(event.id)}" if event.id else "", _ID)
        if arrived.retry is not None:
            head += [(f"retry {arrived.retry} ms", _RETRY), ("  ", "")]
        return head, event.data

    def _column(self, name: str, text: str, style: str) -> Iterator[tuple[str, str]]:
        size = cell_len(text)
        width = self._widths[name] = max(self._widths[name], min(size, _WIDEST[name]))
        yield text, style
        yield " " * (max(width - size, 0) + 2), ""

    def _when(self, arrived: Arrived) -> str:
        if self._timing:
            return f"{arrived.since_start:9.3f} s {arrived.since_last:+8.3f} s"
        fraction = f"{arrived.at % 1:.3f}"[1:] if arrived.at % 1 < 0.9995 else ".999"
        return time.strftime("%H:%M:%S", time.localtime(arrived.at)) + fraction


class Drawn:
    """An event for rich to draw, in as many columns as there are."""

    def __init__(self, head: list[tuple[str, str]], data: str, style: str) -> None:
        self._head = head
        self._data = data
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the lines."""
        width = options.max_width
        head = Text.assemble(*self._head, no_wrap=True, overflow="ignore")
        data = self._data
        if "\n" not in data and len(data) <= width:
            text = self._line(data, as_json=data[:1] in ("{", "["))
            if head.cell_len + text.cell_len <= width:
                head.append_text(text)
                yield head
                return
        head.rstrip()
        yield head
        inner = width - _MARGIN
        laid_out = json_lines(data, inner) if len(data) <= _LONGEST_LAYOUT else None
        for line in laid_out or data.split("\n"):
            text = self._line(line, as_json=laid_out is not None)
            for piece in _folded(text, inner, console, words=laid_out is None):
                piece.rstrip()
                yield Text.assemble(" " * _MARGIN, piece, no_wrap=True, overflow="ignore")

    def _line(self, line: str, *, as_json: bool) -> Text:
        text = Text(escape(line).replace("\t", "    "), self._style, no_wrap=True, overflow="ignore")
        if as_json:
            _highlight(text)
        return text


def _folded(text: Text, width: int, console: Console, *, words: bool) -> Iterable[Text]:
    """Cut the text into lines of that width, between words, or anywhere and with all but the first indented by two."""
    size = text.cell_len
    if size <= width or size > _LONGEST_LAYOUT:
        return [text]
    if words:
        return text.wrap(console, width, overflow="fold", no_wrap=False)
    indent = len(text.plain) - len(text.plain.lstrip()) + 2
    first, *rest = chop_cells(text.plain, width)
    cuts = list(accumulate(map(len, [first, *chop_cells("".join(rest), max(width - indent, 8))])))
    first_line, *lines = text.divide(cuts[:-1])
    return [first_line, *(Text.assemble(" " * indent, line) for line in lines)]
