"""Envelopes: constant text around the data of shared events, for each client its own.

Protocols such as JSON-RPC put an id of the client's request round each event, or into it. So that an event is encoded
once for all clients all the same, a subscription has an *envelope*: text before the data of each event, text after it,
and text for a *slot*, a position within the data that the publisher has marked. The text is joined with the shared
bytes in C, once for each client and batch.

The slot of a stored event is a line in front of it, ``:ssesync-slot=<offset>``. It is a comment of an event stream, so
a process of an older version sends it to its clients, which ignore it. An application's own comments begin with a
space.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import SettingsError, excerpt
from ..json_encoder import dump_json
from .message import Message, Slotted

__all__ = ["Envelope", "Slotted", "envelope_of", "jsonrpc_result", "mcp_notification", "mcp_subscription", "splice"]


class Envelope(NamedTuple):
    """Text around the data of a client's events."""

    before: bytes = b""
    """In front of the data."""
    inside: bytes = b""
    """In the slot of the data, if it has one."""
    after: bytes = b""
    """Behind the data."""


def envelope_of(given: Sequence[str | bytes] | None) -> Envelope | None:
    """Check the argument ``envelope``.

    :param given: the texts before and after the data, or before, inside and after.
    :return: the envelope; ``None`` without one.
    :raises SettingsError: it is something else, or has a line end.
    """
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or len(given) not in (2, 3):
        raise SettingsError(f"envelope takes (before, after) or (before, inside, after), got {excerpt(given)}")
    texts = [_checked(each) for each in given]
    return Envelope(*texts) if len(texts) == 3 else Envelope(texts[0], b"", texts[1])


def _checked(part: object) -> bytes:
    try:
        text = part.encode() if isinstance(part, str) else part
        if isinstance(text, bytes) and not any(end in text for end in (b"\n", b"\r", b"\0")):
            text.decode()
            return text
    except UnicodeError:
        pass
    raise SettingsError(f"the parts of an envelope are UTF-8 text without line ends, got {excerpt(part)}")


def jsonrpc_result(id: str | int) -> Envelope:
    """Make the envelope of a JSON-RPC response: each event's data is the ``result`` of one. For example A2A answers
    ``message/stream`` so.

    :param id: the ``id`` of the client's request.
    :return: the envelope.
    """
    return Envelope(b'{"jsonrpc":"2.0","id":%s,"result":' % dump_json(id).encode(), b"", b"}")


def mcp_notification(method: str, params: Mapping[str, Any] | None = None) -> Slotted:
    """Make a notification of MCP to be published, for clients that :func:`mcp_subscription` was made for.

    :param method: its method, for example ``notifications/resources/updated``.
    :param params: its parameters, without ``_meta``.
    :return: the data, with a slot in ``params._meta``.
    :raises TypeError: there is ``_meta`` among the parameters.
    """
    members = dump_json(dict(params or {}))[1:-1]
    if params and "_meta" in params:
        raise TypeError("mcp_notification() writes params._meta itself: give it the other parameters")
    head = f'{{"jsonrpc":"2.0","method":{dump_json(method)},"params":{{"_meta":{{'
    return Slotted(head, "}" + ("," if members else "") + members + "}}")


def mcp_subscription(id: str | int) -> Envelope:
    """Make the envelope of one ``subscriptions/listen`` request of MCP: each notification of
    :func:`mcp_notification` gets its id in ``params._meta``.

    :param id: the ``id`` of the client's request.
    :return: the envelope.
    """
    return Envelope(inside=b'"io.modelcontextprotocol/subscriptionId":%s' % dump_json(id).encode())


def splice(items: Iterable[bytes]) -> Callable[[Envelope], bytes]:
    """Prepare messages to be sent to clients with envelopes.

    :param items: messages and other bytes. The library's own events and other bytes get no envelope.
    :return: a function that joins all of them with a client's envelope.
    """
    texts: list[bytes] = []
    picked: list[int] = []  # of the three parts of an envelope, and then of `texts`

    def text(piece: bytes) -> None:
        texts.append(piece)
        picked.append(len(Envelope._fields) + len(texts) - 1)

    for item in items:
        if not isinstance(item, Message) or not item.channel:
            text(item)
            continue
        begin, slot, end = item.places
        text(item[:begin])
        picked.append(0)
        if slot < 0:
            text(item[begin:end])
        else:
            text(item[begin:slot])
            picked.append(1)
            text(item[slot:end])
        picked.append(2)
        text(item[end:])
    pick = operator.itemgetter(*picked, -1, -1)  # with two more, so that it returns a tuple in any case
    shared = (*texts, b"")
    join = b"".join
    return lambda envelope: join(pick(envelope + shared))
