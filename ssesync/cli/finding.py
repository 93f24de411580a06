"""Finding: the result of one of doctor's checks; and the examination on which the checks are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .probe import Answer, Probe
from .scan import Scan

__all__ = ["Check", "Examination", "Finding", "Level", "advice", "ok", "problem", "unknown"]

#: ``unknown``: it could not be found out this time.
Level = Literal["ok", "advice", "problem", "unknown"]


@dataclass(frozen=True)
class Finding:
    """What was checked, the verdict, what was seen, and what to change."""

    check: str
    level: Level
    seen: str
    remedy: str = ""


@dataclass
class Examination:
    """Everything that the probes saw. ``browser`` sent a browser's request, and got an event stream."""

    browser: Probe
    answer: Answer
    #: Asked for no compression, while the first one was still open.
    identity: Probe | None
    #: Asked to go on behind the first event ID seen, which is ``resumed_from``.
    resume: Probe | None
    resumed_from: str
    head: Probe | None
    http2: bool | None
    #: When the watch ended, in seconds from the browser's request.
    watched: float
    #: Seconds in which a request that accepts compression had no answer, if it had none: then ``browser`` is one that
    #: does not, and ``identity`` is not there.
    held_back: float | None = None
    #: Why the answer to a request that accepts compression can't be decoded here, if so: then ``browser`` is one that
    #: does not accept it.
    unreadable: Exception | None = None

    @property
    def scan(self) -> Scan:
        """The scan on which the checks of the body are made."""
        browser, identity = self.browser.scan, self.identity and self.identity.scan
        return identity if identity and identity.events and not browser.events else browser

    @property
    def judged(self) -> Probe:
        """The probe whose scan that is."""
        return self.identity if self.identity and self.scan is self.identity.scan else self.browser

    @property
    def encoding(self) -> str:
        """How the browser's answer was compressed, ``""`` if it was not."""
        encoding = self.answer.get("Content-Encoding").lower()
        return "" if encoding == "identity" else encoding


#: ``None``: there is nothing to say.
Check = Callable[[Examination], "Finding | None"]


def ok(check: str, seen: str) -> Finding:
    """Nothing to change."""
    return Finding(check, "ok", seen)


def advice(check: str, seen: str, remedy: str) -> Finding:
    """Works, and could work better."""
    return Finding(check, "advice", seen, remedy)


def problem(check: str, seen: str, remedy: str) -> Finding:
    """Does not work, or not for every client."""
    return Finding(check, "problem", seen, remedy)


def unknown(check: str, seen: str, remedy: str = "") -> Finding:
    """Could not be found out this time; the remedy says how to."""
    return Finding(check, "unknown", seen, remedy)
