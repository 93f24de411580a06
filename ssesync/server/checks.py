"""Checks of what a stream is made of: functions that are called synchronously, and things that give events."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping
from inspect import getattr_static
from typing import Any

from ..errors import excerpt
from ..event import Event

__all__ = ["check_callbacks", "check_function", "check_iterable"]


def is_asynchronous(function: Any) -> bool:
    """Whether a call of it gives a coroutine or an asynchronous generator, as far as that is declared."""
    while isinstance(function, functools.partial):
        function = function.func
    # The second for an object that is called.
    functions = (function, getattr_static(type(function), "__call__", None))
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def check_function(function: Any) -> None:
    """Refuse coroutine and asynchronous generator functions with a ``TypeError``."""
    if is_asynchronous(function):
        raise TypeError(f"an event stream needs a synchronous producer, got {function!r}: use def instead of async def")


def check_callbacks(**functions: Any) -> None:
    """Refuse, with a ``TypeError``, callbacks that can't be called, or whose answer would be a coroutine, which is
    always true and never run."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} takes a function, got {excerpt(function)}")
        if function is not None and is_asynchronous(function):
            raise TypeError(f"{name} is called synchronously, got {function!r}: use def instead of async def")


def check_iterable(items: Any) -> None:
    """Refuse, with a ``TypeError`` that names the remedy, what can't be iterated over as events."""
    kind = type(items).__name__
    iterates = isinstance(items, Iterable)
    # What can be iterated over either way (Django's QuerySet, httpx' byte streams) is. A Future can be, to be awaited.
    if isinstance(items, Awaitable) or (isinstance(items, AsyncIterable) and not iterates):
        if inspect.iscoroutine(items):
            items.close()  # or Python would warn that it was never awaited, which is no news
        raise TypeError(f"an event stream needs a synchronous producer, got {kind}: use def instead of async def")
    if isinstance(items, (str, bytes, Mapping, Event)) or not iterates:
        raise TypeError(f"an event stream needs something that gives events, got {kind}: yield them, or give a list")
