"""Brokers: they keep published events in a log and deliver them to subscribers.

The contract, which one suite of tests holds every broker to:

- Each event gets a number, its *seq*, higher than that of every event published before it, in whatever channel. A
  client's last event ID, ``<epoch>-<seq>``, so is its position in all of its channels.
- The log keeps a channel's last events, bounded by number, bytes and age. A client that reconnects with an id gets
  the events after it, in order, without a gap or a duplicate, and then the live events. If the log no longer has all
  of these, the client gets one ``reset`` event instead. A client that sends no id gets live events only.
- ``publish`` returns when the event is in the log, and raises if it is not. It never waits for a subscriber.
- A process has one listener, however many subscribers there are; a forked child has its own.
"""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

from ..errors import CloseReason, excerpt
from ..json_encoder import dump_json
from ..text import shown
from ..validation import check_number, check_sockets
from . import forks
from .answer import answer
from .broadcast import BroadcastGroups
from .counters import Counters
from .message import CONTROL, Message, body_of, check_channel
from .options import Limits
from .policy import Policy
from .publishing import Publisher
from .reentry import entered
from .revocations import Revocations
from .runs.methods import RunMethods
from .starting import SharedStart
from .subscribing import subscribe
from .subscription import Subscription

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .policy import PolicyOptions

__all__ = ["Broker", "open_brokers"]

_opened: weakref.WeakSet[Broker] = weakref.WeakSet()
logger = logging.getLogger("ssesync")


