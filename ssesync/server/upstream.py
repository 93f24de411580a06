"""The source of a relay: a thread passes its upstream on, unless the reactor reads the upstream's socket in its
place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cancel import CancelToken
from ..errors import CloseReason
from ..producing import Producing, Tap
from .descriptors import duplicate
from .producer import InlineProducer, ThreadProducer
from .producers import Slot
from .source import Overload, Pulled, Refusal, Tappable
from .starts import USUAL, views

if TYPE_CHECKING:
    from .factory import Producer
    from .spec import StreamSpec

__all__ = ["InlineUpstream", "UpstreamProducer"]


class InlineUpstream(InlineProducer):
    """Runs a relay step by step.

    :param relay: the relay.
    """

    def __init__(
        self, relay: Producing, producer: Producer, spec: StreamSpec, cancelled: CancelToken, last_event_id: str
    ) -> None:
        super().__init__(producer, spec, cancelled, last_event_id)
        self._relay = relay

    @property
    def passed_headers(self) -> Sequence[tuple[str, str]]:
        """See :class:`Source`."""
        return self._relay.passed_headers

    def open(self, wait: float) -> Refusal | None:
        """See :class:`Source`. If the request was not sent to the upstream yet, it is sent now."""
        answer = self._relay.answered() if self._relay.exchange is not None else None
        return answer if answer is not None else super().open(wait)


class UpstreamProducer(ThreadProducer, Tappable):  # pyright: ignore[reportIncompatibleVariableOverride]  # on_ready
    """Runs a relay on a thread, unless its upstream is tapped before that was started.

    :param relay: the relay.
    """

    def __init__(
        self,
        relay: Producing,
        producer: Producer,
        spec: StreamSpec,
        cancelled: CancelToken,
        last_event_id: str,
        slot: Slot,
    ) -> None:
        super().__init__(producer, spec, cancelled, last_event_id, slot)
        self._relay = relay
        self._postponed = False

    def postpone(self) -> None:
        """See :class:`Tappable`."""
        self._postponed = self._relay.can_tap

    @property
    def relay(self) -> Producing:
        """See :class:`Tappable`."""
        return self._relay

    @property
    def passed_headers(self) -> Sequence[tuple[str, str]]:
        """See :class:`Source`."""
        return self._relay.passed_headers

    @property
    def headers(self) -> tuple[str, ...]:
        """See :class:`Tappable`."""
        return tuple(name for name, _ in self._spec.headers)

    def open(self, wait: float) -> Refusal | Overload | None:
        """Start the thread, unless that is postponed; see :class:`Source`.

        The thread always reads an upstream that has ended by now: it does not have to wait, and the view raises an
        error before the first event. The view waits for an early end only if ``first_event_timeout`` was set: most
        upstreams take longer for their first event than a view can wait.

        A request that was not sent yet is sent now if the stream stays served, which is assumed if the view's last one
        has: a refusal can have its status only before the head is sent.
        """
        if self._relay.exchange is not None and (not self._postponed or views.stays(self._producer.view)):
            try:
                answer = self._relay.answered()
            except BaseException:
                self._slot.release()
                raise
            if answer is not None:
                self._slot.release()
                return answer
            self._postponed = self._postponed and self._relay.can_tap
        if self._postponed and self._relay.exchange is not None:
            self._slot.release()  # no thread of a producer runs while the reactor waits for the upstream's answer
        elif self._postponed:
            setting = self._spec.settings.first_event_timeout
            self._postponed = not self._relay.has_ended(0 if setting == "auto" else setting)
            wait = max(wait, USUAL) if setting == "auto" else wait
        return None if self._postponed else super().open(wait)

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`."""
        if self._postponed and self.reason is None:
            self._postponed = False
            self._begun()  # the answer has begun: an error event reports a failure to the client
            if super().open(0) is not None:
                self.mailbox.close(CloseReason.CANCELLED)
        return super().pull(most)

    def close(self) -> None:
        """See :class:`Source`."""
        if self._postponed:
            self._slot.release()  # its thread was not started, and will not be
        super().close()

    def tap(self) -> Tap | None:
        """See :class:`Tappable`."""
        if not (self._postponed and self._relay.can_tap):
            return None
        tap = self._relay.tap(duplicate)
        self._postponed = False
        self._slot.release()
        return tap
