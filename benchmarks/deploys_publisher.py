"""Publishes to the clients of deploys_client.py: ``python -m benchmarks.deploys_publisher RATE SIZE CHANNEL …``.

``BENCH_BROKER`` is the broker's URL. RATE events a second go to each channel, with about SIZE bytes of data each.
Its first line is ``ready``. Commands are lines of standard input: ``pause`` is answered with the number of the newest
event, when it is published; ``go`` continues. It begins paused, and the end of standard input ends it.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from ssesync import open_broker


def main() -> None:
    """Publish until standard input ends."""
    rate, size, channels = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    goes, over = threading.Event(), threading.Event()
    lock = threading.Lock()
    number = 0

    def publish() -> None:
        nonlocal number
        due = 0.0
        while not over.is_set():
            if not goes.wait(0.1):
                continue
            with lock:
                if goes.is_set():
                    number += 1
                    for channel in channels:
                        head = f"{channel} {number} {time.monotonic_ns()} "
                        broker.publish(channel, head + "x" * max(1, size - len(head)))
            # What could not be published in time is published at once, but for a second's events at most.
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))

    with open_broker(os.environ["BENCH_BROKER"]) as broker:
        thread = threading.Thread(target=publish)
        thread.start()
        broker.position()  # the log is there
        print("ready", flush=True)
        for line in sys.stdin:
            if line.strip() == "go":
                goes.set()
            elif line.strip() == "pause":
                goes.clear()
                with lock:
                    print(number, flush=True)
        over.set()
        thread.join()


if __name__ == "__main__":
    main()
