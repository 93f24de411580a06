"""The JSON encoding of values for which JSON has no notation.

``json`` calls :func:`json_default` only for such values, so those that JSON can hold cost nothing more. Dates and times
are ISO 8601, and decimal numbers and UUIDs text, as with Django's encoder. (Flask's writes dates as HTTP does, which is
kept in its applications.) ISO 8601 is read by JavaScript's ``Date`` and by ``fromisoformat``. A decimal number that is
a JSON number would be a float for nearly all readers, so ``0.10`` would lose its digits.

Types of modules that this package does not need are recognised by the name of the class that they are derived from. So
none of these modules is imported here.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["dump_json", "json_default", "register_encoder"]

T = TypeVar("T")
Encode = Callable[[Any], Any]


def _unknown(value: Any) -> Any:
    raise TypeError(
        f"Object of type {type(value).__name__} is not JSON serializable, and no function is registered for it, see "
        "ssesync.register_encoder()"
    )


#: What the application has registered.
_registered = functools.singledispatch(_unknown)


def register_encoder(kind: type[T], function: Callable[[T], Any]) -> None:
    """Set how values of a type are encoded as JSON, in events of streams, channels and runs.

    The function takes precedence over the encoder of the framework. It is not called for what JSON can hold already
    (text, numbers, lists, dictionaries and types derived from these), and by an encoder that is given as ``dumps=``
    only if that uses :func:`json_default`.

    :param kind: the type, or an abstract base class. It holds for derived types too.
    :param function: is given the value, and returns one that JSON can hold or for which a function is registered.
    :raises TypeError: ``kind`` is no type.
    """
    if not isinstance(kind, type):
        raise TypeError(f"register_encoder takes a type, got {kind!r}")
    _registered.register(kind, function)


def json_default(value: Any, *, own: Encode | None = None) -> Any:
    """Convert a value for which JSON has no notation to one that it can hold. This is the ``default`` of an encoder:
    ``functools.partial(orjson.dumps, default=ssesync.json_default)``, for example.

    A function that was registered for the type is called. Without one: dataclasses and models of pydantic (2 or later)
    and msgspec as objects, members of an ``Enum`` as their values, ``datetime``, ``date`` and ``time`` in ISO 8601,
    ``UUID``, ``Path`` and ``Decimal`` as text.

    :param value: the value.
    :param own: another function of this kind, that of a framework, which is asked before these defaults are used.
    :return: the converted value.
    :raises TypeError: the type is unknown.
    """
    function: Encode = _registered.dispatch(type(value))
    if function is not _unknown:
        return function(value)
    function = _function_of(type(value))
    if own is None:
        return function(value)
    if function is _unknown:
        return own(value)
    try:
        return own(value)
    except TypeError:
        return function(value)


def dump_json(obj: Any) -> str:
    """Encode as JSON, without spaces after separators and with non-ASCII text as it is; NaN is refused."""
    return _ENCODER.encode(obj)


def _fields(value: Any) -> dict[str, Any]:
    # Not dataclasses.asdict(), which copies all that it does not know.
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _value(member: Enum) -> Any:
    return member.value


def _pydantic(model: Any) -> Any:
    return model.model_dump(mode="json")


def _msgspec(struct: Any) -> Any:
    return sys.modules["msgspec"].to_builtins(struct, str_keys=True, enc_hook=json_default)


_BY_TYPE: dict[type, Encode] = {
    Enum: _value,
    date: date.isoformat,
    datetime: datetime.isoformat,
    time: time.isoformat,
    PurePath: str,
}
_BY_NAME: dict[tuple[str, str], Encode] = {
    ("decimal", "Decimal"): str,
    ("msgspec", "Struct"): _msgspec,
    ("pydantic.main", "BaseModel"): _pydantic,
    ("uuid", "UUID"): str,
}
#: What was found for a type.
_found: WeakKeyDictionary[type, Encode] = WeakKeyDictionary()


def _function_of(kind: type) -> Encode:
    function = _found.get(kind)
    if function is None:
        function = _found[kind] = _find(kind)
    return function


def _find(kind: type) -> Encode:
    for base in kind.__mro__:
        function = _BY_TYPE.get(base) or _BY_NAME.get((base.__module__, base.__qualname__))
        if function is not None:
            return function
    return _fields if dataclasses.is_dataclass(kind) else _unknown


# Made once: json.dumps() makes one in each call that has options.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=json_default)
