"""The broker for several machines: Redis 6.2 or newer, or Valkey. See ``scripts.py`` for its keys."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ....errors import BrokerError, SettingsError
from ....text import escape, redact
from ....validation import check_number
from ...entry import Entry
from ...log import Page
from ...message import CONTROL
from ...options import LIMITS, Limits, checked_options, take_limits
from ..listener import Listener
from ..presence import EXPIRY, Presence
from . import scripts
from .link import Link
from .runs import RedisRuns

__all__ = ["RedisBroker"]

logger = logging.getLogger("ssesync")

# Entries of the index that the listener reads at a time, and events of a channel.
_BATCH = 500
# Options of redis-py that the broker sets itself.
_RESERVED = {"decode_responses", "max_connections", "retry", "retry_on_timeout", "retry_on_error", "encoder_class"}
_OWN: dict[str, Callable[[str], Any]] = {**LIMITS, "prefix": str, "index_size": int}


class RedisBroker(RedisRuns):
    """``redis://``, ``rediss://``, ``unix://`` as redis-py reads them, with its options and the broker's own.

    A process has one connection that listens, however many subscribers it has, and one for all else. While Redis can't
    be reached, ``publish`` and ``subscribe`` raise :class:`ssesync.BrokerUnavailable`; existing subscriptions stay open
    and continue from their position afterwards. Events that Redis loses in a crash of its own (see its ``appendonly``)
    are lost.

    ``open_broker("redis://", client=client)`` uses your ``redis.Redis`` instead, for example a Sentinel's, with room
    for two connections.

    :param make_client: makes the client.
    :param limits: how much the log keeps.
    :param prefix: the beginning of all keys, in braces (``ssesync``). Each prefix is a log of its own.
    :param index_size: how many events the index has (10,000). By it a process that lost its connection finds the events
        that it missed, without a query for each channel.
    :param own: whether to close the clients with the broker.
    """

    reaches_processes = True

    def __init__(
        self,
        make_client: Callable[[], redis.Redis],
        limits: Limits | None = None,
        *,
        prefix: str = "ssesync",
        index_size: int = 10_000,
        own: bool = True,
    ) -> None:
        check_number("index_size", index_size, above=0, whole=True)
        if not prefix or "{" in prefix or "}" in prefix:
            raise SettingsError(f"prefix takes text without braces, got {prefix!r}")
        self._prefix = f"{{{prefix}}}"
        self._address = "redis://"
        self._index_size = index_size
        self._make_client = make_client
        self._own = own
        super().__init__(limits)

    @classmethod
    def from_url(cls, url: str, options: dict[str, Any], client: redis.Redis | None = None) -> RedisBroker:
        """Make the broker of a URL.

        :param url: the URL.
        :param options: the options of its query, and others.
        :param client: a client to use instead of making one.
        :return: the broker.
        :raises SettingsError: the URL or an option can't work.
        """
        parts = urlsplit(url)
        theirs = _options_of_redis(parts.scheme)
        checked = checked_options(options, _OWN, theirs)
        ours = {name: value for name, value in checked.items() if name in _OWN}
        limits = take_limits(ours)
        if client is not None:
            if client.get_connection_kwargs().get("decode_responses"):
                raise SettingsError("the client that is given to a broker must not have decode_responses=True")
            return cls(lambda: client, limits, own=False, **ours)
        in_url = {name: value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name in theirs}
        plain = f"{url.partition('?')[0]}?{urlencode(in_url)}"
        more = {name: value for name, value in checked.items() if name in theirs and name not in in_url}
        defaults = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0, "socket_keepalive": True}
        if parts.scheme == "unix":
            del defaults["socket_connect_timeout"], defaults["socket_keepalive"]

        def make_client() -> redis.Redis:
            # Without retries: an event that was sent before the connection broke may have been published.
            pool = redis.BlockingConnectionPool.from_url(
                plain, **{**defaults, **more, "max_connections": 1, "retry": Retry(NoBackoff(), 0), "timeout": 20}
            )
            return redis.Redis(connection_pool=pool)

        try:
            make_client()
        except (ValueError, TypeError) as error:
            raise SettingsError(f"the broker's URL can't be used: {error}") from error
        broker = cls(make_client, limits, **ours)
        broker._address = redact(url.partition("?")[0])  # the object has no password
        return broker

    def _reset(self) -> None:
        super()._reset()
        self._link, self._following = (Link(self._make_client(), own=self._own) for _ in range(2))
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._listener = Listener(self._step, "the Redis broker")
        self._presence = Presence(self.dispatcher, self._send_presence)
        self._policy_is_known = False
        self._has_more = False  # the index may have more entries
        self._unfinished: tuple[int, int, list[str]] | None = None  # after, up to, channels

    def _claim(self, name: str, seconds: float) -> bool:
        with self._link.use() as client:
            return bool(client.set(f"{self._prefix}:claim:{name}", b"", nx=True, px=max(1, int(seconds * 1000))))

    def _append(self, channel: str, body: bytes) -> str:
        event_id = super()._append(channel, body)
        self._warn_of_eviction()
        return event_id

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]:
        appended = super()._append_many(entries, whole=whole)
        self._warn_of_eviction()
        return appended

    def _warn_of_eviction(self) -> None:
        """Log a warning, once in a process, if the server may evict the broker's keys."""
        if self._policy_is_known:
            return
        self._policy_is_known = True
        try:
            policy = self._link.eviction_policy()
        except BrokerError:
            return  # the broker's user in Redis need not have the right to INFO
        if policy.startswith("allkeys"):
            logger.warning(
                "Redis has maxmemory-policy %s: when its memory is full it deletes events, and clients that reconnect "
                "get a reset event in place of the events that they missed; set it to noeviction, or use a separate "
                "Redis for the broker", escape(policy),
            )  # fmt: skip
        elif policy.startswith("volatile"):
            logger.warning(
                "Redis has maxmemory-policy %s: when its memory is full it may delete the record of used tickets, and "
                "a ticket may be used again within its lifetime; set it to noeviction, or use a separate Redis for the "
                "broker", escape(policy),
            )  # fmt: skip

    # Listening.

    def _listen(self) -> None:
        self.dispatcher.begin(*self._head())
        self._warn_of_eviction()
        self._listener.start()

    def _unlisten(self) -> None:
        self._listener.stopping = True
        # If this thread has the connection in use already, the listener is not woken, and ends within a second.
        with contextlib.suppress(BrokerError), self._link.use(timeout=1) as client:
            key = f"{self._prefix}:wake:{self._process}"
            client.xadd(key, {"x": "1"}, maxlen=1)
            client.expire(key, 10)
        self._listener.stop()

    def _release(self) -> None:
        if self._presence.known:
            with contextlib.suppress(BrokerError), self._link.use(timeout=1) as client:
                client.zrem(f"{self._prefix}:alive", self._process)
                client.delete(f"{self._prefix}:here:{self._process}")
        self._link.close()
        self._following.close()

    # On the listener's thread.

    def _step(self, listener: Listener) -> None:
        if self._unfinished is None and not self._has_more:
            self._wait()
        if listener.stopping:
            return
        if self._unfinished is None:
            self._poll()
        while self._unfinished is not None and not listener.stopping:
            self._deliver(*self._unfinished)
        self._presence.announce()

    def _wait(self) -> None:
        """Wait until an event was published or the listener must stop, a second at most."""
        timeout = self._following.client.get_connection_kwargs().get("socket_timeout")
        block = 1000 if timeout is None else max(1, min(1000, int(timeout * 500)))
        positions: dict[Any, Any] = {
            f"{self._prefix}:index": f"{self.dispatcher.position}-0",
            f"{self._prefix}:wake:{self._process}": "0",
        }
        with self._following.use() as client:
            # The result is not used: the events are read in one atomic script.
            client.xread(positions, count=1, block=block)

    def _poll(self) -> None:
        """Query which channels have new events, and note those that have subscribers in this process."""
        dispatcher = self.dispatcher
        before = dispatcher.position
        answered, head, flat, changed = self._run(
            scripts.SINCE, secrets.token_hex(4), before, _BATCH, link=self._following
        )  # fmt: skip
        epoch, head = answered.decode(), int(head)
        self._has_more = len(flat) == 3 * _BATCH
        if epoch != dispatcher.epoch:
            self._begin_anew(epoch, head)
        elif head < before or (flat and int(flat[2]) < before):
            self._renew()
        elif changed:
            # The position is older than the index. The brokers' own channel may have been removed: _deliver() reads it.
            self._advance(before, head, {*changed, CONTROL.encode()})
            self._has_more = False
        elif flat:
            self._advance(before, int(flat[-3]), set(flat[1::3]))

    def _renew(self) -> None:
        # The server has lost events that this process has read: clients may have ids that are not in the log.
        answered, head = self._run(scripts.RENEW, self.dispatcher.epoch, secrets.token_hex(4), link=self._following)
        self._begin_anew(answered.decode(), int(head))

    def _begin_anew(self, epoch: str, head: int) -> None:
        self._has_more = False
        self._unfinished = None
        self.dispatcher.restarted(epoch, head)
        self._requests_lost()

    def _advance(self, before: int, end: int, channels: Iterable[bytes]) -> None:
        wanted = self.dispatcher.advance([channel.decode() for channel in channels], end)
        self._unfinished = (before, end, wanted) if wanted else None

    def _deliver(self, after: int, end: int, wanted: list[str]) -> None:
        """Deliver a page of the noted events."""
        page = self._page(self._following, self.dispatcher.epoch, after, end, wanted, [], _BATCH)
        if page.epoch != self.dispatcher.epoch:
            self._begin_anew(page.epoch, page.head)
        elif page.lost == "unknown":
            self._renew()
        elif page.lost:
            rest = None
            if CONTROL in wanted:
                # Only the listener reads the brokers' own messages, before the events that were published after them.
                control = self._page(self._following, page.epoch, after, end, [CONTROL], [], _BATCH)
                self.dispatcher.deliver(control.messages, handled=_handled(control))
                if control.lost:
                    self._requests_lost()
                elif not control.complete:
                    rest = (control.messages[-1].seq, end, [CONTROL])
            self.dispatcher.missed(wanted)  # subscribers read the log
            self._unfinished = rest
        else:
            self.dispatcher.deliver(page.messages, handled=_handled(page))
            self._unfinished = None if page.complete else (page.messages[-1].seq, end, wanted)

    def _send_presence(self, counts: dict[str, int], alive: bool) -> bool:
        flat = [text for item in counts.items() for text in item]
        known = self._run(scripts.ANNOUNCE, self._process, EXPIRY, *flat)
        # False: the last heartbeat was too long ago, and all announcements of this process have expired.
        return bool(known) or not self._presence.known

    def _count_elsewhere(self, channel: str) -> int:
        return int(self._run(scripts.COUNT, self._process, channel))


def _handled(page: Page) -> int | None:
    """The number up to which a page has all messages; ``None``: it is complete."""
    return None if page.complete or page.lost else page.messages[-1].seq


def _options_of_redis(scheme: str) -> list[str]:
    """The options of redis-py's connections, without those that the broker sets itself."""
    kind = {"rediss": redis.SSLConnection, "unix": redis.UnixDomainSocketConnection}.get(scheme, redis.Connection)
    names = {name for each in kind.__mro__[:-1] for name in inspect.signature(each).parameters}
    return sorted(names - _RESERVED - {"self", "args", "kwargs"})
