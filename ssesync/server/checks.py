"""Checks of a stream's source and callbacks: functions must be synchronous, and an iterable must be one of events."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping
from inspect import getattr_static
from typing import Any

from ..errors import excerpt
from ..event import Event

__all__ = ["check_callbacks", "check_function", "check_iterable"]

_REMEDY = "use def instead of async def, or return ssesync.from_async(…) of it from a synchronous view"


def is_asynchronous(function: Any) -> bool:
    """Whether a call returns a coroutine or an asynchronous generator, as far as that is declared."""
    while isinstance(function, functools.partial):
        function = function.func
    # The second one is for callable objects.
    functions = (function, getattr_static(type(function), "__call__", None))
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def check_function(function: Any) -> None:
    """Refuse coroutine and asynchronous generator functions with a ``TypeError``."""
    if is_asynchronous(function):
        raise TypeError(f"an event stream needs a synchronous producer, got {function!r}: {_REMEDY}")


def check_callbacks(**functions: Any) -> None:
    """Refuse, with a ``TypeError``, callbacks that can't be called, or that return a coroutine, which would be true and
    never run."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} takes a function, got {excerpt(function)}")
        if function is not None and is_asynchronous(function):
            raise TypeError(f"{name} is called synchronously, got {function!r}: use def instead of async def")


def check_iterable(items: Any) -> None:
    """Refuse, with a ``TypeError`` that names the remedy, an object that can't be iterated over as events."""
    kind = type(items).__name__
    iterates = isinstance(items, Iterable)
    # Objects that are iterable both ways (Django's QuerySet, httpx' byte streams) are accepted. A Future is iterable
    # only so that it can be awaited.
    if isinstance(items, Awaitable) or (isinstance(items, AsyncIterable) and not iterates):
        if inspect.iscoroutine(items):
            items.close()  # else Python would warn that it was never awaited
        raise TypeError(f"an event stream needs a synchronous producer, got {kind}: {_REMEDY}")
    if isinstance(items, (str, bytes, Mapping, Event)) or not iterates:
        raise TypeError(f"an event stream needs an iterable of events, got {kind}: yield them, or pass a list")
