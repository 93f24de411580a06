"""Subscribers without a broker: the test gives what they read from the log."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ssesync.channels.log import Page
from ssesync.channels.message import Message
from ssesync.channels.policy import Policy
from ssesync.channels.subscriber import Subscriber


class ScriptedLog:
    """A log that gives one page after the other. ``during`` is called while one is read."""

    def __init__(self, *pages: Page | Exception, during: Callable[[], object] = lambda: None) -> None:
        self.pages = deque(pages)
        self.during = during
        self.reads: list[tuple[str, int]] = []
        self.counters: Counter[str] = Counter()

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        self.reads.append((epoch, after))
        self.during()
        page = self.pages.popleft()
        if isinstance(page, Exception):
            raise page
        return page

    def is_run(self, channels: Collection[str], patterns: Collection[str]) -> bool:
        return False

    def count(self, name: str, by: int) -> None:
        self.counters[name] += by


def message(seq: int, text: str = "x", epoch: str = "e") -> Message:
    return Message.make(epoch, seq, "a", f"data: {text}\n\n".encode())


def page(*seqs: int, complete: bool = True, epoch: str = "e") -> Page:
    return Page([message(seq, epoch=epoch) for seq in seqs], complete, "", epoch, max(seqs, default=0))


def live(log: ScriptedLog | None = None, kind: type[Subscriber] = Subscriber, **policy: Any) -> Subscriber:
    """One that follows from the beginning of the log."""
    subscriber = kind(log or ScriptedLog(), Policy(**policy))
    subscriber.start("e", 0, from_log=False)
    return subscriber


def offer(subscriber: Subscriber, *seqs: int) -> bool:
    """Offer messages one by one, as they are published. Whether the last was taken."""
    return [subscriber.offer([message(seq)]) is None for seq in seqs][-1]


def seqs_of(items: object) -> list[int]:
    """The numbers of messages that were polled or read."""
    assert isinstance(items, list)
    return [item.seq for item in items if isinstance(item, Message)]
