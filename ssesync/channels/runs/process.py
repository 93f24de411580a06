"""The runs that this process produces, and what it does for those of processes that are gone."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import time
import weakref
from collections import Counter
from typing import Any

from ...errors import BrokerError, RunRefused
from ...executor import callers
from ...json_encoder import dump_json
from ...locks import Once, foreign
from ...reactor import reactor
from ...server.exit import prepare
from ...server.registry import streams
from ...server.shutdown import time_to_finish
from ...text import escape
from ..entry import CLOSED, Entry
from ..message import CONTROL, body_of
from ..reentry import entered, is_inside
from .appender import Appender
from .contract import RunBroker
from .ending import SHUTDOWN, Ending, final_entry
from .options import RunOptions
from .owner import Owner
from .production import LOST, REFUSED, Production
from .record import RunRecord, RunState

__all__ = ["OwnRuns", "stop_entry"]

logger = logging.getLogger("ssesync")

# The requests to other processes.
_STOP, _INTERRUPTED = "stop_run", "run_interrupted"
# Seconds that close() waits until what was written is in the log.
_CLOSE_TIMEOUT = 3.0
# Seconds for which it is remembered that on_interrupted was called for a run.
_REMEMBERED = 86_400.0


def stop_entry(record: RunRecord) -> Entry:
    """Make the request that a run's owner cancels its producer, as the run was stopped.

    :param record: the run.
    :return: the entry for the log.
    """
    return _request(_STOP, record)


def _request(what: str, record: RunRecord) -> Entry:
    return Entry(CONTROL, body_of(dump_json({what: record.name, "began": record.began}), None, None))


class OwnRuns:
    """See the module. Its methods may be called from any thread.

    :param broker: the broker.
    """

    def __init__(self, broker: RunBroker) -> None:
        self._broker = broker
        self._own: dict[Production, bool] = {}  # and whether the log has it
        self._appender = Appender(broker)
        self._owner = Owner(broker._renew_owner, broker._check_open, self, self._appender.lock)
        self._ended: Counter[str] = Counter()
        self._prepared, self._closed = Once(), Once()
        self._unsure = False

    def ensure_owner(self) -> str:
        """Get ready to have runs.

        :return: the name of this process.
        :raises BrokerError: the log can't be reached or used.
        :raises RunRefused: the process is stopping, or no thread can be started.
        """
        if streams.stopping:
            raise RunRefused("no run can be started, as the process is stopping")
        self._broker._check_open()
        self._broker._ensure_listening()
        try:
            if self._prepared():
                reactor()  # a signal handler can't make it
                prepare()
                streams.add_work(self)
                atexit.register(_at_exit, weakref.ref(self), os.getpid())
            return self._owner.ensure()
        except RuntimeError as error:
            raise RunRefused("no thread can be started for runs") from error

    def monitor(self) -> None:
        """Have the thread run for a while: this process has followers, or the owner of a run may be gone."""
        with contextlib.suppress(RuntimeError):  # no thread can be started: another process may monitor the runs
            self._owner.monitor()

    def add(self, record: RunRecord, options: RunOptions) -> Production:
        """Add a run of this process, before the log has it: a request to stop it may come at once.

        :param record: the run.
        :param options: its options.
        :return: what writes it.
        """
        production = Production(record, options, self._appender, self._over)
        self._own[production] = False
        if not self._broker.expects_requests:
            self._broker.expects_requests = True
            self._broker._attached()
        return production

    def begun(self, production: Production) -> None:
        """Note that the log has a run that was added.

        :param production: the run.
        """
        for each, is_begun in list(self._own.items()):
            if is_begun and each.record.name == production.record.name:
                # It was ended by another process, as the log has this run in its place, into which it would write.
                each.supersede()
        if production in self._own:
            self._own[production] = True

    def remove(self, production: Production) -> None:
        """Remove a run that was added, and that the log does not have.

        :param production: the run.
        """
        self._own.pop(production, None)
        if not self._own:
            self._broker.expects_requests = False
            if self._own:  # another thread has added one meanwhile
                self._broker.expects_requests = True

    def settle(self, record: RunRecord) -> None:
        """Have nothing more appended of a run that has ended, before it is started anew: this process may not have
        noticed yet that another one has ended it, and what it writes would be taken for the new run's.

        :param record: the run.
        """
        production = self.find(record)
        if production is not None:
            production.supersede()
            self._appender.wait_for_group(_CLOSE_TIMEOUT)

    def find(self, record: RunRecord) -> Production | None:
        """Find a run of this process.

        :param record: the run.
        :return: ``None``: another process produces it.
        """
        own = list(self._own.items())
        return next((each for each, is_begun in own if is_begun and each.record.is_same(record)), None)

    def snapshot(self) -> dict[str, int]:
        """Count the runs of this process.

        :return: those that are running now, and since the process's start those that have ended, by state.
        """
        ended = dict(self._ended)
        return {"running": len(self._own), **{state.value: ended.get(state, 0) for state in RunState if state.ended}}

    def close(self) -> None:
        """Interrupt the runs of this process. Any thread, any signal handler, any number of times."""
        if not self._closed():
            return
        self._owner.close()
        ending = Ending(RunState.INTERRUPTED, SHUTDOWN)
        if is_inside():
            # The thread that was interrupted may hold the lock: the runs are left to other processes.
            for production in list(self._own):
                production.cancel(ending)
            self._appender.close(0.0)
            return
        for production in list(self._own):
            production.end(ending)
        self._appender.close(_CLOSE_TIMEOUT)

    # What the thread does.

    @property
    def is_needed(self) -> bool:
        """See :class:`ssesync.channels.runs.owner.Work`."""
        return bool(self._own) or len(self._broker.dispatcher) > 0

    @property
    def owns_runs(self) -> bool:
        """See :class:`ssesync.channels.runs.owner.Work`."""
        return bool(self._own)

    def check_time(self, now: float) -> None:
        """See :class:`ssesync.channels.runs.owner.Work`."""
        for production in list(self._own):
            production.check_time(now)
            since = streams.stopping_since
            if since is not None and now - since >= _seconds_to_finish(production):
                production.end(Ending(RunState.INTERRUPTED, SHUTDOWN))

    def turn(self) -> None:
        """See :class:`ssesync.channels.runs.owner.Work`."""
        if self._unsure:
            self._unsure = False
            try:
                self._check_own()
            except BrokerError:
                self._unsure = True
                raise
        self._end_abandoned(self._broker._abandoned())

    def fenced(self, owner: str) -> None:
        """See :class:`ssesync.channels.runs.owner.Work`."""
        productions = [each for each in list(self._own) if each.record.owner == owner]
        if not productions:
            return
        logger.warning(
            "%d runs of this process are cancelled: it was halted, or could not reach the broker, for longer than its "
            "lease, and other processes have ended them",
            len(productions),
        )
        for production in productions:
            production.withdraw(Ending(RunState.INTERRUPTED))

    def _check_own(self) -> None:
        for production in [each for each, is_begun in list(self._own.items()) if is_begun]:
            found = self._broker._find_run(production.record.name)
            if found is None or found.state.ended or not found.is_same(production.record):
                production.withdraw(Ending(RunState.STOPPED if found is None else found.state))

    def _end_abandoned(self, records: list[RunRecord]) -> None:
        if not records:
            return
        ending = Ending(RunState.INTERRUPTED)
        finals = [final_entry(record, ending, owner=record.owner) for record in records]
        _, numbers = self._broker._append_many(finals, whole=False)
        for record, number in zip(records, numbers, strict=True):
            if number == CLOSED:
                continue  # another process has ended it
            logger.warning(
                "the run %s was interrupted: %s",
                escape(record.name),
                "the process that produced it is gone" if record.owner else "no process has begun it in time",
            )
            self._announce(record)

    # How runs end.

    def _over(self, production: Production) -> None:
        record, ending = production.record, production.ended
        assert ending is not None
        if ending.reason == REFUSED:
            ending = production.ended = self._real_ending(record) or ending
        with entered(), self._appender.lock:
            self.remove(production)
            self._ended[ending.state] += 1
        seconds = time.monotonic() - production.began
        logger.info(
            "run ended: run=%s state=%s reason=%s events=%d seconds=%.3f",
            escape(record.name), escape(ending.state.value), escape(ending.reason), production.events, seconds,
        )  # fmt: skip
        if ending == (RunState.INTERRUPTED, SHUTDOWN, None):
            self._announce(record)

    def _real_ending(self, record: RunRecord) -> Ending | None:
        """Find how a run was ended that this process has not ended. ``None``: that is not known any more."""
        try:
            found = self._broker._find_run(record.name)
            if found is None or not found.is_same(record):
                return None
            if not found.state.ended:
                # The log has lost events of it: no more can be appended.
                lost = Ending(RunState.INTERRUPTED, LOST)
                self._broker._append_many([final_entry(record, lost, owner=record.owner)], whole=False)
                return lost
        except BrokerError:
            return None
        return Ending(found.state, found.reason)

    def _announce(self, record: RunRecord) -> None:
        """Have one of the processes call ``on_interrupted``, this one perhaps."""
        try:
            self._broker._append_many([_request(_INTERRUPTED, record)], whole=False)
        except BrokerError as error:
            logger.warning("on_interrupted is not called for the run %s: %s", escape(record.name), escape(error))
        self._interrupted(record.name, record.began)

    # What other processes ask for. On the listener's thread.

    def requested(self, request: dict[str, Any]) -> None:
        """Carry out a request of a process to all others.

        :param request: the request.
        """
        if _STOP in request:
            self.stopped(request[_STOP], request["began"])
        elif _INTERRUPTED in request:
            self._interrupted(request[_INTERRUPTED], request["began"])

    def requests_lost(self) -> None:
        """Have the thread check whether runs of this process were stopped: requests for that may have been lost."""
        if self._own:
            self._unsure = True
            self.monitor()

    def stopped(self, name: str, began: float) -> None:
        """Cancel the producer of a run that was stopped, if it is one of this process.

        :param name: the run's.
        :param began: when it was added.
        """
        for production in list(self._own):
            if production.record.is_called(name, began):
                production.withdraw(Ending(RunState.STOPPED))

    def _interrupted(self, name: str, began: float) -> None:
        # A process that is stopping, or has closed the broker, could not start it again: another one is to call it.
        if self._broker.when_interrupted is not None and not (streams.stopping or self._broker.closed):
            callers().submit(functools.partial(self._call_interrupted, name, began))

    def _call_interrupted(self, name: str, began: float) -> None:
        call, record = self._broker.when_interrupted, self._broker._find_run(name)
        if call is None or record is None or record.state is not RunState.INTERRUPTED:
            return
        if record.is_called(name, began) and self._broker.use_once(f"run:{name}:{record.began}", _REMEMBERED):
            foreign("on_interrupted")
            call(record)

    # When the process stops.

    def seconds_to_finish(self) -> float | None:
        """How long the runs of this process may go on when it stops.

        :return: seconds since the first request to stop; ``None``: there are none.
        """
        return max(map(_seconds_to_finish, list(self._own)), default=None)


def _seconds_to_finish(production: Production) -> float:
    settings = production.options.settings
    return 0.0 if settings.drain == "end" else time_to_finish(settings)


def _at_exit(reference: weakref.ref[OwnRuns], process: int) -> None:
    own = reference()
    if own is not None and os.getpid() == process:  # else this is a forked child, and they are the parent's
        own.close()
