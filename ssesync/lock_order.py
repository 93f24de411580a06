"""The names of all locks, and the order in which a thread may take them; see ``locks.py``."""

from __future__ import annotations

__all__ = ["OF_GARBAGE", "ORDER", "VARIABLE"]

#: The environment variable that turns the check on: the file to which violations are appended.
VARIABLE = "SSESYNC_LOCK_CHECK"

#: The names of all locks, in the order in which a thread may take them: outermost first.
ORDER = (
    # cli, testing
    "cli.probe",
    "testing.stream",
    "testing.clock",
    # client
    "client.attempt",
    "client.body",
    # channels
    "channels.broker",
    "channels.connection",
    "channels.dispatcher",
    "channels.subscriber",
    "channels.runs",
    # server
    "server.streams",
    "server.producers",
    "server.takeover",
    "server.liveness",
    "reactor",
    "server.mailbox",
)

#: The locks that belong to one object and to nothing that outlives it. The garbage collector may run at any moment, and
#: a destructor may take these whichever lock the thread holds: no other thread has a reference to the object any more.
OF_GARBAGE = frozenset(("client.attempt", "client.body", "server.liveness", "server.mailbox", "testing.stream"))
