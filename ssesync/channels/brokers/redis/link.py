"""The Redis broker's use of redis-py: one thread at a time, and its errors as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis

from ....errors import BrokerDamaged, BrokerError, BrokerUnavailable
from ....locks import make_lock
from ...reentry import entered, entered_or_inside, is_inside

__all__ = ["Link"]

# Seconds that a thread waits while others use the connection. An answer takes socket_timeout (5 s) at most.
_PATIENCE = 20.0


class Link:
    """A client of redis-py. On a thread that was interrupted inside a broker its use raises ``BrokerBusy``.

    :param client: the client.
    :param own: whether the client is the broker's: it has one connection, for which threads wait here, and is to be
        closed with the broker. One of the user's is used by several threads at the same time and left open.
    """

    def __init__(self, client: redis.Redis, *, own: bool) -> None:
        self.client = client
        self._own = own
        self._lock = make_lock("channels.link")
        self._to_be_closed = False
        self._scripts: dict[str, Any] = {}

    @contextlib.contextmanager
    def use(self, patience: float = _PATIENCE) -> Iterator[redis.Redis]:
        """The client, for one command.

        :param patience: seconds to wait while other threads use it.
        :raises BrokerError: what redis-py has raised, as ours.
        """
        try:
            with entered():
                if self._own and not self._lock.acquire(timeout=patience):
                    raise BrokerUnavailable(
                        f"Redis can't be reached: other threads have waited for it for {patience} s"
                    )
                try:
                    with _as_ours():
                        yield self.client
                finally:
                    if self._own:
                        self._lock.release()
        finally:
            self._close_if_asked()

    def run(self, script: str, key: str, args: list[str | bytes | int]) -> Any:
        """Run a script.

        :raises BrokerError: it could not be run.
        """
        with self.use() as client:
            registered = self._scripts.get(script)
            if registered is None:
                registered = self._scripts[script] = client.register_script(script)
            return registered(keys=[key], args=args)

    def eviction_policy(self) -> str:
        """The server's ``maxmemory-policy``, ``""`` if it does not say.

        :raises BrokerError: it can't be asked, or refuses to answer this user.
        """
        with self.use() as client:
            told = client.info("memory")
        each = (
            told.values() if all(isinstance(value, dict) for value in told.values()) else [told]
        )  # nodes of a cluster
        return next((str(node["maxmemory_policy"]) for node in each if "maxmemory_policy" in node), "")

    def close(self) -> None:
        """Close the connection. The next use opens it again. Any thread, any signal handler.

        It waits up to a second for the command of another thread. A signal handler that has interrupted its thread
        inside a broker waits for nothing. A connection that is still in use is closed after that.
        """
        if not self._own:
            return
        self._to_be_closed = True
        if not is_inside():
            with entered():
                if self._lock.acquire(timeout=1):
                    self._lock.release()
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        with entered_or_inside():
            while self._to_be_closed and self._lock.acquire(blocking=False):
                try:
                    self._to_be_closed = False
                    with contextlib.suppress(BrokerError), _as_ours():
                        self.client.connection_pool.disconnect()
                finally:
                    self._lock.release()


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    """Redis's errors, as ours."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise BrokerUnavailable(f"Redis can't be reached: {error}") from error
    except redis.ResponseError as error:
        text = str(error)
        if isinstance(error, redis.exceptions.ReadOnlyError) or "maxmemory" in text or "MISCONF" in text:
            raise BrokerUnavailable(f"Redis takes nothing more: {text}") from error
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise BrokerError(f"Redis refuses: {text}") from error
        raise BrokerDamaged(f"the keys in Redis are not as they were left: {text}") from error
    except Exception as error:
        # Some come from within redis-py: an AttributeError, say, if a client of the user's is closed while it is used.
        what = str(error) if isinstance(error, redis.RedisError) else f"{type(error).__name__}: {error}"
        raise BrokerUnavailable(f"Redis can't be used: {what}") from error
