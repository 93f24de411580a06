"""The states of a served stream, and the requests to end it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..errors import CloseReason
from ..locks import Once

__all__ = ["EndRequest", "Lifecycle", "State"]


class State(enum.Enum):
    """The state of a stream."""

    CREATED = "created"
    """It is not opened yet, and runs no producer."""
    OPEN = "open"
    """It has a source. The server has not taken its first byte."""
    SENDING = "sending"
    """The server sends it."""
    DETACHED = "detached"
    """The server's answer is over. The reactor sends the rest of the stream."""
    ENDED = "ended"
    """It has ended, or another answer was sent in its place."""


# The states that may follow each state.
_TRANSITIONS = {
    State.CREATED: {State.OPEN, State.ENDED},
    State.OPEN: {State.SENDING, State.ENDED},
    State.SENDING: {State.DETACHED, State.ENDED},
    State.DETACHED: set[State](),
    State.ENDED: set[State](),
}


class EndRequest(NamedTuple):
    """A request to end a stream, perhaps before it was opened."""

    reason: CloseReason
    last: bytes | None
    """The bytes to send last; ``None``: none, and pending writes are dropped."""


class Lifecycle:
    """The state of one stream.

    The server's thread advances it. Any thread and any signal handler may end it, and only the first end counts. If the
    server's thread is inside the stream, :meth:`EventStream.close` on another thread leaves the work to it.
    """

    __slots__ = ("_ended", "_requests", "_state", "closing", "inside")

    def __init__(self) -> None:
        self._state = State.CREATED
        self._ended = Once()
        self._requests: list[EndRequest] = []  # the first one counts
        #: Whether the server's thread is inside of the stream.
        self.inside = False
        #: Whether the stream was closed.
        self.closing = False

    @property
    def state(self) -> State:
        """The stream's state."""
        return State.ENDED if self._ended.done else self._state

    @property
    def is_over(self) -> bool:
        """Whether the server's part of the stream is over."""
        return self._ended.done or self._state is State.DETACHED

    def advance(self, state: State) -> None:
        """Change to a state that is not the end. On the server's thread, inside the stream."""
        assert state in _TRANSITIONS[self._state], f"{self._state} does not lead to {state}"
        self._state = state

    def end(self) -> bool:
        """End.

        :return: whether this call ended it, and none before.
        """
        return self._ended()

    @property
    def request(self) -> EndRequest | None:
        """The first request to end the stream, ``None`` if there is none."""
        return self._requests[0] if self._requests else None

    def request_end(self, reason: CloseReason, last: bytes | None) -> None:
        """Note a request to end the stream. The first one counts."""
        if not self._requests:
            self._requests.append(EndRequest(reason, last))
