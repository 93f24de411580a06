"""Finding: the result of one of doctor's checks; and the examination on which the checks are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from .probe import Answer, Probe
from .scan import Scan

__all__ = ["Check", "Examination", "Finding", "Level", "advice", "ok", "problem", "unknown"]

Level = Literal["ok", "advice", "problem", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The level of a finding, the observation, and the remedy."""

    level: Level
    seen: str
    remedy: str = ""


#: No change is needed.
ok = partial(Finding, "ok")
#: The stream works, and could work better.
advice = partial(Finding, "advice")
#: The stream does not work, or not for every client.
problem = partial(Finding, "problem")
#: The check had too little data to decide; the remedy names the way to get more.
unknown = partial(Finding, "unknown")


@dataclass
class Examination:
    """The results of the probes. ``browser`` sent a browser's request, and got an event stream."""

    browser: Probe
    answer: Answer
    #: A request that accepts no compression, while the first probe was still open.
    identity: Probe | None
    #: A request to resume after the first event ID, which is ``resumed_from``.
    resume: Probe | None
    resumed_from: str
    head: Probe | None
    http2: bool | None
    #: When the watch ended, in seconds from the browser's request.
    watched: float
    #: Seconds in which a request that accepts compression had no answer, if it had none. ``browser`` is then a request
    #: that does not accept it, and ``identity`` is ``None``.
    held_back: float | None = None
    #: Why the answer to a request that accepts compression can't be decoded here, if so. ``browser`` is then a request
    #: that does not accept it.
    unreadable: Exception | None = None

    @property
    def judged(self) -> Probe:
        """The probe whose scan the checks of the body judge."""
        other = self.identity
        return other if other and other.scan.events and not self.browser.scan.events else self.browser

    @property
    def scan(self) -> Scan:
        """The scan of that probe."""
        return self.judged.scan

    @property
    def encoding(self) -> str:
        """The content coding of the browser's answer, ``""`` if it was not compressed."""
        encoding = self.answer.get("Content-Encoding").lower()
        return "" if encoding == "identity" else encoding


#: A check returns ``None`` if it does not apply.
Check = Callable[[Examination], "Finding | None"]
