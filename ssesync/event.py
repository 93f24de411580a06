"""Event: one event of a stream. The constructor checks its fields, so that encoding can't fail.

An event that was read is a :class:`ReceivedEvent`, whose data, type and id are always text.
"""

from __future__ import annotations

import json as _json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import EventError, excerpt
from .json_encoder import dump_json, register_encoder
from .validation import refuse_unknown

__all__ = ["Event", "ReceivedEvent"]

#: The parameters that are meant by other names of an event's fields.
MEANT = {"event": "type", "event_type": "type", "event_id": "id", "last_event_id": "id", "reconnect": "retry"}

logger = logging.getLogger("ssesync")


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Event:
    """One event of an event stream. Immutable, comparable, hashable, picklable.

    ``None`` means "not set": the field is not written. An empty string is set: the field is
    written, empty. ``data`` is text; ``bytes`` are decoded as UTF-8.

    :param data: the payload. Line ends (CR LF, LF, CR) reach the client as LF. Without data no
        client dispatches an event: such an event only sets ``id`` or ``retry``.
    :param type: the event type, for ``addEventListener`` in browsers. Clients see ``"message"``
        if it is not set.
    :param id: the last event ID, which a client sends back when it reconnects. An ``int`` is
        written in decimal. ``""`` resets the client's ID.
    :param retry: the reconnection time in milliseconds.
    :param comment: text that clients ignore.
    :raises EventError: CR or LF in ``type`` or ``id``, NUL in ``id``, a negative ``retry``, text
        that UTF-8 can't carry (a lone surrogate), ``bytes`` that are not UTF-8. Nothing is ever
        stripped: that would merge two values and hide the bug.
    :raises TypeError: a value of another type.

    The rules are those of the HTML standard, section "Server-sent events".
    """

    data: str | None
    type: str | None
    id: str | None
    retry: int | None
    comment: str | None

    def __init__(
        self,
        data: str | bytes | None = None,
        *,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown(Event, unknown, meant=MEANT)
        put = object.__setattr__
        # ASCII text needs no check: nearly all data is ASCII.
        put(self, "data", data if data.__class__ is str and data.isascii() else _text("data", data))  # pyright: ignore
        put(self, "type", None if type is None else _one_line("type", type))
        if isinstance(id, int) and not isinstance(id, bool):
            id = _decimal("id", int(id))
        put(self, "id", None if id is None else _one_line("id", id))
        if retry is not None:
            if not isinstance(retry, int) or isinstance(retry, bool):
                raise TypeError(f"event field 'retry' takes whole milliseconds, got {excerpt(retry)}")
            if retry < 0:
                raise EventError("retry", retry, "can't be negative (milliseconds)")
            retry = int(retry)
            _decimal("retry", retry)
        put(self, "retry", retry)
        put(self, "comment", None if comment is None else _text("comment", comment))

    @classmethod
    def from_json(
        cls,
        obj: Any,
        *,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        dumps: Callable[[Any], str | bytes] | None = None,
        **unknown: NoReturn,
    ) -> Event:
        """Make an event whose data is JSON.

        :param obj: the object to encode.
        :param type: as for :class:`Event`, as ``id`` and ``retry`` are.
        :param dumps: the encoder; the standard library's without it, with :func:`ssesync.json_default`. It refuses
            NaN and infinities (``ValueError``), as they are not JSON (RFC 8259, section 6).
        :return: the event.
        """
        if unknown:
            refuse_unknown(cls.from_json, unknown, meant=MEANT)
        return cls((dumps or dump_json)(obj), type=type, id=id, retry=retry)

    @classmethod
    def parse(cls, frame: str | bytes) -> Event:
        r"""Decode an event that another library has encoded, ``"event: patch\ndata: 1\n\n"`` for one.

        It is decoded as clients do, but a line that they would ignore is an error. The blank line at the end may be
        missing; a comment is kept. For streams use :class:`ssesync.Reader` or :class:`ssesync.wire.Decoder`.

        :param frame: the text of one event; ``bytes`` are decoded as UTF-8.
        :return: the event.
        :raises EventError: it holds more than one event, or none, or a line that is no field of an event stream.
        :raises TypeError: it is neither text nor bytes.
        """
        text = _text("frame", frame)
        if text is None:
            raise TypeError("Event.parse() takes the text of one event, got None")
        blocks = [block for block in re.split("\n{2,}", _with_lf(text).strip("\n")) if block]
        if len(blocks) != 1:
            count = "no event" if not blocks else f"{len(blocks)} events or comments"
            raise EventError("frame", text, f"holds {count}, and not one: parse each by itself")
        fields: dict[str, list[str]] = {}
        for line in blocks[0].split("\n"):
            name, _, value = line.partition(":")
            if name not in _FIELDS:
                raise EventError("frame", line, "has a line that is no field of an event stream")
            fields.setdefault(name or "comment", []).append(value.removeprefix(" "))
        retry = fields.get("retry", [None])[-1]
        if retry is not None and not (retry.isascii() and retry.isdecimal()):
            raise EventError("retry", retry, "takes whole milliseconds, in digits")
        data, comment = (None if name not in fields else "\n".join(fields[name]) for name in ("data", "comment"))
        return cls(
            data,
            type=fields.get("event", [None])[-1],
            id=fields.get("id", [None])[-1],
            retry=None if retry is None else int(retry),
            comment=comment,
        )

    def json(self, loads: Callable[[str], Any] = _json.loads) -> Any:
        """Decode the data as JSON.

        :param loads: the decoder.
        :return: the object.
        :raises EventError: there is no data, or it is not JSON; the decoder's own error is chained.
        """
        if self.data is None:
            raise EventError("data", None, "is not set, so it holds no JSON")
        try:
            return loads(self.data)
        except ValueError as error:
            raise EventError("data", self.data, f"is not JSON ({error})") from error

    def __hash__(self) -> int:
        # A ReceivedEvent with an empty id is equal to an event without one.
        return hash((self.data, self.type, self.id or "", self.retry, self.comment))

    def __repr__(self) -> str:
        shown = [] if self.data is None else [excerpt(self.data)]
        for name in ("type", "id", "retry", "comment"):
            value = getattr(self, name)
            if value is not None and (value != "" or self.__class__ is Event):
                shown.append(f"{name}={excerpt(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


class ReceivedEvent(Event):
    """An event that was read: ``data``, ``type`` and ``id`` are always text, as in a browser's ``MessageEvent``.

    Reading makes it, and a test of code that handles events may. It is equal to an :class:`Event` with the same fields,
    where an id that is not set counts as empty.

    :param data: the payload. A stream never dispatches an event without data: ``""`` is a line ``data:`` alone.
    :param type: the event type, ``"message"`` if the stream names none.
    :param id: the last event ID in force, which is that of an earlier event if this one has none; ``""`` if the stream
        has set none, or has reset it. When the event is written to another stream, an empty id is not: it would reset
        the ID of that stream's client.
    :param retry: the reconnection time that the event's own block sets, ``None`` if it sets none.
    :param comment: ``None``, as comments are no part of an event that was read.
    """

    __slots__ = ()

    data: str
    type: str
    id: str

    def __init__(
        self,
        data: str | bytes | None = "",
        *,
        type: str | None = "message",
        id: str | int | None = "",
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        # None comes from dataclasses.replace(event, id=None), with which an event's id is removed.
        super().__init__(
            "" if data is None else data,
            type=type or "message",
            id="" if id is None else id,
            retry=retry,
            comment=comment,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (self.data, self.type, self.id, self.retry, self.comment) == (
            (other.data, other.type, other.id or "", other.retry, other.comment)
        )

    __hash__ = Event.__hash__


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    E = TypeVar("E", bound=Event, default=ReceivedEvent)
else:  # without typing_extensions, and on Python 3.10
    from typing import TypeVar

    E = TypeVar("E")


def written_id(event: Event) -> str | None:
    """Find the id with which an event is written.

    :param event: the event.
    :return: the id; ``None``: it is written without one.
    """
    event_id = event.id
    return None if not event_id and event.__class__ is ReceivedEvent else event_id


def _refuse_event(event: Event) -> NoReturn:
    raise TypeError("an Event is no part of JSON data: send it by itself")


register_encoder(Event, _refuse_event)


class UncheckedEvent:
    """An event whose fields are not checked, for the decoder: set every slot, then set ``__class__`` to
    :class:`ReceivedEvent`.

    A frozen dataclass sets its fields one by one through ``object.__setattr__``. A class with the same slots that
    becomes an event needs a third of the time (120 ns against 390), on every event decoded.
    """

    __slots__ = ("comment", "data", "id", "retry", "type")

    data: str
    type: str
    id: str
    retry: int | None
    comment: str | None


def seems_encoded(text: str, *, whole: bool = True) -> bool:
    """Whether text that is given as data seems to be an event that was encoded already.

    :param text: the text.
    :param whole: whether it must end with the blank line.
    :return: whether it seems so.
    """
    if whole and not text.endswith(("\n\n", "\r\n\r\n", "\r\r")):
        return False
    lines = [line for line in _with_lf(text).split("\n") if line]
    names = {line.partition(":")[0] if ":" in line else "?" for line in lines}
    return "data" in names and names <= _FIELDS


_warned = False


def warn_if_encoded(event: Event) -> Event:
    """Log a warning if the event's data is encoded already. Once in a process, as such code does it with every event.

    :param event: an event made of text that was given as data.
    :return: the event.
    """
    global _warned
    data = event.data
    if data and data[-1] in "\r\n" and not _warned and seems_encoded(data):
        _warned = True
        logger.warning(
            # Without the data, which may be confidential.
            "text that is given as data is encoded as an event already (it begins with %r and ends with a blank "
            "line), so clients receive the field names as data too: give the data alone, or Event.parse(text) for "
            "events that another library has encoded",
            data.partition(":")[0] + ":",
        )
    return event


_FIELDS = frozenset(("data", "event", "id", "retry", ""))


def _with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _text(field: str, value: str | bytes | None) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = str.__str__(value)  # an Enum member or another subclass may format as something else
        if not value.isascii():
            _refuse_surrogates(field, value)
        return value
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise EventError(field, bytes(value), f"is not UTF-8 at byte {error.start}") from error
    raise TypeError(
        f"event field {field!r} takes text, got {type(value).__name__} {excerpt(value)}; "
        "Event.from_json() writes other values as JSON"
    )


def _one_line(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"event field {field!r} takes text, got {type(value).__name__} {excerpt(value)}")
    value = str.__str__(value)
    if "\n" in value or "\r" in value:
        raise EventError(field, value, "can't hold a line end")
    if field == "id" and "\0" in value:
        raise EventError(field, value, "can't hold NUL")
    if not value.isascii():
        _refuse_surrogates(field, value)
    return value


def _decimal(field: str, value: int) -> str:
    try:
        return str(value)
    except ValueError as error:  # sys.get_int_max_str_digits()
        raise EventError(field, value, "has too many digits") from error


def _refuse_surrogates(field: str, value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EventError(field, value, f"holds a lone surrogate at {error.start}, which UTF-8 can't carry") from error
