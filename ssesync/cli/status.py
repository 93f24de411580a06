"""The status line at the bottom of the terminal."""

from __future__ import annotations

import datetime
import time
from collections import deque

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ..client.source import EventSource
from .text import bytes_text, duration_text, escape, plural

__all__ = ["Status"]

# Seconds over which the rate is measured, and between two of its samples.
_WINDOW = 10.0
_STEP = 0.2
_STATES = {
    "connecting": ("○ connecting", "yellow"),
    "open": ("● open", "green"),
    "waiting": ("◌ waiting", "yellow"),
    "closed": ("○ closed", "dim"),
}


class Status:
    """Counts of events and comments, and the state of the stream. rich draws it several times a second, on its own
    thread."""

    def __init__(self) -> None:
        self.events = 0
        self.comments = 0
        self.size = 0
        self._again_at = 0.0
        self._started = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._source: EventSource | None = None

    @property
    def age(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self._started

    def follow(self, source: EventSource) -> None:
        """Show the state and the last event ID of a source.

        :param source: the source.
        """
        self._source = source

    def waiting(self, seconds: float) -> None:
        """Count down the time until the next connection.

        :param seconds: until then.
        """
        self._again_at = time.monotonic() + seconds

    def rate(self) -> float:
        """Measure the rate.

        :return: events per second, over the last ten seconds.
        """
        now = time.monotonic()
        recent = self._recent
        if now - recent[-1][0] >= _STEP:
            recent.append((now, self.events))
        while len(recent) > 2 and now - recent[1][0] >= _WINDOW:
            recent.popleft()
        span = now - recent[0][0]
        return (self.events - recent[0][1]) / max(span, 1.0)

    def summary(self) -> str:
        """Format the counts, for the end of the command.

        :return: the counts.
        """
        parts = [plural(self.events, "event")]
        if self.comments:
            parts.append(plural(self.comments, "comment"))
        return ", ".join([*parts, f"{bytes_text(self.size)} of data in {duration_text(self.age)}"])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the line, cut to the width of the terminal."""
        state = "connecting" if self._source is None else self._source.state
        last_event_id = "" if self._source is None else self._source.last_event_id
        word, style = _STATES[state]
        line = Text(no_wrap=True, overflow="ellipsis", end="")
        line.append(word, style)
        if state == "waiting":
            line.append(f" {max(0.0, self._again_at - time.monotonic()):.1f} s", style)
        rate = self.rate()
        parts = [
            plural(self.events, "event"),
            f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s",
            bytes_text(self.size),
        ]
        if last_event_id:
            parts.append(f"last id {escape(last_event_id)}")
        parts.append(str(datetime.timedelta(seconds=int(self.age))))
        for part in parts:
            line.append(" │ ", "dim")
            line.append(part)
        line.truncate(options.max_width, overflow="ellipsis")
        yield line
