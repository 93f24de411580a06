"""A process that follows a stream in its main thread: ``python -m tests.unit.client.source.follower URL WHAT``.

It prints a line for all that happens, and for how it ended. ``WHAT`` is what it makes of signals and forks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from ssesync import Backoff, Event, EventSource


def say(*words: object) -> None:
    print(*words, flush=True)


def main(url: str, what: str) -> None:
    source = EventSource(
        url,
        backoff=Backoff(initial=0, max_retry_after=60),
        on_error=lambda error: say("error", type(error).__name__),
        on_retry=lambda error, delay, attempt: say("waits", round(delay)),
    )
    if what == "close on SIGTERM":
        signal.signal(signal.SIGTERM, lambda *_: source.close())

    def handle(event: Event) -> None:
        say("event", event.data)
        if what == "fork":
            fork(source)

    try:
        source.for_each(handle)
        say("over")
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        say("state", source.state)
        # Not join(): Ctrl-C may come within Thread.start(), and it refuses a thread that is about to start.
        deadline = time.monotonic() + 90
        while threading.active_count() > 1 and time.monotonic() < deadline:
            time.sleep(0.005)
        say("threads", threading.active_count())


def fork(source: Any) -> None:
    """A child process that gives the source up while its parent goes on."""
    child = os.fork()
    if not child:
        try:
            source.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    say("child ended")


if __name__ == "__main__":
    main(*sys.argv[1:])
