"""Pending: the frames that wait for one subscriber, how they are made fewer when there is no room, and what ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import CloseReason
from ..event import Event
from .message import Frame
from .policy import Policy

__all__ = ["End", "Pending", "key_of"]

logger = logging.getLogger("ssesync")


class End(NamedTuple):
    """How a subscriber is to end."""

    reason: CloseReason
    #: What comes after the frames that wait.
    last: bytes
    #: Whether these are dropped.
    discard: bool


class Pending:
    """Frames in the order of their numbers; once they are coalesced, one of each key.

    It has no lock: all methods are called with the inbox's lock held.
    """

    __slots__ = ("_max_bytes", "_max_events", "frames", "keyed", "size")

    def __init__(self, policy: Policy) -> None:
        self._max_events, self._max_bytes = policy.max_pending_events, policy.max_pending_bytes
        #: The frames, while they are not coalesced.
        self.frames: list[Frame] = []
        #: The newest frame of each key, instead of them, since there was no room.
        self.keyed: dict[Any, Frame] | None = None
        #: Bytes of the frames.
        self.size = 0

    def __len__(self) -> int:
        keyed = self.keyed
        return len(self.frames if keyed is None else keyed)

    def all(self) -> list[Frame]:
        """The frames, in order."""
        return self.frames if self.keyed is None else list(self.keyed.values())

    def clear(self) -> None:
        """Drop all of them."""
        self.frames, self.keyed, self.size = [], None, 0

    def keep(self, wanted: Callable[[Frame], bool]) -> None:
        """Drop all others."""
        if self.keyed is None:
            self.frames = [frame for frame in self.frames if wanted(frame)]
        else:
            self.keyed = {key: frame for key, frame in self.keyed.items() if wanted(frame)}
        self.size = sum(map(len, self.all()))

    def has_room(self, frame: Frame, dropped: int = 0) -> bool:
        """Whether one more may wait, when so many are dropped."""
        waiting = len(self.frames if self.keyed is None else self.keyed) - dropped
        return not waiting or (waiting < self._max_events and self.size + len(frame) <= self._max_bytes)

    def add(self, frame: Frame) -> None:
        """Put a frame behind the others. Not while they are coalesced."""
        self.frames.append(frame)
        self.size += len(frame)

    def drop_oldest(self, frame: Frame) -> int:
        """Drop the oldest, until there is room for one more; how many those were."""
        dropped = 0
        while dropped < len(self.frames) and not self.has_room(frame, dropped):
            self.size -= len(self.frames[dropped])
            dropped += 1
        del self.frames[:dropped]
        return dropped

    def to_be_coalesced(self, frame: Frame) -> list[Frame]:
        """The frames whose keys are needed to put this one among them: none, while there is room."""
        if self.keyed is not None:
            return [frame]
        return [] if self.has_room(frame) else [*self.frames, frame]

    def coalesce(self, keys: Mapping[int, Any]) -> int:
        """Keep the newest of each key from now on; how many frames were dropped.

        :param keys: the key of each frame by its number.
        """
        frames, self.frames, self.keyed = self.frames, [], {}
        for frame in frames:
            key = keys[frame.seq]
            self.keyed.pop(key, None)  # the newest last, so that ids ascend
            self.keyed[key] = frame
        self.size = sum(map(len, self.keyed.values()))
        return len(frames) - len(self.keyed)

    def replace(self, frame: Frame, key: Any) -> tuple[bool, int]:
        """Put a frame in the place of the one of the same key, while they are coalesced.

        :return: whether there was room, and how many frames were dropped.
        """
        assert self.keyed is not None
        older = self.keyed.pop(key, None)
        if older is not None:
            self.size -= len(older)
        if not self.has_room(frame):
            return False, int(older is not None)
        self.keyed[key] = frame
        self.size += len(frame)
        return True, int(older is not None)


def key_of(coalesce: Callable[[Event], Any], frame: Frame) -> Any:
    """The key by which a frame is coalesced. The user's function is called here: not with a lock held."""
    try:
        key = coalesce(frame.event)
        hash(key)
    except Exception:
        logger.exception("the function that coalesces events failed")
        key = None
    return frame.seq if key is None else (frame.channel, key)
