"""The runs of a broker: starts, lookups and stops, as a broker's methods offer them."""

from __future__ import annotations

import functools
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, RunConflict, RunRefused, excerpt
from ...event import Event
from ...executor import callers
from ...server.factory import Producer
from ...server.producers import producers
from ...text import escape
from ..entry import CLOSED
from ..message import Message, parse_id
from ..policy import Policy
from ..reentry import is_inside
from .contract import RunBroker
from .ending import SHUTDOWN, Ending, final_entry
from .options import RunOptions
from .process import OwnRuns, stop_entry
from .producing import ProducerThread, producer_of
from .production import LOST, Production
from .record import RunRecord, RunState
from .request import RunRequest, unknown
from .run import Run

if TYPE_CHECKING:
    from ..subscription import Subscription

__all__ = ["Runs"]

logger = logging.getLogger("ssesync")

# Seconds that the end of a `with` block waits for the log.
_FINISH_TIMEOUT = 30.0
# Seconds between two reads of the record of a run that another process produces, and until it is read after the
# subscription to it has ended.
_REFRESH, _PAUSE = 2.0, 0.2


class Runs:
    """See the module. Methods may be called from any thread.

    :param broker: the broker.
    """

    def __init__(self, broker: RunBroker) -> None:
        self._broker = broker
        #: Those of this process.
        self.own = OwnRuns(broker)

    @property
    def current(self) -> Runs:
        """The broker's: these, or in a forked child others."""
        return self._broker.runs

    def start(self, request: RunRequest, producer: Any, args: tuple[Any, ...], options: RunOptions) -> Run:
        """See :meth:`ssesync.Broker.start_run`."""
        made = producer_of(producer, args, options)
        started = False
        try:
            run = self._joined(request)
            if run is None:
                run, started = self._start(request, made, options)
        finally:
            if not started:
                made.discard()
        return run

    def _start(self, request: RunRequest, made: Producer, options: RunOptions) -> tuple[Run, bool]:
        """Start a run, unless another process has started it meanwhile.

        :return: the run, and whether the producer runs.
        """
        slot = producers.reserve(made.view(), request.name, options.settings, None)
        if slot is None:
            raise RunRefused("no more producers may run in this process: see max_producers")
        production: Production | None = None
        try:
            run, production = self._begin(request, options)
        finally:
            if production is None:
                slot.release()
        if production is None:
            return run, False
        try:
            ProducerThread(production, made, slot).start()
        except RunRefused as error:
            production.fail(error)
            raise
        return run, True

    def queue(self, request: RunRequest, wait: float, options: RunOptions) -> Run:
        """See :meth:`ssesync.Broker.queue_run`."""
        run = self._joined(request)
        if run is not None:
            return run
        self._broker._check_open()
        record = _record_of(request, options, "", RunState.QUEUED, time.time() + wait)
        added, found = self._broker._begin_run(record, _most(record, options), request.restart)
        return Run(self, record) if added else self._found(request, found)

    def open(self, request: RunRequest, options: RunOptions) -> Run:
        """See :meth:`ssesync.Broker.open_run`."""
        record = self._broker._find_run(request.name)
        if record is not None:
            request.check(record)
            request = request._replace(subject=record.subject)
            if record.state is RunState.QUEUED:
                run = self._begin_queued(record, options)
                if run is not None:
                    return run
        if record is None or request.replaces(record):
            if record is not None:
                self.own.settle(record)
            run, production = self._begin(request, options)
            if production is not None:
                return run
        record = record or self._broker._find_run(request.name)  # None: another process has added it meanwhile
        if record is not None and record.state.ended:
            raise RunConflict(f"the run {excerpt(request.name)} has ended: restart=True begins it anew")
        raise RunConflict(f"the run {excerpt(request.name)} is running already: stop() ends it")

    def _begin_queued(self, record: RunRecord, options: RunOptions) -> Run | None:
        owner = self.own.ensure_owner()
        record = record._replace(owner=owner, state=RunState.RUNNING)
        production = self.own.add(record, options)
        try:
            begun = self._broker._own_run(record.name, owner)
        except BrokerError:
            production.end(Ending(RunState.INTERRUPTED, LOST))  # it may have been begun all the same
            raise
        if begun:
            self.own.begun(production)
            return Run(self, record, production)
        self.own.remove(production)
        return None

    def _begin(self, request: RunRequest, options: RunOptions) -> tuple[Run, Production | None]:
        """Add a run that this process produces, unless there is one.

        :return: the run, and what writes it; ``None``: it was there.
        """
        owner = self.own.ensure_owner()
        record = _record_of(request, options, owner, RunState.RUNNING)
        production = self.own.add(record, options)
        try:
            added, found = self._broker._begin_run(record, _most(record, options), request.restart)
        except BrokerError:
            production.end(Ending(RunState.INTERRUPTED, LOST))  # it may have been added all the same
            raise
        if added:
            self.own.begun(production)
            if self._broker.closed:  # by another thread, which has not seen it
                production.cancel(Ending(RunState.INTERRUPTED, SHUTDOWN))
            return Run(self, record, production), production
        self.own.remove(production)
        return self._found(request, found), None

    def _found(self, request: RunRequest, record: RunRecord | None) -> Run:
        if record is None:
            raise RunRefused(f"the subject {excerpt(request.subject)} has too many runs: see max_per_subject")
        request.check(record)
        return Run(self, record, self.own.find(record))

    def _joined(self, request: RunRequest) -> Run | None:
        record = self._broker._find_run(request.name)
        if record is None:
            return None
        request.check(record)
        if request.replaces(record):
            self.own.settle(record)
            return None
        if not record.state.ended:
            self.own.monitor()
        return Run(self, record, self.own.find(record))

    def get(self, request: RunRequest) -> Run:
        """See :meth:`ssesync.Broker.get_run`."""
        run = self._joined(request)
        if run is None:
            raise unknown(request.name)
        return run

    def find(self, name: str, subject: str) -> RunRecord:
        """Find the record of a run.

        :param name: the run's.
        :param subject: whose it is.
        :return: the record.
        :raises BrokerError: the broker can't be asked.
        :raises RunUnknown: there is none.
        """
        record = self._broker._find_run(name)
        if record is None or record.subject != subject:
            raise unknown(name)
        return record

    def follow(self, record: RunRecord, last_event_id: str | None, options: dict[str, Any]) -> Subscription:
        """See :meth:`Run.follow`."""
        self.find(record.name, record.subject)
        self.own.monitor()
        if last_event_id and self._is_of(record.name, last_event_id):
            return self._broker.subscribe(record.name, last_event_id=last_event_id, **options)
        subscription = self._broker.subscribe(record.name, since="start", **options)
        if last_event_id:
            # Unlike a client of any other channel it can be given all that it may have missed.
            reset = options.get("reset_event", Policy().reset_event)
            subscription.send_first([Event.from_json({"reason": "unknown"}, type=reset)])
            self._broker.count("resets", 1)
        return subscription

    def _is_of(self, name: str, event_id: str) -> bool:
        """Whether an id is one from after a run's start, and not of an event of an earlier run of this name: a client
        that has that id shows its events."""
        start = self._broker.start_of([name], (), None)
        position = parse_id(event_id)
        return position is not None and position[0] == start.epoch and position[1] > start.seq

    def wait(self, record: RunRecord, timeout: float | None) -> bool:
        """See :meth:`Run.wait`, for a run of another process."""
        self.own.monitor()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        looked = -math.inf
        with self._broker.subscribe(record.name) as subscription:
            while True:
                now = time.monotonic()
                if now - looked >= _REFRESH:
                    looked = now
                    found = self._broker._find_run(record.name)
                    if found is None or found.state.ended or not found.is_same(record):
                        return True
                if now >= deadline:
                    return False
                items = subscription.take(min(_REFRESH, deadline - now))
                if items is None:
                    time.sleep(min(_PAUSE, max(0.0, deadline - now)))
                if items is None or any(isinstance(item, Message) and item.final for item in items):
                    looked = -math.inf

    def stop(self, record: RunRecord) -> bool:
        """See :meth:`Run.stop`."""
        if is_inside():
            callers().submit(functools.partial(self._stop, record))
            return False
        return self._stop(record)

    def _stop(self, record: RunRecord) -> bool:
        found = self._broker._find_run(record.name)
        if found is None or found.state.ended or not found.is_same(record):
            return False  # the run that has its name by now is another one
        # The final event is appended here and not by the owner, which may be gone, or busy: so a stop is definite.
        # It names the owner, if there was one: else it could end a run that another process has started anew.
        final = final_entry(found, Ending(RunState.STOPPED), owner=found.owner)
        _, numbers = self._broker._append_many([final, stop_entry(record)], whole=False)
        if numbers[0] == CLOSED:
            return False
        self.own.stopped(record.name, record.began)
        logger.info("the run %s was stopped", escape(record.name))
        return True

    def finish(self, production: Production) -> None:
        """Wait until the end of a run is in the log.

        :param production: the run.
        """
        if not production.wait(_FINISH_TIMEOUT):
            logger.warning(
                "the end of the run %s is not in the log yet, as the broker can't be reached",
                escape(production.record.name),
            )


def _record_of(
    request: RunRequest, options: RunOptions, owner: str, state: RunState, deadline: float = 0.0
) -> RunRecord:
    return RunRecord(
        request.name, owner, state, request.subject or "", request.fingerprint or "", time.time(), options.retain,
        deadline, end_type=options.end_type,
    )  # fmt: skip


def _most(record: RunRecord, options: RunOptions) -> int | None:
    return options.max_per_subject if record.subject else None
