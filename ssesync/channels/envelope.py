"""Envelopes: constant text around the data of shared events, for each client its own.

Protocols such as JSON-RPC put an id of the client's request round each event, or into it. So that an event is encoded
once for all clients all the same, a subscription has an *envelope*: text before the data of each event, text after it,
and text for a *slot*, a position within the data that the publisher has marked. The text is joined with the shared
bytes in C, once for each client and batch.

A run's final event is the library's, with data that such a protocol does not know. So an envelope may have data of its
own for it, by the state in which the run has ended.

The slot of a stored event is a line in front of it, ``:ssesync-slot=<offset>``. It is a comment of an event stream, so
a process of an older version sends it to its clients, which ignore it. An application's own comments begin with a
space.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import SettingsError, excerpt
from ..json_encoder import dump_json
from .message import Message, Slotted

__all__ = ["Envelope", "Slotted", "envelope_of", "jsonrpc_result", "mcp_notification", "mcp_subscription", "splice"]


# How the data of a run's final event begins, see :func:`ssesync.channels.runs.ending.final_entry`.
_STATES = ("done", "failed", "stopped", "interrupted")
_ENDING = re.compile(rb'\{"state":"(%s)"' % "|".join(_STATES).encode())


class Envelope(NamedTuple):
    """Text around the data of a client's events; and data for the final event of a run, by its state. A client that has
    data for the state gets it, between ``before`` and ``after``, in an event without a type. Where the data is empty
    the client gets the event as any other."""

    before: bytes = b""
    """In front of the data."""
    inside: bytes = b""
    """In the slot of the data, if it has one."""
    after: bytes = b""
    """Behind the data."""
    done: bytes = b""
    """The data of the final event of a run that is done."""
    failed: bytes = b""
    """Of one that has failed."""
    stopped: bytes = b""
    """Of one that was stopped."""
    interrupted: bytes = b""
    """Of one that was interrupted."""
    last: bytes = b""
    """The data of one more event after such data, for protocols that end each stream with the same one, ``[DONE]``."""


def envelope_of(given: Sequence[str | bytes] | None) -> Envelope | None:
    """Check the argument ``envelope``.

    :param given: the texts before and after the data, or before, inside and after; or an envelope.
    :return: the envelope; ``None`` without one.
    :raises SettingsError: it is something else, or has a line end.
    """
    if given is None:
        return None
    if isinstance(given, Envelope):
        return Envelope(*map(_checked, given))
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


def jsonrpc_result(id: str | int, endings: Mapping[str, Any] | None = None) -> Envelope:
    """Make the envelope of a JSON-RPC response: each event's data is the ``result`` of one. For example A2A answers
    ``SendStreamingMessage`` so.

    :param id: the ``id`` of the client's request.
    :param endings: of a run: the ``result`` in place of the final event's own data, for each of the states ``done``,
        ``failed``, ``stopped`` and ``interrupted`` that the client's protocol has a message for.
    :return: the envelope.
    :raises SettingsError: there is no such state.
    """
    endings = endings or {}
    unknown = sorted(endings.keys() - set(_STATES))
    if unknown:
        raise SettingsError(f"endings takes the states {', '.join(_STATES)}, got {excerpt(unknown)}")
    last = [dump_json(endings[state]).encode() if state in endings else b"" for state in _STATES]
    return Envelope(b'{"jsonrpc":"2.0","id":%s,"result":' % dump_json(id).encode(), b"", b"}", *last)


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
    texts = [b""]
    finals: list[_Final] = []
    # Of the parts of an envelope and then of `texts`; -1 is the first of `finals`.
    picked: list[int] = []

    def text(piece: bytes) -> None:
        texts.append(piece)
        picked.append(len(Envelope._fields) + len(texts) - 1)

    for item in items:
        if not isinstance(item, Message) or not item.channel:
            text(item)
            continue
        begin, slot, end = item.places
        ending = _ENDING.match(item, begin) if item.final else None
        if ending is not None:
            finals.append(_Final(item, Envelope._fields.index(ending[1].decode())))
            picked.append(-len(finals))
            continue
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
    first = len(Envelope._fields)
    pick = operator.itemgetter(*picked, first, first)  # with two more, so that it returns a tuple in any case
    shared = tuple(texts)
    join = b"".join
    if not finals:
        return lambda envelope: join(pick(envelope + shared))
    finals.reverse()
    return lambda envelope: join(pick((*envelope, *shared, *(each.joined(envelope) for each in finals))))


class _Final(NamedTuple):
    """The final event of a run."""

    message: Message
    place: int
    """Where an envelope has the data for its state."""

    def joined(self, envelope: Envelope) -> bytes:
        """Join it with a client's envelope.

        :param envelope: the envelope.
        :return: the event.
        """
        message, data = self.message, envelope[self.place]
        begin, _, end = message.places
        last = b""
        if data:
            head = message[: message.index(b"\n") + 1] + b"data: "  # its id, without the type
            last = envelope.last and b"data: %s\n\n" % envelope.last
        else:
            head, data = message[:begin], message[begin:end]
        return b"".join((head, envelope.before, data, envelope.after, b"\n\n", last))
