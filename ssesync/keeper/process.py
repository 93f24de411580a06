"""The keeper: a process that holds the detached clients of a host, so that its workers can be replaced.

Workers connect to its socket, and send it clients (``importing.py``). It reads the same log as they do, and serves the
clients as a worker does: replay, overflow, revocation and presence are the broker's. When it stops it ends them, spread
over some seconds, and each is sent a reconnection time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..channels.reentry import Wakeup
from ..errors import BrokerError, CloseReason
from ..retry import FailureLog
from ..server import descriptors
from ..server.registry import streams
from ..text import escape
from . import peer
from .exporting import Exporter
from .framing import Frame, Link
from .importing import Handler, Importer
from .listening import Listener, listen

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["Keeper"]

# A logger of its own, so that its lines can be shown without one for each stream that ends.
logger = logging.getLogger("ssesync.keeper")

# Seconds between two attempts to reach the broker, the first and the longest.
_RETRY = (0.5, 5.0)
# Seconds that clients have to accept their last bytes.
_LAST_BYTES = 5.0
# Seconds between two steps in which clients are ended.
_STEP = 0.05
# Links at a time. A worker has up to five: one for its clients, and four for reservations.
_MOST_LINKS = 256
# Streams that the answer to a request for the status describes: some 300 bytes each, and a message has 8 MB.
_MOST_DESCRIBED = 20_000
# Seconds to connect to the next keeper.
_CONNECT = 5.0
# Seconds for which a reservation counts. Until then its stream is moved, or has ended.
_RESERVED = 5.0


class Keeper:
    """See the module. :meth:`open`, then :meth:`run`, on the main thread.

    :param path: of its socket.
    :param broker: the broker, which workers have too.
    :param spread: seconds over which the clients are ended when it stops.
    """

    def __init__(self, path: str, broker: Broker, *, spread: float = 5.0) -> None:
        self.path = path
        self.broker = broker
        self._spread = spread
        handlers: dict[str, Handler] = {"status": self._status, "reserve": _reserve}
        self._importer = Importer(lambda: [broker], handlers, max_links=_MOST_LINKS)
        self._listener: Listener | None = None
        self._kept: tuple[int, int] | None = None  # the descriptors of the listener and its lock while it is not used
        self._woken = Wakeup()
        self._signals = 0
        self._exit: bool | None = None  # whether clients are ended, once the process is to end
        self._began = time.monotonic()

    # Beginning.

    def open(self) -> None:
        """Connect to the broker: as soon as it can be reached. Raise the limit of open files as far as possible."""
        _raise_limit()
        failures = FailureLog("the keeper's broker", *_RETRY)
        while not self._signals:
            try:
                self.broker.listen()
            except BrokerError as error:  # noqa: PERF203 - an attempt is no small thing
                self._woken.wait(failures.failed(error))
            else:
                failures.succeeded()
                streams.prepare()
                return

    def listen(self) -> None:
        """Listen at the path.

        :raises OSError: another process does, or the folder can't be used.
        """
        self._listener = listen(self.path)

    def handle_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, and end at once on the second one of them. On the main thread."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + signum)
        self._woken.set()

    def run(self) -> int:
        """Serve until a signal comes, or another process has replaced this one.

        :return: the exit code.
        """
        if self._listener is not None and not self._signals:
            self._start_links(self._listener)
            logger.info("READY: the keeper %d listens at %s", os.getpid(), escape(self.path))
        while not self._signals and self._exit is None:
            self._woken.wait()
        if self._exit is not False:
            self._stop()
        self.broker.close()
        return 0

    def _stop(self) -> None:
        streams.stopping = True  # from now on no client is received
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()  # so the workers keep the clients that they have, and another keeper can listen there
        self._importer.cancel()
        logger.info("the keeper stops: %d clients are ended within %g s", len(streams.all()), self._spread)
        end_clients(self._spread)

    def _start_links(self, listener: Listener) -> None:
        self._importer.start(listener, self._hello)

    def _hello(self) -> dict[str, Any]:
        return peer.make_hello("keeper", [self.broker.dispatcher.epoch], stopping=streams.stopping)

    # For an upgrade: see ``upgrade.Running``.

    def handles(self) -> tuple[int, int]:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        assert self._listener is not None
        return self._listener.socket.fileno(), self._listener.lock

    def stop_accepting(self) -> None:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        listener = self._listener
        if listener is not None:
            self._listener, self._kept = None, (os.dup(listener.socket.fileno()), os.dup(listener.lock))
            listener.close(remove=False)

    def accept(self) -> None:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self._listener = Listener.adopt(self.path, *kept)
            self._start_links(self._listener)

    def open_links(self) -> int:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        return self._importer.snapshot()["links"]

    def connect(self) -> Link:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        return peer.connect(
            self.path, _CONNECT, peer.make_hello("keeper", [self.broker.dispatcher.epoch], stopping=True)
        )

    def exporter(self, link: Link) -> Exporter:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        return Exporter(link, self.broker)

    def finish(self, *, spread: bool) -> None:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        self._exit = spread
        self._woken.set()

    # Requests.

    def _status(self, link: Link, frame: Frame) -> None:
        """Answer with :meth:`describe`, in the blob: it may be larger than a head."""
        described = self.describe()
        left_out = max(0, len(described["streams"]) - _MOST_DESCRIBED)
        described["streams"] = described["streams"][:_MOST_DESCRIBED]
        described["keeper"]["streams_left_out"] = left_out
        link.send({"op": "status"}, json.dumps(described).encode())

    def describe(self) -> dict[str, Any]:
        """Describe the keeper and its clients.

        :return: plain values: as ``streams.snapshot()``, with ``keeper`` and ``broker``, of which the latter is as
            ``Broker.snapshot()``.
        """
        return {
            "keeper": {
                "socket": self.path,
                "seconds": round(time.monotonic() - self._began, 3),
                "stopping": streams.stopping,
                **self._importer.snapshot(),
                "max_streams": descriptors.capacity(),
                "position": self.broker.position(),
            },
            "broker": self.broker.snapshot(),
            **streams.snapshot(),
        }


def _reserve(link: Link, frame: Frame) -> dict[str, Any]:
    """Answer whether one more stream of a key is allowed."""
    key, limit = frame.head.get("key"), frame.head.get("limit")
    if not isinstance(key, str) or type(limit) is not int:
        return {"op": "error", "why": "a reservation has a key and a limit"}
    return {"op": "reserved", "allowed": streams.reserve(key, limit, _RESERVED)}


def end_clients(spread: float) -> None:
    """End all streams of this process, spread over some seconds, and wait until their last bytes are sent.

    :param spread: seconds.
    """
    began = time.monotonic()
    left = streams.all()
    count = len(left)
    while left:
        passed = time.monotonic() - began
        later = 0 if passed >= spread else count - math.ceil(count * passed / spread)
        while len(left) > later:
            left.pop().stop(CloseReason.SHUTDOWN)
        time.sleep(min(_STEP, spread))
    for stream in streams.all():
        stream.stop(CloseReason.SHUTDOWN)  # those that came meanwhile too
    deadline = time.monotonic() + _LAST_BYTES
    while streams.all() and time.monotonic() < deadline:
        time.sleep(_STEP)


def _raise_limit() -> None:
    """Raise the soft limit of open files to the hard one: this process runs no programs, and uses no ``select()``."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
