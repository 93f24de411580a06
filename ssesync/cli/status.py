"""The status line at the bottom of the terminal."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ..client.source import EventSource
from .text import bytes_text, duration_text, escape, plural

__all__ = ["Status"]

# Over so many seconds the rate is taken.
_WINDOW = 10.0
_STEP = 0.2
_STATES = {
    "connecting": ("○ connecting", "yellow"),
    "open": ("● open", "green"),
    "waiting": ("◌ waiting", "yellow"),
    "closed": ("○ closed", "dim"),
}


class Status:
    """What has come so far, and how the stream is. Drawn by rich, several times a second, on a thread of its own."""

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
        """Tell of this source's state and last event ID."""
        self._source = source

    def waiting(self, seconds: float) -> None:
        """The connection is lost; there will be another one after so many seconds."""
        self._again_at = time.monotonic() + seconds

    def rate(self) -> float:
        """Events per second of late."""
        now = time.monotonic()
        recent = self._recent
        if now - recent[-1][0] >= _STEP:
            recent.append((now, self.events))
        while len(recent) > 2 and now - recent[1][0] >= _WINDOW:
            recent.popleft()
        span = now - recent[0][0]
        return (self.events - recent[0][1]) / max(span, 1.0)

    def summary(self) -> str:
        """What has come, in words."""
        parts = [plural(self.events, "event")]
        if self.comments:
            parts.append(plural(self.comments, "comment"))
        return ", ".join([*parts, f"{bytes_text(self.size)} of data in {duration_text(self.age)}"])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the line, cut to the width of the terminal."""
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
        parts.append(_clock(self.age))
        for part in parts:
            line.append(" │ ", "dim")
            line.append(part)
        line.truncate(options.max_width, overflow="ellipsis")
        yield line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
