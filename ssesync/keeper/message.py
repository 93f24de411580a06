"""One message between two processes: its limits, its parts, and its descriptors.

A message is the sizes of its head and of its blob (two numbers of four bytes, the highest byte first), the head (a JSON
object whose ``op`` names the kind of the message) and the blob (any bytes). Descriptors go with the first byte, and
the head's ``fds`` is their number.

The law of this file: a descriptor that arrives belongs to its :class:`Frame` until it is claimed. Whatever fails, it is
closed with the frame.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import excerpt

__all__ = [
    "MAX_BLOB",
    "MAX_DESCRIPTORS",
    "MAX_HEAD",
    "DescriptorsLost",
    "Frame",
    "Incoming",
    "LinkError",
    "LinkLost",
    "LinkTimeout",
    "MessageTooLarge",
    "close_all",
    "encode",
]

#: The limits of a message: bytes of its head and of its blob, and descriptors (the kernel's own limit, ``SCM_MAX_FD``).
MAX_HEAD, MAX_BLOB, MAX_DESCRIPTORS = 1024 * 1024, 8 * 1024 * 1024, 253

_SIZES = struct.Struct("!II")


class LinkLost(OSError):
    """The link is closed or broken: no further message can be sent."""


class LinkTimeout(LinkLost, TimeoutError):
    """The other process has not sent, or not received, a message in time. A receiver may wait once more."""


class LinkError(ValueError):
    """The other process has sent something that is no message, or exceeds a limit. The link can only be closed."""


class MessageTooLarge(LinkError):
    """A message exceeds a limit. Nothing was sent, and the link can be used further."""


class DescriptorsLost(LinkError):
    """A whole message came without all of its descriptors: this process has too few free ones (``MSG_CTRUNC``). They
    are closed; the sender still has its own. The link can be used further.

    ``head`` is the message's, ``arrived`` the number of the descriptors that could be received.
    """

    def __init__(self, head: dict[str, Any], arrived: int, count: int) -> None:
        super().__init__(
            f"only {arrived} of {count} descriptors could be received: this process has reached its limit of open files"
        )
        self.head = head
        self.arrived = arrived


class Frame:
    """A message that has arrived. One thread at a time."""

    __slots__ = ("_fds", "blob", "head")

    def __init__(self, head: dict[str, Any], blob: bytes, fds: list[int]) -> None:
        self.head = head
        self.blob = blob
        self._fds = fds

    @property
    def op(self) -> str:
        """The kind of the message."""
        return str(self.head["op"])

    @property
    def fds(self) -> tuple[int, ...]:
        """Its descriptors, in the sender's order, until they are claimed. They are not inherited by programs that this
        process starts. They may be blocking or not: that is common to all processes that have them."""
        return tuple(self._fds)

    def claim(self) -> list[int]:
        """Take the descriptors: from now on the caller has to close them.

        :return: the descriptors.
        """
        fds, self._fds = self._fds, []
        return fds

    def close(self) -> None:
        """Close the descriptors that were not claimed. Any number of times; the garbage collector calls it too."""
        close_all(self._fds)

    def __enter__(self) -> Frame:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Incoming:
    """A message that has begun to arrive, or has not."""

    __slots__ = ("began", "data", "fds", "is_truncated", "sizes")

    def __init__(self) -> None:
        self.data = bytearray()
        self.fds: list[int] = []
        self.is_truncated = False
        self.sizes: tuple[int, int] | None = None
        self.began = 0.0  # on the monotonic clock; 0 before its first byte

    @property
    def missing(self) -> int:
        """Bytes that have to arrive, as far as their number is known."""
        return _SIZES.size + sum(self.sizes or ()) - len(self.data)

    def add(self, data: bytes) -> None:
        """Add bytes.

        :raises LinkError: the message is too large.
        """
        self.began = self.began or time.monotonic()
        self.data += data
        if self.sizes is None and not self.missing:
            head, blob = self.sizes = _SIZES.unpack(self.data)
            if not 2 <= head <= MAX_HEAD or blob > MAX_BLOB:
                raise LinkError(f"a message can't have a head of {head:,} bytes and a blob of {blob:,}")

    def frame(self) -> Frame:
        """Make the frame of a message that has arrived.

        :raises LinkError: it can't be parsed, or has other descriptors than announced.
        """
        assert self.sizes is not None
        start = _SIZES.size
        head = _parsed(self.data[start : start + self.sizes[0]])
        count = head.pop("fds", 0)
        if type(count) is not int or not 0 <= count <= MAX_DESCRIPTORS:
            raise LinkError(f"a message can't have {excerpt(count)} descriptors")
        if self.is_truncated and len(self.fds) < count:
            raise DescriptorsLost(head, len(self.fds), count)
        if len(self.fds) != count:
            raise LinkError(f"a message came with {len(self.fds)} descriptors, and announced {count}")
        fds, self.fds = self.fds, []
        return Frame(head, bytes(memoryview(self.data)[start + self.sizes[0] :]), fds)

    def close(self) -> None:
        """Close the descriptors that have arrived."""
        close_all(self.fds)

    def __del__(self) -> None:
        self.close()


def encode(head: Mapping[str, Any], blob: bytes, fds: Sequence[int]) -> bytes:
    """Encode a message.

    :param head: values for JSON, with ``op``, and without ``fds``, which is set here.
    :param blob: bytes.
    :param fds: the descriptors that go with it.
    :return: the bytes.
    :raises MessageTooLarge: it exceeds a limit.
    """
    text = json.dumps({**head, "fds": len(fds)} if fds else head, separators=(",", ":")).encode()
    if len(text) > MAX_HEAD or len(blob) > MAX_BLOB or len(fds) > MAX_DESCRIPTORS:
        raise MessageTooLarge(
            f"a message of {len(text):,} and {len(blob):,} bytes with {len(fds)} descriptors exceeds a limit"
        )
    return _SIZES.pack(len(text), len(blob)) + text + blob


def _parsed(text: bytearray) -> dict[str, Any]:
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LinkError(f"a message's head is no JSON: {excerpt(bytes(text[:200]))}") from error
    if not isinstance(head, dict) or not isinstance(head.get("op"), str):
        raise LinkError(f"a message's head has no 'op': {excerpt(head)}")
    return head


def close_all(fds: list[int]) -> None:
    """Close descriptors, and empty their list. Each is closed once, whichever threads call this.

    :param fds: the descriptors.
    """
    while fds:
        with contextlib.suppress(OSError):
            os.close(fds.pop())
