"""Forks of the process: brokers and feeds prepare for them, continue in the parent, and begin anew in the child."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from ..text import escape
from .reentry import entered_or_inside

__all__ = ["register"]

logger = logging.getLogger("ssesync")


class Forking(Protocol):
    """An object that has to prepare for forks."""

    def _before_fork(self) -> list[Callable[[], str]]:
        """Prepare.

        :return: functions to be called in this process after the fork. Each returns an error to be logged, or ``""``.
        """
        ...

    def _reset(self) -> None:
        """Begin anew, in the child."""


class _Forks(threading.local):
    """The functions that each thread has to call after the forks that it has begun."""

    def __init__(self) -> None:
        self.calls: list[list[Callable[[], str]]] = []


_registered: weakref.WeakSet[Forking] = weakref.WeakSet()
_forks = _Forks()


def register(forking: Forking) -> None:
    """From now on call an object's methods at each fork, while the object exists.

    :param forking: the object.
    """
    _registered.add(forking)


def _before_fork() -> None:
    # This thread holds locks until the fork is over, so it is marked. It is marked already if this is a signal handler
    # that has interrupted a holder of a lock.
    mark = entered_or_inside()
    mark.__enter__()

    def unmark() -> str:
        mark.__exit__(None, None, None)
        return ""

    calls: list[Callable[[], str]] = [unmark]
    _forks.calls.append(calls)
    for broker in sorted(_registered, key=id):  # so two threads that fork take the locks in one order
        calls.extend(broker._before_fork())


def _in_parent() -> None:
    errors = [call() for call in reversed(_forks.calls.pop())]
    for error in filter(None, errors):
        logger.error("%s", escape(error))


def _in_child() -> None:
    # The mark is this thread's in the child as well. All other locks are made anew.
    _forks.calls.pop()[0]()
    for broker in list(_registered):
        broker._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
