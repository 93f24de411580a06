"""The errors of the test kit."""

from __future__ import annotations

from ..errors import SSEError

__all__ = ["EndOfStream", "ScriptError", "WaitTimeout"]


class WaitTimeout(SSEError, TimeoutError):
    """A wait of a test has timed out. The message lists the events that had arrived."""


class EndOfStream(SSEError, EOFError):
    """A test waits for an event, but the stream is over. The message lists the events that had arrived."""


class ScriptError(SSEError):
    """The script of a :class:`FakeSSEServer` can't be carried out, or the client did something unexpected."""
