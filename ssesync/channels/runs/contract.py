"""A broker, as its runs use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..entry import Entry
from ..log import ProcessBroker
from .record import RunRecord

if TYPE_CHECKING:
    from ..subscription import Subscription
    from .runs import Runs

__all__ = ["RunBroker"]


class RunBroker(ProcessBroker, Protocol):
    """See :class:`ssesync.channels.backend.Backend`, which documents these methods."""

    expects_requests: bool
    when_interrupted: Callable[[RunRecord], object] | None

    @property
    def runs(self) -> Runs:
        """The runs of this process."""
        ...

    def subscribe(self, *channels: str, **options: Any) -> Subscription:
        """See :meth:`ssesync.channels.broker.Broker.subscribe`."""
        ...

    def use_once(self, token: str, seconds: float) -> bool:
        """See :meth:`ssesync.channels.broker.Broker.use_once`."""
        ...

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]: ...

    def _begin_run(self, record: RunRecord, most: int | None, restart: bool) -> tuple[bool, RunRecord | None]: ...

    def _own_run(self, name: str, owner: str) -> bool: ...

    def _find_run(self, name: str) -> RunRecord | None: ...

    def _renew_owner(self, owner: str, lease: float) -> bool: ...

    def _abandoned(self) -> list[RunRecord]: ...

    def _ensure_listening(self) -> None: ...

    def _attached(self) -> None: ...

    def _check_open(self) -> None: ...
