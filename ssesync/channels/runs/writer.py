"""The writer that a run's producer is given, and the source behind it, whose writes go to the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from ...cancel import CancelToken
from ...errors import StreamClosed
from ...event import MEANT, Event, warn_if_encoded
from ...json_encoder import dump_json
from ...server.mailbox import Mailbox
from ...server.writer import Writer, WriterSource, to_event
from ...validation import refuse_unknown
from .options import RunOptions

__all__ = ["RunSource", "RunWriter", "event_of"]


class Target(Protocol):
    """The run that is written to."""

    options: RunOptions
    events: int

    def write(self, item: Any, type: str | None = None) -> None:
        """Write an item."""

    def write_event(self, event: Event, *, joins: bool = False) -> None:
        """Write an event."""

    def write_blocks(self, data: bytes) -> None:
        """Write whole blocks of an event stream."""


class RunSource(WriterSource):
    """The source of a run's writer. Nothing is pulled from it: its mailbox is empty, and only closed.

    :param target: the run.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(Mailbox(), CancelToken())
        self._target = target

    def put(self, data: bytes, events: int, resumable: bool | None = None) -> None:
        """Write blocks; see :class:`WriterSource`. Comments are left out: followers have keep-alives of their own."""
        if self.reason is not None:
            raise StreamClosed(self.reason)
        if events:
            self._target.write_blocks(data)

    @property
    def events(self) -> int:
        """See :class:`Source`."""
        return self._target.events


class RunWriter(Writer):
    """The writer of a run. Its writes wait while too much of this process waits for the log.

    ``close()`` ends the run after what was written, ``cancel()`` as one that was stopped. Ids are the broker's: an
    event that has one is refused. Comments and keep-alives are left out, as followers are not sent them.

    :param target: the run.
    :param source: its source.
    """

    def __init__(self, target: Target, source: RunSource) -> None:
        options = target.options
        self._write_to(source, options.settings, options.dumps, None)
        self._target = target
        self._after = options.after_step

    def write_event(
        self,
        data: Any = None,
        *,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
        **unknown: NoReturn,
    ) -> None:
        """Write one event; see :class:`Writer`. Text is joined to other text, where the run has ``merge``."""
        if unknown:
            refuse_unknown(Writer.write_event, unknown, meant=MEANT)
        if isinstance(data, (str, bytes, bytearray)) and id is None and retry is None and comment is None:
            self._target.write(data, type)
        else:
            text = None if data is None else event_of(data, None, self._dumps).data
            self._target.write_event(Event(text, type=type, id=id, retry=retry, comment=comment))
        self._step()

    def write(self, item: Any) -> None:
        """Write an item; see :class:`Writer`. Text is joined to other text, where the run has ``merge``."""
        self._target.write(item)
        self._step()

    def write_text(self, text: str, *, type: str | None = None) -> None:
        """Write text that may be joined to the text of the same type that is written about the same moment.

        :param text: the text.
        :param type: the events' type.
        :raises StreamClosed: the run has ended.
        """
        self._target.write_event(Event(text, type=type), joins=True)
        self._step()

    def write_comment(self, text: str) -> None:
        """Do nothing: see the class."""

    def write_keep_alive(self) -> None:
        """Do nothing: see the class."""

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Do as :class:`Writer`. What is written within a moment goes into the log in one step in any case."""
        yield

    def _step(self) -> None:
        if self._after is not None:
            self._after()


def event_of(item: Any, type: str | None, dumps: Callable[[Any], str | bytes] | None) -> Event:
    """Make an event of what is written.

    :param item: an event, text, or a value for the JSON encoder.
    :param type: the event's type, where ``item`` is no event.
    :param dumps: the JSON encoder.
    :return: the event.
    :raises TypeError: it is nothing that can be sent, or there are two types.
    """
    if isinstance(item, Event):
        if type is not None:
            raise TypeError("give the type to the Event that is written, not beside it")
        return item
    if type is None:
        return to_event(item, dumps or dump_json)
    if isinstance(item, (str, bytes, bytearray)):
        return warn_if_encoded(Event(bytes(item) if isinstance(item, bytearray) else item, type=type))
    return Event(to_event(item, dumps or dump_json).data, type=type)
