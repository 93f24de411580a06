"""Event: what travels. Everything that can be wrong with one is found here, where it is made."""

from __future__ import annotations

import json as _json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import EventError, excerpt

__all__ = ["Event"]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Event:
    """One event of an event stream. Immutable, comparable, hashable, picklable.

    ``None`` means "not set": the field is not written. An empty string is set: the field is
    written, empty. ``data`` is text; ``bytes`` are taken as UTF-8.

    :param data: the payload. Line ends (CR LF, LF, CR) reach the client as LF. Without data no
        client dispatches an event: such an event only moves ``id`` or ``retry``.
    :param type: the event type, which browsers call ``addEventListener`` with. Clients see
        ``"message"`` where it is not set.
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
    ) -> None:
        put = object.__setattr__
        # Plain ASCII text can't be wrong: nearly all data is just that.
        put(self, "data", data if data.__class__ is str and data.isascii() else _text("data", data))
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
    ) -> Event:
        """An event whose data is ``obj`` as JSON.

        :param dumps: the encoder; the standard library's without it, which refuses NaN and
            infinities (``ValueError``), as they are not JSON (RFC 8259, section 6).
        """
        return cls((dumps or dump_json)(obj), type=type, id=id, retry=retry)

    def json(self, loads: Callable[[str], Any] = _json.loads) -> Any:
        """The data, decoded as JSON.

        :raises EventError: there is no data, or it is not JSON; the decoder's own error is chained.
        """
        if self.data is None:
            raise EventError("data", None, "is not set, so it holds no JSON")
        try:
            return loads(self.data)
        except ValueError as error:
            raise EventError("data", self.data, f"is not JSON ({error})") from error

    def __repr__(self) -> str:
        shown = [] if self.data is None else [excerpt(self.data)]
        for name in ("type", "id", "retry", "comment"):
            value = getattr(self, name)
            if value is not None:
                shown.append(f"{name}={excerpt(value)}")
        return f"Event({', '.join(shown)})"


class Draft:
    """An event in the making, unchecked: fill every slot, then ``draft.__class__ = Event``. For the decoder alone.

    A frozen dataclass sets its fields one by one through ``object.__setattr__``; a draft with the same
    slots that turns into an event takes a third of the time (120 ns against 390), on every event decoded.
    """

    __slots__ = ("comment", "data", "id", "retry", "type")

    data: str
    type: str
    id: str | None
    retry: int | None
    comment: str | None


def dump_json(obj: Any) -> str:
    """JSON without the blanks after separators, with non-ASCII text as it is and NaN refused."""
    return _json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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
