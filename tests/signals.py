"""Signals that the process which runs the tests was started to ignore, as in the background of a script or by nohup.

A child inherits that, and what a test sends to it would do nothing.
"""

from __future__ import annotations

import signal

#: What a shell or nohup has a command ignore, and what tests send.
SENT = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH")
    if hasattr(signal, name)
)


def handle_ignored_signals() -> None:
    """Have children start with each signal's default action. In the main thread.

    A handled signal has its default action again in a program that is executed, an ignored one stays ignored (POSIX,
    ``exec``). This process goes on through a hang-up and a quit, but is interrupted as Python's processes are.
    """
    for number in SENT:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _go_on)


def _go_on(*_: object) -> None:
    pass
