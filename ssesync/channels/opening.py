"""open_broker: the broker that a URL names."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ..errors import SettingsError
from .broker import Broker
from .options import LIMITS, Limits, check_url, checked_options, options_of_url, shown_url, take_linger

__all__ = ["open_broker"]


def open_broker(url: str, **options: Any) -> Broker:
    """The broker that a URL names.

    - ``memory://``: within one process.
    - ``sqlite:///relative/path``, ``sqlite:////absolute/path``: between the processes of one machine, durable.
    - ``redis://host:port/db``, ``rediss://…`` (TLS), ``unix:///path/to/socket``: between machines. Needs redis-py.

    Options are given in the URL's query or by name: ``max_events``, ``max_bytes``, ``max_age`` in seconds and
    ``max_channels`` for all (see :class:`ssesync.channels.options.Limits`), and each broker's own. ``linger``, in
    seconds, has what several threads publish within that time appended in one step: fewer transactions or round trips,
    and less processor time, while each thread waits for up to that time (``None``: each event is appended at once).

    :param url: the URL.
    :param options: options by name.
    :return: the broker. Nothing is connected or opened yet.
    :raises SettingsError: the URL names no broker, or an option that does not exist, or a value that can't work.
    """
    check_url(url)
    if not url.strip():
        raise SettingsError("the broker's URL is empty: check its setting; for one process use memory://")
    given = {**options_of_url(url), **options}
    linger = take_linger(given)
    broker = _open(url, given)
    broker.linger = linger
    return broker


def _open(url: str, given: dict[str, Any]) -> Broker:
    scheme = urlsplit(url).scheme.lower()
    if scheme == "memory":
        from .brokers.memory.broker import MemoryBroker

        parts = urlsplit(url)
        if parts.netloc or parts.path.strip("/"):
            raise SettingsError(f"memory:// takes options only, got {shown_url(url)}")
        return MemoryBroker(Limits(**checked_options(given, LIMITS)))
    if scheme == "sqlite":
        from .brokers.sqlite.broker import SQLiteBroker

        return SQLiteBroker.from_url(url, given)
    if scheme in ("redis", "rediss", "unix"):
        try:
            from .brokers.redis.broker import RedisBroker
        except ModuleNotFoundError as error:
            if error.name != "redis":
                raise
            raise SettingsError(f"{scheme}:// needs redis-py: pip install 'ssesync[redis]'") from None
        client = given.pop("client", None)
        return RedisBroker.from_url(url, given, client)
    raise SettingsError(
        f"no broker has the URL {shown_url(url)}: there are memory://, sqlite:///path, redis://, rediss:// and unix://"
    )
