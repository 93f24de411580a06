"""Detached clients that get what no other client gets. Each has a :class:`Filler` of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from ..errors import CloseReason
from ..wire.encoder import KEEP_ALIVE
from .accounting import NOTHING
from .state import RUNNING, TRANSITIONS, State

if TYPE_CHECKING:
    from .connection import Connection
    from .connections import Connections

__all__ = ["Filler", "SingleClients"]


class Filler(Protocol):
    """What fills the connection of one client, whose ``registration`` it is. But for the two properties, on the
    reactor's thread; nothing may wait.

    It gives nothing while the connection waits for its client (``waits``): that is the back-pressure.
    """

    @property
    def resumable(self) -> bool:
        """Whether the client was given an event ID to come back with. Any thread."""

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes are there that were not given. Any thread."""

    def begin(self) -> None:
        """The head is sent, or waits for the client: give from now on."""

    def drained(self) -> None:
        """The client has taken all that it was given."""

    def take_rest(self) -> tuple[bytes, int]:
        """The client is about to end, and nothing more is taken.

        :return: what it is to get before that, and how many events it is.
        """

    def left(self) -> None:
        """The client is closed: release what is held."""

    def tick(self, now: float) -> None:
        """Called twice a second, before the end of the client."""


class SingleClients:
    """The clients of this process that have a filler each, as the :class:`Group` of all of them."""

    #: Each client counts for itself.
    totals = NOTHING
    last_write = 0.0

    def __init__(self) -> None:
        self._members: dict[Connection, None] = {}  # all that are registered

    def __len__(self) -> int:
        return len(self._members)

    def serve(self, connections: Connections, connection: Connection, head: bytes) -> None:
        """Serve a client from now on. On the reactor's thread.

        :param connection: its group is this, and its ``registration`` the filler.
        :param head: what it gets first.
        """
        connections.register(connection, head)
        if connection.state is State.OPENING:
            self.move(connection, State.IN_SYNC if connection.unsent is None else State.DRAINING)
            _filler(connection).begin()

    def give(self, connection: Connection, data: bytes, events: int, keep_alives: int = 0) -> bool:
        """Send a client what its filler has for it.

        :return: whether the client has taken all of it; if not, nothing more is to be given until ``drained``.
        """
        taken = connection.give(data, events, keep_alives)
        if not taken:
            self.wait(connection)
        return taken

    def wait(self, connection: Connection) -> None:
        """A client has not taken all that it was sent."""
        if connection.state is State.IN_SYNC:
            self.move(connection, State.DRAINING)

    # As the connections' group.

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """See :class:`Group`."""
        return _filler(connection).pending

    def is_resumable(self, connection: Connection) -> bool:
        """See :class:`Group`."""
        return _filler(connection).resumable

    def move(self, connection: Connection, state: State) -> None:
        """See :class:`Group`.

        :raises RuntimeError: this state can't follow the one that the client is in.
        """
        before = connection.state
        if state not in TRANSITIONS[before]:
            raise RuntimeError(f"a detached connection can't go from {before.value!r} to {state.value!r}")
        connection.state = state
        if state is State.OPENING:
            self._members[connection] = None
        elif state is State.CLOSED:
            self._members.pop(connection, None)

    def drained(self, connection: Connection) -> None:
        """See :class:`Group`."""
        if connection.state is State.DRAINING:
            self.move(connection, State.IN_SYNC)
            _filler(connection).drained()

    def progressed(self, connection: Connection) -> None:
        """See :class:`Group`."""

    def take_rest(self, connection: Connection) -> tuple[bytes, int]:
        """See :class:`Group`."""
        return _filler(connection).take_rest()

    def left(self, connection: Connection) -> None:
        """See :class:`Group`."""
        _filler(connection).left()

    def tick(self, now: float) -> None:
        """Cut off clients that have stalled, send keep-alives."""
        for connection in list(self._members):
            if connection.unsent is not None:
                if connection.unsent.has_stalled(now):
                    connection.abort(CloseReason.STALLED)
                    continue
            elif connection.state in RUNNING:
                # Not into the middle of what waits: and a client that takes that needs none.
                keep_alive = connection.settings.keep_alive
                if keep_alive is not None and connection.sent.last + keep_alive <= now:
                    self.give(connection, KEEP_ALIVE, 0, 1)
            if not connection.closed:
                _filler(connection).tick(now)


def _filler(connection: Connection) -> Filler:
    return cast(Filler, connection.registration)
