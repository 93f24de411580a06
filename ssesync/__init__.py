"""Server-Sent Events for synchronous Python.

Importing this package loads only the standard library. Names that need ``requests`` are imported at their first use.

.. PYTEST_DONT_REWRITE
"""

# PYTEST_DONT_REWRITE is for pytest, which loads the fixtures. Without it, a process that imports this package before it
# runs pytest, such as a Django test runner, is warned that assertions can't be rewritten. There are none.
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import wire
from .cancel import CancelToken
from .detached.detacher import SocketDetacher
from .detached.holder import register_holders
from .errors import (
    BrokerBusy,
    BrokerClosed,
    BrokerDamaged,
    BrokerError,
    BrokerUnavailable,
    ChannelClosed,
    ChannelError,
    CloseReason,
    ConnectFailed,
    ConnectionLost,
    ContentEncodingError,
    ContentTypeError,
    EventError,
    EventTooLarge,
    IdleTimeout,
    IncompleteStream,
    ReadError,
    ResponseError,
    RetriesExhausted,
    RunConflict,
    RunRefused,
    RunUnknown,
    SettingsError,
    SSEError,
    StatusError,
    StreamClosed,
    StreamEnded,
    TicketRefused,
    UnknownOption,
)
from .event import Event, ReceivedEvent
from .json_encoder import json_default, register_encoder
from .keeper.configuration import find_holder
from .server.detaching import register_detacher
from .server.event_loop import end_at_exit
from .server.registry import streams
from .server.shutdown import drain, drain_on_signal
from .server.stats import StreamStats
from .server.stream import EventStream
from .server.writer import Writer
from .settings import Settings
from .wire import add_accept_mime, get_last_event_id, set_last_event_id

if TYPE_CHECKING:
    from .channels.broker import Broker
    from .channels.feed import ChannelFeed
    from .channels.opening import open_broker
    from .channels.runs.record import RunState
    from .channels.runs.run import Run
    from .channels.subscription import Subscription
    from .channels.tickets import Ticket, Tickets
    from .client.reader import Reader
    from .client.relay import Relay, relay_request
    from .client.source import EventSource
    from .retry import Backoff
    from .server.asynchronous import from_async

register_detacher(SocketDetacher())
end_at_exit()
register_holders(find_holder)

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Broker",
    "BrokerBusy",
    "BrokerClosed",
    "BrokerDamaged",
    "BrokerError",
    "BrokerUnavailable",
    "CancelToken",
    "ChannelClosed",
    "ChannelError",
    "ChannelFeed",
    "CloseReason",
    "ConnectFailed",
    "ConnectionLost",
    "ContentEncodingError",
    "ContentTypeError",
    "Event",
    "EventError",
    "EventSource",
    "EventStream",
    "EventTooLarge",
    "IdleTimeout",
    "IncompleteStream",
    "ReadError",
    "Reader",
    "ReceivedEvent",
    "Relay",
    "ResponseError",
    "RetriesExhausted",
    "Run",
    "RunConflict",
    "RunRefused",
    "RunState",
    "RunUnknown",
    "SSEError",
    "Settings",
    "SettingsError",
    "StatusError",
    "StreamClosed",
    "StreamEnded",
    "StreamStats",
    "Subscription",
    "Ticket",
    "TicketRefused",
    "Tickets",
    "UnknownOption",
    "Writer",
    "add_accept_mime",
    "drain",
    "drain_on_signal",
    "from_async",
    "get_last_event_id",
    "json_default",
    "open_broker",
    "register_encoder",
    "relay_request",
    "set_last_event_id",
    "streams",
    "wire",
]

_LAZY = {
    "Backoff": "ssesync.retry",
    "Broker": "ssesync.channels.broker",
    "ChannelFeed": "ssesync.channels.feed",
    "EventSource": "ssesync.client.source",
    "Reader": "ssesync.client.reader",
    "Relay": "ssesync.client.relay",
    "Run": "ssesync.channels.runs.run",
    "RunState": "ssesync.channels.runs.record",
    "Subscription": "ssesync.channels.subscription",
    "Ticket": "ssesync.channels.tickets",
    "Tickets": "ssesync.channels.tickets",
    "from_async": "ssesync.server.asynchronous",
    "open_broker": "ssesync.channels.opening",
    "relay_request": "ssesync.client.relay",
}


def __getattr__(name: str) -> Any:
    """PEP 562: import the object of a lazy name at its first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
