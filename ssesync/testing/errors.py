"""The errors of the test kit."""

from __future__ import annotations

from ..errors import SSEError

__all__ = ["EndOfStream", "ScriptError", "WaitTimeout"]


class WaitTimeout(SSEError, TimeoutError):
    """What a test waits for did not come in time. The message says what had arrived."""


class EndOfStream(SSEError, EOFError):
    """A test waits for an event, but the stream is over. The message says what had arrived."""


class ScriptError(SSEError):
    """The script of a :class:`FakeSSEServer` can't be played, or the client did something unexpected."""
