"""Checks of options that several modules share: numbers, and the nearest name for an unknown one."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NoReturn

from .errors import SettingsError, UnknownOption, excerpt

__all__ = ["check_choice", "check_names", "check_number", "check_sockets", "nearest", "refuse_unknown", "suggest"]

# Bytes of a unix socket's path (sun_path on Linux without the final NUL).
_LONGEST_PATH = 107


def check_choice(name: str, value: object, *choices: str | bool | None) -> None:
    """Refuse a value that is none of the choices. 1 and 0 are not True and False.

    :param name: the value's name in the message.
    :param value: the value to check.
    :param choices: the values allowed, two or more.
    :raises SettingsError: the value is refused.
    """
    if not any(value is each or (isinstance(each, str) and value == each) for each in choices):
        *most, last = map(repr, choices)
        raise SettingsError(f"{name} takes {', '.join(most)} or {last}, got {excerpt(value)}")


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float = 0,
    most: float = math.inf,
    whole: bool = False,
    optional: bool = False,
) -> None:
    """Refuse a value that is no number, or is out of bounds.

    :param name: the value's name in the message.
    :param value: the value to check.
    :param above: the number that the value must exceed; takes the place of ``least``.
    :param least: the smallest number allowed.
    :param most: the largest number allowed. The message does not name it.
    :param whole: allow integers only.
    :param optional: allow ``None`` too.
    :raises SettingsError: the value is refused.
    """
    if value is None and optional:
        return
    kinds = int if whole else (int, float)
    # NaN is refused, as it compares false with everything.
    if (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and (value >= least if above is None else value > above)
        and value <= most
    ):
        return
    kind = "a whole number" if whole else "a number"
    bound = f"of at least {least}" if above is None else f"above {above}"
    alternative = " or None" if optional else ""
    raise SettingsError(f"{name} takes {kind} {bound}{alternative}, got {excerpt(value)}")


def check_sockets(name: str, value: Any) -> tuple[str, ...]:
    """Split the paths of unix sockets.

    :param name: the value's name in the message.
    :param value: absolute paths, separated by commas. Empty text: none.
    :return: the paths.
    :raises SettingsError: the value has another type, or a path is relative, empty or too long.
    """
    if not isinstance(value, str):
        raise SettingsError(f"{name} takes the absolute path of a unix socket, got {excerpt(value)}")
    paths = tuple(path.strip() for path in value.split(",")) if value.strip() else ()
    for path in paths:
        if not path.startswith("/") or "\0" in path:
            raise SettingsError(
                f"{name} takes the absolute path of a unix socket, or several with commas between them, "
                f"got {excerpt(path)}"
            )
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise SettingsError(f"{name}: a unix socket's path has at most {_LONGEST_PATH} bytes, got {excerpt(path)}")
    if len(set(paths)) < len(paths):
        raise SettingsError(f"{name} has a path twice: {excerpt(value)}")
    return paths


def suggest(name: str, known: Iterable[str], others: Iterable[str] = ()) -> str:
    """A hint for a name that does not exist.

    :param name: the unknown name.
    :param known: the names that exist; all are listed if none is similar.
    :param others: more names that may be suggested, and are not listed.
    :return: ``did you mean 'retry'?``, or ``there are keep_alive, retry, …``.
    """
    known = list(known)
    near = nearest(name, [*known, *others])
    return f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar name.

    :param name: the unknown name.
    :param known: the names that exist.
    :param cutoff: the least similarity, from 0 to 1.
    :return: one of ``known``, or ``None`` if none is similar enough.
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def check_names(function: Callable[..., Any], options: Set[str], known: type) -> None:
    """Refuse options that do not exist.

    :param function: the public function, for the message.
    :param options: the names of the options that it was called with, beside its own parameters.
    :param known: their set, a ``TypedDict``.
    :raises UnknownOption: a name is not in the set.
    """
    names = known.__annotations__
    if not options <= names.keys():
        refuse_unknown(function, sorted(options - names.keys()), names)


def refuse_unknown(
    function: Callable[..., Any],
    unknown: Iterable[str],
    others: Iterable[str] = (),
    *,
    meant: Mapping[str, str] | None = None,
) -> NoReturn:
    """Raise the error for an option that does not exist.

    :param function: the public function or class, whose parameters are suggested too.
    :param unknown: the names that do not exist, one at least.
    :param others: more names that may be suggested.
    :param meant: suggestions for names that are not similar.
    :raises UnknownOption: always.
    """
    name = next(iter(unknown))
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own = [each.name for each in inspect.signature(function).parameters.values() if each.kind in kinds]
    near = (meant or {}).get(name)
    hint = f"did you mean {near!r}?" if near else suggest(name, [*own, *others])
    raise UnknownOption(f"{function.__qualname__}() takes no {name!r}: {hint}")
