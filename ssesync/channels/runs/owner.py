"""The owner of runs: a process with a lease in the log, and the thread that monitors runs.

The log knows which process produces each run. That process renews its lease while it has runs. A process that does not
any more is gone, or was halted for too long: then any other process that has runs, or clients that follow some, ends
its runs as interrupted. A process that was only halted notices that by its lease or by the first append that is
refused, and cancels its producers. It takes a new name then.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ...errors import BrokerClosed
from ...retry import FailureLog
from ..reentry import Wakeup
from ..starting import SharedStart

__all__ = ["LEASE", "Owner"]

#: Seconds after its last renewal for which a process counts as alive.
LEASE = 5.0
# Seconds between two turns of the thread while it monitors runs, and for how long it does after the last call of
# monitor().
_TURN, _MONITORED = 0.25, 30.0
# Seconds between attempts while the log can't be reached, the first and the longest.
_RETRY = (0.25, 2.0)


class Work(Protocol):
    """What the thread does, and whether it has to."""

    def check_time(self, now: float) -> None:
        """End the runs of this process whose time is over, also while the log can't be reached.

        :param now: the time on the monotonic clock.
        """

    def turn(self) -> None:
        """End the runs of this process that others have ended, and those of processes that are gone.

        :raises BrokerError: the log can't be reached.
        """

    @property
    def is_needed(self) -> bool:
        """Whether there are runs or followers here."""
        ...

    @property
    def owns_runs(self) -> bool:
        """Whether this process has runs."""
        ...

    def fenced(self, owner: str) -> None:
        """Cancel the runs of this process that were begun under a name: others have ended them.

        :param owner: the name.
        """


class Owner:
    """See the module.

    :param renew: renews the lease; see :meth:`ssesync.channels.backend.Backend._renew_owner`.
    :param check: raises an error if the broker is closed.
    :param work: the runs.
    :param lock: held for single steps only.
    """

    def __init__(
        self,
        renew: Callable[[str, float], bool],
        check: Callable[[], object],
        work: Work,
        lock: threading.Lock,
    ) -> None:
        self._lease = SharedStart(lock, self._renew_now, check)
        self._renew = renew
        self._work = work
        self.name = self._new_name()
        self._renewed = -LEASE  # on the monotonic clock
        self._monitored_until = 0.0
        self._woken = Wakeup()
        self._threads: dict[None, threading.Thread] = {}  # one, put in and taken out in single steps
        self._failures = FailureLog("runs: the lease of this process", *_RETRY)
        self._closed = False

    @staticmethod
    def _new_name() -> str:
        return f"{os.getpid()}-{secrets.token_hex(8)}"

    def ensure(self) -> str:
        """Have a lease, before a run is begun.

        :return: the name of this process.
        :raises BrokerError: the log can't be reached.
        :raises RuntimeError: no thread can be started.
        """
        self.monitor()
        self._renew_if_due()
        return self.name

    def monitor(self) -> None:
        """Have the thread run for a while at least, although there are neither runs nor followers here.

        :raises RuntimeError: it can't be started.
        """
        self._monitored_until = time.monotonic() + _MONITORED
        if not self._threads:
            thread = threading.Thread(target=self._run, name="ssesync-runs", daemon=True)
            if self._threads.setdefault(None, thread) is thread:
                try:
                    thread.start()
                except BaseException:
                    self._threads.clear()
                    raise
        self._woken.set()

    def close(self) -> None:
        """End the thread. Any thread, any signal handler."""
        self._closed = True
        self._woken.set()

    def _renew_if_due(self) -> None:
        if time.monotonic() - self._renewed >= LEASE / 3:
            # One thread at a time: the others wait for it, and have the same name then.
            self._lease.end()
            self._lease.ensure()

    def _renew_now(self) -> None:
        now, name = time.monotonic(), self.name
        if not self._renew(name, LEASE):
            # The runs that were begun under this name are over, and a run that is begun under it would be.
            self.name = self._new_name()
            self._renew(self.name, LEASE)
            self._work.fenced(name)
        self._renewed = now

    # On the thread.

    def _run(self) -> None:
        while not self._closed:
            now = time.monotonic()
            try:
                self._work.check_time(now)
                if self._work.owns_runs:
                    self._renew_if_due()
                self._work.turn()
            except BrokerClosed:
                return
            except Exception as error:
                wait: float | None = self._failures.failed(error)
            else:
                self._failures.succeeded()
                is_needed = self._work.is_needed or now < self._monitored_until
                # Not all processes at the same moment: one of them ends what another has left.
                wait = _TURN * random.uniform(0.8, 1.2) if is_needed else None
            self._woken.wait(wait)
            self._woken.clear()
