"""Writer: the imperative interface of a stream; and the conversion of a view's values to events."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ..cancel import CancelToken
from ..errors import CloseReason, StreamClosed
from ..event import MEANT, Event, warn_if_encoded, written_id
from ..json_encoder import dump_json
from ..reactor import run_foreign
from ..settings import DEFAULTS, Settings
from ..text import shown
from ..validation import refuse_unknown
from ..wire.blocks import sets_id
from ..wire.encoder import encode, encode_comment, encode_keep_alive
from .mailbox import Mailbox
from .source import Pulled, Source, Streamable

__all__ = ["Writer", "WriterSource"]


class WriterSource(Source):
    """The source of a stream with a writer: its writes wait in a mailbox.

    :param mailbox: the mailbox.
    :param cancelled: set with the reason when the source is cancelled or stopped.
    """

    def __init__(self, mailbox: Mailbox, cancelled: CancelToken) -> None:
        self.mailbox = mailbox
        self.cancelled = cancelled
        self._resumable = False

    def put(self, data: bytes, events: int, resumable: bool | None = None) -> None:
        """Add a write, waiting while the mailbox is full.

        :param data: whole blocks of an event stream.
        :param events: how many events they hold.
        :param resumable: whether the client now has an event ID to resume from; ``None``: no change.
        :raises StreamClosed: the stream is over.
        """
        self.mailbox.put(data, events=events)
        # After the call that may raise: a client can't resume from an ID that it was not sent.
        if resumable is not None:
            self._resumable = resumable

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`."""
        return self.mailbox.pull(most)

    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        """See :class:`Source`."""
        reason = CloseReason(reason)
        self.mailbox.close(reason, discard=True, dropped=dropped)
        self.cancelled._set(reason, run_foreign)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """See :class:`Source`."""
        reason = CloseReason(reason)
        self.mailbox.close(reason, last=last)
        self.cancelled._set(reason, run_foreign)

    def close(self) -> None:
        """See :class:`Source`."""
        self.cancel(CloseReason.CANCELLED)

    @property
    def on_ready(self) -> Callable[[], object] | None:
        """See :class:`Source`."""
        return self.mailbox.on_ready

    @on_ready.setter
    def on_ready(self, call: Callable[[], object] | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.mailbox.on_ready = call

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Source`."""
        return self.mailbox.reason

    @property
    def pending(self) -> tuple[int, int]:
        """See :class:`Source`."""
        return self.mailbox.pending

    @property
    def events(self) -> int:
        """See :class:`Source`."""
        return self.mailbox.events

    @property
    def resumable(self) -> bool:
        """See :class:`Source`."""
        return self._resumable


class _Batch(threading.local):
    """The writes of a thread in ``with writer.batch():``."""

    pieces: list[bytes] | None = None
    size = 0
    events = 0
    resumable: bool | None = None


class Writer(Streamable):
    """Writes events into a stream; its methods wait while the client is slow.

    For a view with a writer, the stream makes the writer. To write from threads of your own, make a writer and pass it
    to the stream: ``writer = Writer()``, ``EventStream(writer)``.

    Every method may be called from several threads at once; each write reaches the client whole. A signal handler may
    call :meth:`close`, :meth:`cancel` and :meth:`stop`; it can't wait as a write does.

    :param settings: the limits of the writes that may wait for a slow client, and ``keep_alive_event``.
    :param dumps: the JSON encoder for values that are neither :class:`Event` nor text.
    :param last_event_id: the client's last event ID; ``None``: none.
    """

    # Of a producer that the stream runs: called after each write of its thread that is not part of a batch.
    _after_step: Callable[[], object] | None = None

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        dumps: Callable[[Any], str | bytes] | None = None,
        last_event_id: str | None = None,
    ) -> None:
        settings = settings or DEFAULTS
        mailbox = Mailbox(settings.max_pending_events, settings.max_pending_bytes)
        self._write_to(WriterSource(mailbox, CancelToken()), settings, dumps, last_event_id)

    def _write_to(
        self,
        source: WriterSource,
        settings: Settings,
        dumps: Callable[[Any], str | bytes] | None,
        last_event_id: str | None,
    ) -> None:
        #: The last event ID that the client sent when it (re)connected, ``""`` if none: where to resume.
        self.last_event_id = last_event_id or ""
        #: Set when the stream ends for another reason than :meth:`close`; ``cancelled.wait(seconds)`` is a sleep that
        #: ends when the client leaves.
        self.cancelled = source.cancelled
        self._dumps = dumps or dump_json
        self._source = source
        self._batch_bytes = settings.max_pending_bytes
        self._keep_alive = encode_keep_alive(settings.keep_alive_event)
        self._batch = _Batch()

    def __repr__(self) -> str:
        reason = self.reason
        return shown(self, state="open" if reason is None else f"closed ({reason.value})")

    @property
    def closed(self) -> bool:
        """Whether the stream is over."""
        return self._source.reason is not None

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream is over, ``None`` while it is not."""
        return self._source.reason

    @property
    def events(self) -> int:
        """How many events were written so far."""
        return self._source.events

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
        """Write one event.

        :param data: text, or a value that JSON can hold.
        :param type: see :class:`Event`, as the other fields.
        :param id: the last event ID.
        :param retry: the reconnection time in milliseconds.
        :param comment: text that clients ignore.
        :raises StreamClosed: the stream is over, for its ``reason``.
        :raises EventError: a field's value can't be written; nothing was.
        :raises TypeError: a field is of a wrong type; nothing was written.
        """
        if unknown:
            refuse_unknown(Writer.write_event, unknown, meant=MEANT)
        if data is not None and not isinstance(data, (str, bytes, bytearray)):
            data = _to_json(data, self._dumps)
        event = Event(data, type=type, id=id, retry=retry, comment=comment)  # pyright: ignore[reportArgumentType]
        self.write(warn_if_encoded(event))

    def write(self, item: Any) -> None:
        """Write an :class:`Event`, or another item that a generator view may yield: text, UTF-8 bytes, JSON values.

        :param item: the item.
        :raises StreamClosed: the stream is over.
        :raises TypeError: an item of this type can't be sent.
        """
        event = to_event(item, self._dumps)
        event_id = written_id(event)
        self._put(encode(event), int(event.data is not None), None if event_id is None else event_id != "")

    def write_raw(self, data: bytes, *, events: int) -> None:
        """Write bytes as they are: whole blocks of an event stream, which are not checked. For relays.

        :param data: the blocks.
        :param events: how many events they hold, for the statistics.
        :raises StreamClosed: the stream is over.
        """
        self._put(data, events, sets_id(data))

    def write_comment(self, text: str) -> None:
        """Write a comment, which clients ignore.

        :param text: the comment, of any number of lines.
        :raises StreamClosed: the stream is over.
        """
        self._put(encode_comment(text), 0)

    def write_keep_alive(self) -> None:
        """Write a keep-alive now, of the kind that ``Settings.keep_alive_event`` sets. The stream sends them by itself
        as well (``Settings.keep_alive``).

        :raises StreamClosed: the stream is over.
        """
        self._put(self._keep_alive, 0)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """``with writer.batch():`` collects the writes of this thread, and sends them as one at the end.

        A batch larger than ``max_pending_bytes`` is sent in several writes. Writes before an exception are sent.

        :raises StreamClosed: the stream is over.
        """
        batch = self._batch
        if batch.pieces is not None:
            yield  # a batch within a batch is sent with the outer one
            return
        batch.pieces = []
        batch.size = batch.events = 0
        batch.resumable = None
        try:
            yield
        finally:
            pieces, batch.pieces = batch.pieces, None
            if pieces:
                self._source.put(b"".join(pieces), batch.events, batch.resumable)

    def finish(self, data: Any = "", *, type: str = "done", id: str | int | None = None) -> None:
        """Send a last event and end the stream.

        A browser still reconnects: answer it with 204 then (``finished=`` of the stream), or close the page's
        ``EventSource`` on this event.

        :param data: see :meth:`write_event`, as the other fields.
        :param type: the event type.
        :param id: the last event ID.
        :raises StreamClosed: the stream is over already.
        """
        self.write_event(data, type=type, id=id)
        self.close()

    def close(self) -> None:
        """End the stream after all writes. Does nothing if it is over."""
        self._source.mailbox.close(CloseReason.DONE)

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End the stream at once: pending writes are dropped, and a thread that writes gets :class:`StreamClosed`.

        :param reason: why, for ``on_close`` and the log.
        """
        self._source.cancel(reason)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End the stream cleanly: pending writes are sent, then ``last``. A thread that writes gets
        :class:`StreamClosed`.

        :param reason: why, for ``on_close`` and the log.
        :param last: whole blocks of an event stream.
        """
        self._source.stop(reason, last)

    @property
    def pending(self) -> tuple[int, int]:
        """How many writes and bytes wait for the client."""
        return self._source.pending

    def as_source(self) -> WriterSource:
        """See :class:`ssesync.server.source.Streamable`."""
        return self._source

    def _end_step(self) -> None:
        """Do nothing: the caller's own threads write, not steps of a producer."""

    def _put(self, data: bytes, events: int, resumable: bool | None = None) -> None:
        """:param resumable: whether the client now has an event ID to resume from; ``None``: no change."""
        batch = self._batch
        if batch.pieces is None:
            self._source.put(data, events, resumable)
            if self._after_step is not None:
                self._end_step()
            return
        if self._source.reason is not None:
            raise StreamClosed(self._source.reason)
        batch.pieces.append(data)
        batch.size += len(data)
        batch.events += events
        if resumable is not None:
            batch.resumable = resumable
        if batch.size >= self._batch_bytes:
            self._source.put(b"".join(batch.pieces), batch.events, batch.resumable)
            batch.pieces.clear()
            batch.size = batch.events = 0


def to_event(item: Any, dumps: Callable[[Any], str | bytes]) -> Event:
    """Convert an item that a view yields to an event: an :class:`Event` as it is, text and bytes as data, others as
    JSON."""
    if isinstance(item, Event):
        return item
    if isinstance(item, (str, bytes, bytearray)):
        return warn_if_encoded(Event(bytes(item) if isinstance(item, bytearray) else item))
    return Event(_to_json(item, dumps))


def _to_json(item: Any, dumps: Callable[[Any], str | bytes]) -> str | bytes:
    why: Exception | None = None
    if item is not None:
        try:
            return dumps(item)
        except TypeError as error:
            why = error
    kind = type(item).__name__
    raise TypeError(
        f"an event stream can't send {kind!r}{f' ({why})' if why else ''}: use an Event, str, bytes or a value that "
        "JSON can hold"
    ) from why