class Broker(Publisher, RunMethods):
    """Publishes to channels and subscribes to them. Made by :func:`open_broker`.

    Every method may be called from any thread, ``publish`` also from any process that has opened the same log. Nothing
    is started or connected before it is first needed. In a signal handler ``close`` always returns. All other methods
    work there, or raise :class:`ssesync.BrokerBusy` at once if the handler has interrupted its thread inside a broker.

    Another broker is a subclass that implements the methods of :class:`ssesync.channels.backend.Backend`.
    """

    #: The names of the options that make a policy, for an integration that gets them among other options.
    POLICY = frozenset(Policy.__dataclass_fields__)
    #: Whether several processes can have the same log.
    is_shared = True
    # Its URL, without options.
    _address = "memory://"
    #: Takes any of these options, and raises :class:`SettingsError` for a value that can't work.
    check_policy = staticmethod(Policy)

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._keeper: str | None = None
        self._counters = Counters("published", "disconnected", "dropped", "coalesced", "resets")
        self._reset()
        forks.register(self)
        _opened.add(self)

    def _reset(self) -> None:
        super()._reset()
        self._listening = SharedStart(self._lock, self._listen, self._check_open)
        self.dispatcher.on_control = self._control
        self._broadcast_groups: BroadcastGroups | None = None
        #: The revocations of the last minute.
        self.revocations = Revocations(self)
        self.dispatcher.on_begin = self.revocations.begin
        self._runs = None
        self._group_commit = None
        self.expects_requests = False

    @property
    def keeper(self) -> str | None:
        """The socket of the keeper that takes this broker's detached clients (``python -m ssesync keeper``), or several
        with commas between them. ``None``: as the environment variable ``SSESYNC_KEEPER`` says; ``""``: none. Set it
        before the first client comes.

        :raises SettingsError: when it is set: the value is no absolute path.
        """
        return self._keeper

    @keeper.setter
    def keeper(self, paths: str | None) -> None:
        if paths is not None:
            check_sockets("keeper", paths)
        self._keeper = paths

    def answer(
        self, environ: Mapping[str, Any], channels: Iterable[str], *, options: dict[str, Any], **arguments: Any
    ) -> Any:
        """Answer a request with a subscription, for the integration of a web framework.

        :param environ: the request's WSGI environ.
        :param channels: the channels.
        :param options: of the call, of which those of :class:`ssesync.channels.policy.Policy` are taken out. The rest
            is for the stream.
        :param arguments: ``respond``, a function that makes the framework's response of the
            :class:`ssesync.Subscription`; ``refuse``, one that makes the response for a status (403, 404 or 503) and
            the error, if there is one, or raises; the ``settings``; ``dumps``, the JSON encoder; and the framework's
            ``patterns``, ``authorize`` (a function of the channel's name), ``on_connect``, ``key`` and
            ``last_event_id``. With ``known`` true, a client is refused with 404 if one of the channels has no events.
            ``since``, ``last``, ``until_type`` and ``envelope`` are as for :meth:`subscribe`.
        :return: what ``respond`` or ``refuse`` has returned.
        :raises ChannelError: no channel can have this name, and there is no ``authorize``.
        """
        policy = {name: options.pop(name) for name in self.POLICY & options.keys()}
        return answer(self, environ, channels, policy=policy, **arguments)

    def subscribe(
        self,
        *channels: str,
        patterns: Iterable[str] = (),
        last_event_id: str | None = None,
        since: str | None = None,
        last: int | None = None,
        until_type: str | Iterable[str] | None = None,
        envelope: Sequence[str | bytes] | None = None,
        key: str | None = None,
        **policy: Unpack[PolicyOptions],
    ) -> Subscription:
        """Subscribe to channels: to all events from now on, after those that the log has after an id.

        A subscription without patterns ends, with the reason ``done``, when all of its channels are closed (see
        :meth:`publish`) and their events were given. A client that has all of these events, by its id, is answered 204,
        on which a browser does not reconnect. A client that comes without an id when all channels are closed gets the
        final event.

        :param channels: the channels' names.
        :param patterns: more channels, also such as don't exist yet: in ``"room:*"``, ``*`` stands for any characters.
            Never make a pattern from a client's input.
        :param last_event_id: the id that a client sent, see :func:`get_last_event_id`; without one nothing is replayed,
            unless ``since`` or ``last`` is given.
        :param since: where a client begins that sends no id: ``"start"``, with the first event that the log has, or
            after an event's id, such as :meth:`position` returns.
        :param last: with how many of the last events a client begins that sends no id, as far as the log has as many.
        :param until_type: a type of events, or several: the subscription ends after the first event of such a type. A
            client that comes back with the id of that event is answered 204.
        :param envelope: text around the data of each event in the stream, for this client: ``(before, after)``, or
            ``(before, inside, after)`` for data with a slot (:class:`ssesync.channels.envelope.Slotted`). See
            :func:`ssesync.channels.envelope.jsonrpc_result`. The library's own events (``reset``, ``dropped``) and
            :meth:`Subscription.take` are without it.
        :param key: whose subscription this is, for example a user's name, for :meth:`revoke`.
        :param policy: ``overflow``, ``coalesce``, ``max_pending_events``, ``max_pending_bytes``, ``patience``,
            ``reset_event``, ``dropped_event``; see :class:`ssesync.channels.policy.Policy`.
        :return: the subscription.
        :raises BrokerError: the log can't be reached or used.
        :raises ChannelError: no channel can have this name.
        :raises SettingsError: an option that does not exist or can't work.
        """
        options = cast("dict[str, Any]", policy)
        return subscribe(self, channels, patterns, last_event_id, since, last, until_type, envelope, key, options)

    @property
    def broadcast_groups(self) -> BroadcastGroups:
        """The detached clients of this process. Made for the first one: most processes have none."""
        if self._broadcast_groups is None:
            with entered(), self._lock:
                self._broadcast_groups = self._broadcast_groups or BroadcastGroups(self, self._lock)
        return self._broadcast_groups

    def listen(self) -> str:
        """Connect to the log, and begin to notice other processes' events. The first subscription does that as well.

        :return: the log's epoch: it is the same for all that have the same log.
        :raises BrokerError: the log can't be reached or used.
        """
        self._ensure_listening()
        return self.dispatcher.epoch

    def subscriber_count(self, channel: str, *, local: bool = False) -> int:
        """Count the subscribers of a channel: in all processes where the broker knows them, or only in this one.

        The numbers of other processes are up to a second or so old, and leave out subscribers by a pattern.

        :param channel: the channel's name.
        :param local: only those in this process.
        :return: how many there are.
        :raises BrokerError: the log can't be reached or used.
        """
        check_channel(channel)
        here = self.dispatcher.count(channel)
        return here if local else here + self._count_elsewhere(channel)

    def revoke(self, key: str, channel: str | None = None) -> None:
        """End the subscriptions that were made with a key, or those of them that have a channel, in all processes.

        They end at once with the reason ``revoked``, and pending events are not sent. Their clients reconnect: so make
        your own check refuse them first. If the log has lost events that a process has not read, the process ends all
        its subscriptions that have a key.

        :param key: the key.
        :param channel: end only those that have this channel.
        :raises BrokerError: other processes can't be reached. In this one they are ended.
        """
        if not isinstance(key, str):
            raise TypeError(f"a subscription's key is text, got {excerpt(key)}")
        if channel is not None:
            check_channel(channel)
        self.dispatcher.revoke(key, channel)
        self._publish(CONTROL, body_of(dump_json({"revoke": key, "channel": channel}), None, None))

    def use_once(self, token: str, seconds: float) -> bool:
        """Use a token. Of all processes that have opened the same log, only the first call succeeds.

        So a ticket is valid for one use only.

        :param token: the token.
        :param seconds: how long it is remembered, at least.
        :return: whether this call was the first.
        :raises BrokerError: the log can't be reached or used.
        """
        if not isinstance(token, str):
            raise TypeError(f"a token is text, got {type(token).__name__}")
        check_number("seconds", seconds, above=0)
        self._check_open()
        # A token may have any length, and must not be readable in the log.
        return self._claim(sha256(token.encode()).hexdigest(), seconds)

    def close(self) -> None:
        """End all subscriptions of this process, stop listening, release files and connections.

        Any thread, any signal handler, any number of times. It waits up to 5 seconds for the listener's thread to end.
        In a signal handler that has interrupted its thread inside a broker it does not wait: the interrupted operation
        releases its files and connections when it ends.
        """
        self._closed = True
        if self._runs is not None:
            self._runs.own.close()
        if self._listening.end():
            self._unlisten()
        self.dispatcher.close(CloseReason.SHUTDOWN)
        self._release()

    def snapshot(self) -> dict[str, Any]:
        """The counters of this process.

        :return: plain values: ``subscribers`` now, and since the start ``published`` events, ``disconnected``
            subscribers (they were too slow), ``dropped`` and ``coalesced`` events, ``resets``. ``runs``, if the process
            has had any: those ``running`` now, and by state those that have ended.
        """
        runs = {} if self._runs is None else {"runs": self._runs.own.snapshot()}
        return {"subscribers": len(self.dispatcher), **self._counters.snapshot(), **runs}

    def warn_once(self, environ: Mapping[str, Any]) -> None:
        """Log a warning, once in a process, if the server has several processes and this broker reaches only one.

        :param environ: the WSGI environ of a request.
        """

    def __repr__(self) -> str:
        return shown(self, self._address, state="closed" if self._closed else "open")

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Common to all brokers.

    def _control(self, message: Message) -> None:
        control = json.loads(message.event.data or "{}")
        if "revoke" in control:
            self.revocations.note(message.seq, control)  # before it is carried out
            self.dispatcher.revoke(control["revoke"], control.get("channel"))
        elif self._runs is not None or self.when_interrupted is not None:
            self.runs.own.requested(control)

    def _requests_lost(self) -> None:
        """End the subscriptions that have a key: another process may have revoked any key, and the request be lost.

        Called on the listener's thread if the log has lost events that were not read here.
        """
        if self._runs is not None:
            self._runs.own.requests_lost()
        self.revocations.begin(self.dispatcher.epoch, self.dispatcher.position)
        count = self.dispatcher.revoke(None, None)
        if count:
            logger.warning(
                "the log has lost events that this process has not read, and perhaps revocations by other processes: "
                "ended %d subscriptions that have a key, so that their clients' rights are checked again when they "
                "reconnect",
                count,
            )

    def _ensure_listening(self) -> None:
        if self._listening and not self._closed:
            return
        self._listening.ensure()
        if self._closed:
            self.close()  # again: the first call found no listener yet
            self._check_open()


def open_brokers() -> list[Broker]:
    """Find the brokers of this process.

    :return: those that were made here or in a parent process, and are not closed.
    """
    return [broker for broker in list(_opened) if not broker.closed]
