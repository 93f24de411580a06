"""Moves the clients of a worker to one keeper, on a thread of its own, in the background.

The thread is started by the first client that can be moved, and ends when there is none left. It waits some
milliseconds after a client was added, so that clients that come together are moved together, and so that the server's
thread has released the stream by then. While the keeper can't be used, the worker serves its clients itself, and the
thread tries again every five seconds. The log has one line when that begins, and one when it is over.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from ..channels.reentry import Wakeup
from ..channels.transfer import Stay, Wanted
from ..server.registry import streams
from ..text import escape
from . import peer
from .exporting import Exporter, on_reactor
from .framing import Link, LinkLost

if TYPE_CHECKING:
    from ..channels.broker import Broker
    from ..detached.connection import Connection

__all__ = ["Mover", "connect_to"]

logger = logging.getLogger("ssesync")

# Seconds from a client's arrival until it is moved, and the longest time until a client that could not be moved yet is
# tried again.
_DELAY, _LONGEST_DELAY = 0.005, 5.0
# Seconds for which a keeper is not used that can't be reached or refuses all clients.
_PAUSE = 5.0
# Seconds to connect, the keeper's hello included. No client waits for it.
_CONNECT = 1.0
# Seconds after which a thread without work ends.
_IDLE = 30.0
# Seconds between two checks for clients that stay.
_CHECK = 1.0


def connect_to(path: str, broker: Broker, timeout: float) -> Link:
    """Connect this worker to a keeper.

    :param path: of the keeper's socket.
    :param broker: the broker whose clients are to be moved.
    :param timeout: seconds until the keeper must have answered.
    :return: the link.
    :raises OSError: the keeper can't be reached.
    :raises ValueError: it can't be used: it has another version, another user or another log.
    """
    epoch = broker.dispatcher.epoch
    link = peer.connect(path, timeout, peer.make_hello("worker", [epoch], stopping=streams.stopping))
    if epoch not in link.peer["logs"]:
        link.close()
        raise ValueError("it is on another log: give it the same broker")
    return link


class Mover:
    """See the module.

    :param broker: the broker.
    :param path: of the keeper's socket.
    :param wanted: which clients are this keeper's; ``None``: all.
    :param logged: the reasons for which clients stay here that were logged.
    """

    def __init__(self, broker: Broker, path: str, wanted: Wanted | None, logged: set[Stay]) -> None:
        self._broker = broker
        self._stays_logged = logged
        self._path = path
        self._wanted = wanted
        self._woken = Wakeup()
        self._idle = [None]  # the right to start the thread
        self._link: Link | None = None
        self._exporter: Exporter | None = None
        self._wait = _DELAY
        self._hurry = Wakeup()  # ends a pause
        self._used = self._logged_away = False
        #: Whether the keeper could not be used when it was last tried.
        self.is_away = False
        self._checked = -math.inf  # when it was last checked which clients stay

    def wake(self) -> None:
        """A client was added. Any thread; never waits."""
        self._woken.set()
        with contextlib.suppress(IndexError):
            self._idle.pop()
            self._start()

    def hurry(self) -> None:
        """Move clients now, also to a keeper that could not be used a moment ago. Any thread; never waits."""
        self.is_away = False  # until it was tried
        self._hurry.set()
        self.wake()

    def takes(self, connection: Connection) -> bool:
        """Whether a client will be moved to this keeper, if that is possible.

        :param connection: the client's.
        """
        return not self.is_away and (self._wanted is None or self._wanted(connection))

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="ssesync-mover", daemon=True).start()
        except RuntimeError:  # no thread can be started now: the next client tries again
            self._idle.append(None)

    def _run(self) -> None:
        wait: float | None = None
        while not self._broker.closed:
            if not self._woken.wait(_IDLE if wait is None else wait) and wait is None:
                break
            if self._woken.is_set():
                self._woken.clear()
                self._wait = _DELAY
                time.sleep(_DELAY)
            wait = self._turn()
        self._close()
        self._idle.append(None)
        if self._woken.is_set() and not self._broker.closed:  # since the last check
            self.wake()

    def _turn(self) -> float | None:
        """Move all clients that can be moved now.

        :return: seconds until more can be moved; ``None``: when one more is added.
        """
        is_fresh = self._exporter is None
        try:
            return self._move_all()
        except (OSError, ValueError) as error:
            self._close()
            if isinstance(error, LinkLost) and not is_fresh:
                return 0.0  # another process may be the keeper since the link was made
            return self._pause(str(error) or type(error).__name__)
        except Exception:
            logger.exception("clients can't be moved to the keeper at %s", escape(self._path))
            self._close()
            return self._pause("see the error above")

    def _move_all(self) -> float | None:
        if self._exporter is None:
            if not on_reactor(lambda: self._broker.broadcast_groups.movable(self._wanted)):
                return self._wait_for_others()
            self._link = connect_to(self._path, self._broker, _CONNECT)
            self._exporter = Exporter(self._link, self._broker, self._wanted)
        while True:
            result = self._exporter.move()
            if result.moved:
                self._recovered()
                self._wait = _DELAY
                if result.left:
                    continue
            elif result.refused:
                return self._pause(f"it refuses clients: {self._exporter.why}")
            break
        return self._soon() if result.left else self._wait_for_others()

    def _soon(self) -> float:
        """:return: seconds until the clients are tried again that can't be moved yet."""
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_DELAY)
        return wait

    def _wait_for_others(self) -> float | None:
        """:return: seconds until the clients are tried again for which the server's thread has not released the stream
        yet; ``None`` if there are none."""
        return self._soon() if self._some_may_follow() else None

    def _some_may_follow(self) -> bool:
        """Log for which reasons clients stay here, each reason once. The result: whether some stay for a time only."""
        now = time.monotonic()
        if now < self._checked + _CHECK:
            return True  # the check takes a step for each client
        self._checked = now
        staying = on_reactor(self._broker.broadcast_groups.staying)
        for reason, name in staying.items():
            lasts = reason is not Stay.HELD or self._wait == _LONGEST_DELAY
            if lasts and reason not in self._stays_logged:
                self._stays_logged.add(reason)
                logger.warning(
                    "the event stream %s stays in this process, and ends with it, as do others like it: %s",
                    escape(name), escape(reason.value),
                )  # fmt: skip
        return Stay.HELD in staying

    def _pause(self, why: str) -> float:
        """Do not use the keeper for some seconds."""
        self.is_away = True
        if not self._logged_away:
            self._logged_away = True
            logger.warning(
                "the keeper at %s can't be used, so this process serves the clients itself and tries again every %g s: "
                "%s", escape(self._path), _PAUSE, escape(why),
            )  # fmt: skip
        self._hurry.wait(_PAUSE)
        self._hurry.clear()
        return _DELAY

    def _recovered(self) -> None:
        self.is_away = False
        if self._logged_away:
            self._logged_away = False
            logger.warning("the keeper at %s takes clients again", escape(self._path))
        elif not self._used:
            logger.info("the keeper at %s takes this process's clients", escape(self._path))
        self._used = True

    def _close(self) -> None:
        link, exporter, self._link, self._exporter = self._link, self._exporter, None, None
        if exporter is not None:
            exporter.close()
        if link is not None:
            link.close()
