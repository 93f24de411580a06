"""The Redis broker's use of redis-py: one thread at a time, with this library's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis
import redis.exceptions

from ....errors import BrokerDamaged, BrokerError, BrokerUnavailable
from ...reentry import entered
from ..connection import ExclusiveConnection

__all__ = ["Link"]

# Seconds that a thread waits while others use the connection. Each command takes socket_timeout (5 s) at most.
_TIMEOUT = 20.0


class Link(ExclusiveConnection):
    """A client of redis-py. In a signal handler that has interrupted a broker its use raises ``BrokerBusy``.

    :param client: the client.
    :param own: whether the broker owns the client: then it has one connection, for which threads wait here, and is
        closed with the broker. A user's client is used by several threads at the same time and left open.
    """

    def __init__(self, client: redis.Redis, *, own: bool) -> None:
        super().__init__()
        self.client = client
        self._own = own
        self._scripts: dict[str, Any] = {}

    @contextlib.contextmanager
    def use(self, timeout: float = _TIMEOUT) -> Iterator[redis.Redis]:
        """Take the client for one command.

        :param timeout: seconds to wait while other threads use it.
        :return: a context manager that gives the client.
        :raises BrokerError: in place of redis-py's error.
        """
        with self._exclusively(timeout) if self._own else entered(), _translated():
            yield self.client

    def run(self, script: str, key: str, args: list[str | bytes | int]) -> Any:
        """Run a script.

        :param script: its text.
        :param key: one of the keys that it uses; the others are of the same slot.
        :param args: its arguments.
        :return: its result.
        :raises BrokerError: it could not be run.
        """
        with self.use() as client:
            registered = self._scripts.get(script)
            if registered is None:
                registered = self._scripts[script] = client.register_script(script)
            return registered(keys=[key], args=args)

    def eviction_policy(self) -> str:
        """Query the server's ``maxmemory-policy``.

        :return: the policy; empty if the answer has none.
        :raises BrokerError: the server can't be reached, or refuses to answer this user.
        """
        with self.use() as client:
            info = client.info("memory")
        is_cluster = all(isinstance(value, dict) for value in info.values())
        nodes = info.values() if is_cluster else [info]
        return next((str(node["maxmemory_policy"]) for node in nodes if "maxmemory_policy" in node), "")

    def close(self) -> None:
        """See :class:`ExclusiveConnection`. A client of the user's is left open."""
        if self._own:
            super().close()

    def _disconnect(self) -> None:
        with contextlib.suppress(BrokerError), _translated():
            self.client.connection_pool.disconnect()

    def _in_use(self, timeout: float) -> BrokerUnavailable:
        return BrokerUnavailable(f"Redis can't be reached: other threads have used its connection for {timeout} s")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise the library's errors in place of redis-py's."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise BrokerUnavailable(f"Redis can't be reached: {error}") from error
    except redis.ResponseError as error:
        text = str(error)
        if isinstance(error, redis.exceptions.ReadOnlyError) or "maxmemory" in text or "MISCONF" in text:
            raise BrokerUnavailable(f"Redis accepts no writes: {text}") from error
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise BrokerError(f"Redis denies a command: {text}") from error
        raise BrokerDamaged(f"other programs have changed the broker's keys in Redis: {text}") from error
    except Exception as error:
        # Some are raised within redis-py: for example an AttributeError if the user closes a client during its use.
        what = str(error) if isinstance(error, redis.RedisError) else f"{type(error).__name__}: {error}"
        raise BrokerUnavailable(f"Redis can't be used: {what}") from error
