"""The part of the Redis broker that keeps the records of runs, and finds those whose owner is gone."""

from __future__ import annotations

import secrets
from typing import Any

from ....errors import ChannelError, excerpt
from ...runs.record import RunRecord, RunState
from . import run_scripts
from .log import RedisLog

__all__ = ["RedisRuns"]

# Runs whose owner is gone that are found at a time.
_ABANDONED = 200


class RedisRuns(RedisLog):
    """The functions of a broker for runs. What depends on the time depends on the server's clock."""

    def _reset(self) -> None:
        super()._reset()
        self._owners: dict[str, bool] = {}  # of this process, and whether they are owners still

    def _begin_run(self, record: RunRecord, most: int | None, restart: bool) -> tuple[bool, RunRecord | None]:
        # Of this process' clock only the difference is taken.
        wait = max(1, _microseconds(record.deadline - record.began)) if record.deadline else 0
        flat: list[str] = []
        for field, value in record._asdict().items():
            flat += (field, str.__str__(value) if isinstance(value, str) else repr(value))
        what, *fields = self._run(
            run_scripts.BEGIN_RUN, secrets.token_hex(4), record.name, record.owner, record.subject,
            -1 if most is None else most, int(restart), wait, _microseconds(record.retain), *flat,
        )  # fmt: skip
        if what == b"channel":
            raise ChannelError(f"{excerpt(record.name)} is a channel, so no run can have this name")
        return what == b"added", _record(record.name, fields[0]) if fields else None

    def _own_run(self, name: str, owner: str) -> bool:
        return bool(self._run(run_scripts.OWN_RUN, secrets.token_hex(4), name, owner))

    def _find_run(self, name: str) -> RunRecord | None:
        fields = self._run(run_scripts.FIND_RUN, secrets.token_hex(4), name)
        return _record(name, fields) if fields else None

    def _renew_owner(self, owner: str, lease: float) -> bool:
        if self._owners.get(owner, True):
            is_new = owner not in self._owners
            known = self._run(
                run_scripts.RENEW_OWNER, secrets.token_hex(4), owner, _microseconds(lease), int(is_new)
            )  # fmt: skip
            self._owners[owner] = bool(known)
        return self._owners[owner]

    def _abandoned(self) -> list[RunRecord]:
        alive = [owner for owner, is_owner in list(self._owners.items()) if is_owner]
        flat = self._run(run_scripts.ABANDONED, secrets.token_hex(4), _ABANDONED, *alive)
        return [_record(name.decode(), fields) for name, fields in zip(flat[::2], flat[1::2], strict=True)]


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _record(name: str, flat: list[bytes]) -> RunRecord:
    """Make a record of a hash's fields and values. Of a run whose record was evicted there are none."""
    found = dict(zip(map(bytes.decode, flat[::2]), map(bytes.decode, flat[1::2]), strict=True))
    fields: dict[str, Any] = RunRecord(name, "", RunState.RUNNING, "", "", 0.0, 0.0, 0.0)._asdict()
    for field, value in fields.items():
        if field in found:
            fields[field] = type(value)(found[field])  # text, a number, or a state
    if "ended_at" in found:
        fields["ended"] = int(found["ended_at"]) / 1_000_000
    return RunRecord(**fields)
