"""The terminal, signals, and pipes whose reader has gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.theme import Theme

__all__ = ["LiveConsole", "exiting_on_signals", "is_terminal", "on_reader_gone", "waking_on_signals"]

_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


# rich's own are blue on black for names, and bold for most of the rest.
_THEME = Theme(
    {
        "json.brace": "",
        "json.key": "cyan",
        "json.str": "green",
        "json.number": "",
        "json.bool_true": "magenta",
        "json.bool_false": "magenta",
        "json.null": "magenta",
    }
)


class LiveConsole(Console):
    """A console that never hides the cursor, so that it need not be restored, however the command ends."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, theme=_THEME, highlight=False, markup=False, emoji=False)

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing.

        :param show: ignored.
        :return: that the cursor was not changed.
        """
        return False


def is_terminal(console: Console) -> bool:
    """Whether lines can be redrawn on a console. FORCE_COLOR does not make a pipe a terminal.

    :param console: the console.
    :return: whether they can.
    """
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def exiting_on_signals() -> Iterator[None]:
    """Exit without a traceback: on Ctrl-C with status 130, on a termination signal with 128 plus its number, on a
    closed pipe with 0."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before: dict[Any, Any] = {number: signal.signal(number, end) for number in _ENDS}
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The interpreter flushes once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def waking_on_signals(action: Callable[[], object]) -> Iterator[None]:
    """Call ``action`` when a signal arrives that ends the command, to end the wait of the main thread.

    The signal's handler runs between two steps of the interpreter. If a signal arrives just before a blocking call
    begins, it does not interrupt the call, and the handler would run only after the server's next bytes.

    :param action: called on another thread.
    """
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)

    def watch() -> None:
        with woken:
            while numbers := woken.recv(64):
                if any(number in numbers for number in (signal.SIGINT, *_ENDS)):
                    action()

    threading.Thread(target=watch, name="ssesync-signals", daemon=True).start()
    before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        wakes.close()


def on_reader_gone(action: Callable[[], object]) -> None:
    """Call ``action`` when the reader of the output has gone, without a write: ``… | head -1``.

    :param action: called on another thread.
    """
    try:
        descriptor = sys.stdout.fileno()
        kind = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)) or not hasattr(select, "poll"):
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # errors and hang-ups are always reported
        if poll.poll():
            action()

    threading.Thread(target=watch, name="ssesync-reader-gone", daemon=True).start()
