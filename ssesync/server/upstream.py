"""The source of a relay: a thread that passes its upstream on, or in its place the reactor reads both sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cancel import CancelToken
from ..errors import CloseReason
from ..producing import Producing, Tap
from .descriptors import duplicate
from .producer import InlineProducer, ThreadProducer
from .producers import Place
from .source import Overload, Pulled, Refusal, Tappable
from .starts import USUAL, views

if TYPE_CHECKING:
    from .factory import Producer
    from .spec import StreamSpec

__all__ = ["InlineUpstream", "UpstreamProducer"]


class InlineUpstream(InlineProducer):
    """Runs a relay step by step.

    :param given: the relay.
    """

    def __init__(
        self, given: Producing, producer: Producer, spec: StreamSpec, cancelled: CancelToken, last_event_id: str
    ) -> None:
        super().__init__(producer, spec, cancelled, last_event_id)
        self._given = given

    def open(self, wait: float) -> Refusal | None:
        """See :class:`Source`. An upstream that was not asked yet is asked now."""
        answer = self._given.answered() if self._given.exchange is not None else None
        return answer if answer is not None else super().open(wait)


class UpstreamProducer(ThreadProducer, Tappable):  # pyright: ignore[reportIncompatibleVariableOverride]  # on_ready
    """Runs a relay on a thread, unless its upstream is tapped before that was started.

    :param given: the relay.
    """

    def __init__(
        self,
        given: Producing,
        producer: Producer,
        spec: StreamSpec,
        cancelled: CancelToken,
        last_event_id: str,
        place: Place,
    ) -> None:
        super().__init__(producer, spec, cancelled, last_event_id, place)
        self._given = given
        self._postponed = False

    def postpone(self) -> None:
        """See :class:`Tappable`."""
        self._postponed = self._given.can_tap

    @property
    def relay(self) -> Producing:
        """See :class:`Tappable`."""
        return self._given

    @property
    def headers(self) -> tuple[str, ...]:
        """See :class:`Tappable`."""
        return tuple(name for name, _ in self._spec.headers)

    def open(self, wait: float) -> Refusal | Overload | None:
        """Start the thread, unless that is postponed; see :class:`Source`.

        An upstream that has ended by now is read by the thread in any case: there is nothing to wait for, and what it
        has broken off with before its first event is raised. Whether it is about to end is waited for only where
        ``first_event_timeout`` was set: most upstreams take longer for their first event than a view can wait.

        An upstream that was not asked yet is asked now if the stream stays served, which is assumed if the view's last
        one has: a refusal has its status only as long as no head was sent.
        """
        if self._given.exchange is not None and (not self._postponed or views.stays(self._producer.view)):
            try:
                answer = self._given.answered()
            except BaseException:
                self._place.release()
                raise
            if answer is not None:
                self._place.release()
                return answer
            self._postponed = self._postponed and self._given.can_tap
        if self._postponed and self._given.exchange is not None:
            self._place.release()  # while the upstream is asked no thread is taken
        elif self._postponed:
            setting = self._spec.settings.first_event_timeout
            self._postponed = not self._given.has_ended(0 if setting == "auto" else setting)
            wait = max(wait, USUAL) if setting == "auto" else wait
        return None if self._postponed else super().open(wait)

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`."""
        if self._postponed and self.reason is None:
            self._postponed = False
            self._begun()  # the answer has: a failure is told to the client
            if super().open(0) is not None:
                self.mailbox.close(CloseReason.CANCELLED)
        return super().pull(most)

    def close(self) -> None:
        """See :class:`Source`."""
        if self._postponed:
            self._place.release()  # its thread was not started, and will not be
        super().close()

    def tap(self) -> Tap | None:
        """See :class:`Tappable`."""
        if not (self._postponed and self._given.can_tap):
            return None
        tap = self._given.tap(duplicate)
        self._postponed = False
        self._place.release()
        return tap
