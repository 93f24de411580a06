"""A keeper that stops itself (SIGSTOP) at a step of an upgrade: ``python -m tests.live.keeper.stepping STEP keeper …``.

The rest of the arguments are the command line's. Waits for another process are short.

``offered``
    it has got the listener and the lock, and is not the keeper yet.
``entered``
    it is the keeper, but accepts no link yet, and has no client.
``prepared``
    it has got clients, and has not acknowledged them.
``acknowledged``
    it has acknowledged clients, and has not sent them a byte yet.
``never``
    it does not stop.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ssesync.__main__ import run
from ssesync.keeper import exporting, upgrade
from ssesync.keeper.batch import Batch
from ssesync.keeper.upgrade import Inheritance

STEPS = ("offered", "entered", "prepared", "acknowledged")


def stop() -> None:
    # Sent to this thread: it does not go on before the process was stopped. A signal that is sent to the process is
    # handled by its main thread, which a busy machine runs later.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def halting(method: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """The method, which stops the process the first time."""
    left = [None]

    def call(*args: Any, **options: Any) -> Any:
        halts = bool(left and left.pop() is None)
        if halts and before:
            stop()
        result = method(*args, **options)
        if halts and not before:
            stop()
        return result

    return call


def main() -> None:
    step = sys.argv.pop(1)
    upgrade._ANSWER = exporting.ANSWER_TIMEOUT = 1.0
    if step in ("offered", "entered"):
        Inheritance.enter = halting(Inheritance.enter, before=step == "offered")  # type: ignore[method-assign]
    elif step == "prepared":
        Batch.acknowledge = halting(Batch.acknowledge, before=True)  # type: ignore[method-assign]
    elif step == "acknowledged":
        Batch._commit = halting(Batch._commit, before=True)  # type: ignore[method-assign]
    run()


if __name__ == "__main__":
    main()
