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
import threading
import time
from collections.abc import Callable, Mapping
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
from .framing import MAX_BLOB, Frame, Link, LinkError, LinkLost
from .importing import Handler, Importer
from .listening import Listener, listen
from .notify import notify
from .upgrade import HandOver, Inheritance, UpgradeError, take_over

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
    :param on_ready: called when it listens, and has all clients of the keeper that it has replaced.
    """

    def __init__(
        self, path: str, broker: Broker, *, spread: float = 5.0, on_ready: Callable[[], object] = lambda: None
    ) -> None:
        self.path = path
        self.broker = broker
        self._spread = spread
        self._hand_over = HandOver(self)
        self._inherited: Inheritance | None = None
        handlers: dict[str, Handler] = {
            "status": self._status, "reserve": _reserve, "replace": self._replace
        }  # fmt: skip
        self._importer = Importer(lambda: [broker], handlers, max_links=_MOST_LINKS)
        self._listener: Listener | None = None
        self._kept: tuple[int, int] | None = None  # the descriptors of the listener and its lock while it is not used
        self._woken = Wakeup()
        self._signals = 0
        self._exit: bool | None = None  # whether clients are ended, once the process is to end
        self._began = time.monotonic()
        self._report: dict[str, Any] = {}  # of the keeper before this one
        self._on_ready = on_ready

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

    def listen(self, *, replace: bool = False) -> None:
        """Listen at the path.

        :param replace: take the place of the keeper that listens there, if there is one.
        :raises OSError: another process does, or the folder can't be used.
        :raises UpgradeError: the keeper that listens there stays the keeper.
        """
        try:
            self._listener = listen(self.path)
        except BlockingIOError as error:
            if not replace:
                raise BlockingIOError(error.errno, f"{error.strerror}: use --replace to take its place") from error
            try:
                link = peer.connect(self.path, _CONNECT, self._hello())
            except OSError as lost:
                raise UpgradeError(f"the running keeper can't be reached: {lost}") from lost
            inherited = self._inherited = take_over(self.path, link, [self.broker.dispatcher.epoch])
            self._hand_over = HandOver(self, inherited.predecessor)
            inherited.enter()
            self._listener = inherited.listener

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
            if self._inherited is None:
                self._is_ready()
            else:
                for call in (self._inherit, self._wait):
                    threading.Thread(target=call, args=(self._inherited,), name="ssesync-link", daemon=True).start()
        while not self._signals and self._exit is None:
            self._woken.wait()
        if self._exit is not False:
            self._stop()
        self.broker.close()
        return 0

    def _inherit(self, inherited: Inheritance) -> None:
        """Take the clients of the keeper before this one."""
        with contextlib.suppress(LinkError), inherited.link:
            self._importer.serve(inherited.link)

    def _wait(self, inherited: Inheritance) -> None:
        """Wait until the keeper before this one has moved all its clients, or has ended."""
        self._report = inherited.wait()
        self._is_ready()

    def _is_ready(self) -> None:
        """Report that this process is the keeper, and has all clients."""
        logger.info("READY: the keeper %d listens at %s", os.getpid(), escape(self.path))
        notify("READY=1", f"STATUS=listens at {self.path}")
        self._on_ready()

    def _stop(self) -> None:
        streams.stopping = True  # from now on no client is received
        notify("STOPPING=1")
        listener, self._listener = self._listener, None
        if listener is not None:
            # So the workers keep the clients that they have, and another keeper can listen there.
            listener.close(remove=self._hand_over.is_alone)
        self._importer.cancel()
        logger.info("the keeper stops: %d clients are ended within %g s", len(streams.all()), self._spread)
        end_clients(self._spread)

    def _start_links(self, listener: Listener) -> None:
        self._importer.start(listener, self._hello)

    def _hello(self) -> dict[str, Any]:
        return peer.make_hello("keeper", [self.broker.dispatcher.epoch], stopping=streams.stopping)

    # For an upgrade: see ``upgrade.Running``.

    def _replace(self, link: Link, frame: Frame) -> Mapping[str, Any] | None:
        return self._hand_over.replace(link, frame)

    def handles(self) -> tuple[int, int]:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        if self._listener is None:
            raise LinkLost("this keeper stops")
        return self._listener.socket.fileno(), self._listener.lock

    def stop_accepting(self) -> None:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        self._put_aside()
        self.open_links()

    def accept(self) -> None:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        if self._listener is not None:
            self._put_aside()  # the next process has listened with it, so workers get its credentials
        kept, self._kept = self._kept, None
        if kept is not None and not self._signals:
            try:
                listener = Listener.adopt(self.path, *kept)
            except OSError:
                listener = listen(self.path)  # its files were removed
            self._listener = listener
            self._start_links(listener)

    def _put_aside(self) -> None:
        """Accept no more links, and keep the descriptors.

        :raises LinkLost: that is not possible.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            raise LinkLost("this keeper stops")
        self._kept = os.dup(listener.socket.fileno()), os.dup(listener.lock)
        listener.close(remove=False)

    def open_links(self) -> int:
        """See :class:`ssesync.keeper.upgrade.Running`."""
        links = [link for link in self._importer.links() if link.peer.get("role") != "keeper"]
        for link in links:
            link.cancel()  # also one that was accepted just before the end
        return len(links)

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
        every, most = described["streams"], _MOST_DESCRIBED
        while True:
            described["streams"] = every[:most]
            described["keeper"]["streams_left_out"] = max(0, len(every) - most)
            blob = json.dumps(described).encode()
            if len(blob) <= MAX_BLOB:
                break
            most = min(most, len(every)) // 2  # long names: paths of a request may have thousands of characters
        link.send({"op": "status"}, blob)

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
                "upgrading": not self._hand_over.is_alone,
                "before": self._report,
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
