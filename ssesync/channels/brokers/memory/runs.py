"""The runs of the memory broker. Every method is called with the broker's lock held."""

from __future__ import annotations

import heapq
import time
from collections import Counter

from ...entry import Outcome
from ...runs.record import RunRecord, RunState

__all__ = ["RunTable"]


class RunTable:
    """The runs of a process, until they are removed."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._queued: dict[str, float] = {}  # by its name, when a run is ended that was not begun
        self._active: Counter[str] = Counter()  # by their subject, how many have not ended
        self._expiring: list[tuple[float, str]] = []  # a heap: when they expire, and their names

    def get(self, name: str) -> RunRecord | None:
        """Find a run.

        :param name: its name.
        :return: the run; ``None`` if there is none, or it has expired.
        """
        record = self._records.get(name)
        return None if record is None or _expiry(record) < time.time() else record

    def add(self, record: RunRecord) -> None:
        """Add a run.

        :param record: the run. There is none of its name.
        """
        self._records[record.name] = record
        self._active[record.subject] += 1
        if record.state is RunState.QUEUED and record.deadline:
            self._queued[record.name] = record.deadline

    def own(self, name: str, owner: str) -> bool:
        """Set the owner of a queued run.

        :param name: the run's name.
        :param owner: the owner.
        :return: whether it was queued.
        """
        record = self._records.get(name)
        if record is None or record.state is not RunState.QUEUED:
            return False
        self._records[name] = record._replace(owner=owner, state=RunState.RUNNING)
        self._queued.pop(name, None)
        return True

    def end(self, name: str, outcome: Outcome) -> None:
        """End a run.

        :param name: the name of a run that has not ended.
        :param outcome: how it ends.
        """
        record = self._records[name]
        ended = record._replace(state=RunState(outcome.state), reason=outcome.reason, ended=time.time())
        self._records[name] = ended
        self._deactivate(ended)
        heapq.heappush(self._expiring, (_expiry(ended), name))

    def remove(self, name: str) -> None:
        """Remove a run.

        :param name: its name.
        """
        record = self._records.pop(name)
        if not record.state.ended:
            self._deactivate(record)

    def active(self, subject: str) -> int:
        """Count a subject's runs that have not ended.

        :param subject: the subject.
        :return: how many there are.
        """
        return self._active[subject]

    def expired(self, limit: int) -> list[str]:
        """Find expired runs.

        :param limit: how many at most. Each is found once.
        :return: their names.
        """
        now = time.time()
        names: list[str] = []
        while self._expiring and self._expiring[0][0] < now and len(names) < limit:
            expiry, name = heapq.heappop(self._expiring)
            record = self._records.get(name)
            if record is not None and _expiry(record) == expiry:  # else another run has its name by now
                names.append(name)
        return names

    def overdue(self) -> list[RunRecord]:
        """Find the queued runs that were not begun in time.

        :return: the runs.
        """
        now = time.time()
        return [self._records[name] for name, deadline in self._queued.items() if deadline < now]

    def owner_of(self, name: str) -> str:
        """The owner of a run.

        :param name: the run's name.
        :return: the owner; ``""`` while it is queued.
        """
        return self._records[name].owner

    def _deactivate(self, record: RunRecord) -> None:
        self._queued.pop(record.name, None)
        self._active[record.subject] -= 1
        if not self._active[record.subject]:
            del self._active[record.subject]


def _expiry(record: RunRecord) -> float:
    return record.ended + record.retain if record.state.ended else float("inf")
