"""Publishes from a process that serves nothing: ``python -m tests.live.channels.publisher BROKER CHANNEL …``.

Numbered events, to each channel in turn, until standard input ends or there are COUNT; then a last one to each. What
publish() returned for is written to standard output at once. What it raised for is published again, as another event.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time

from ssesync import BrokerUnavailable, open_broker

#: The data of the last event of a channel ends with it.
END = "end"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("channels", nargs="+")
    parser.add_argument("--count", type=int, default=sys.maxsize)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--no-end", action="store_true")
    options = parser.parse_args()
    told_to_end = threading.Event()
    if options.count == sys.maxsize:
        threading.Thread(target=lambda: (sys.stdin.read(), told_to_end.set()), daemon=True).start()
    with open_broker(options.broker) as broker:

        def publish(channel: str, what: object) -> None:
            attempt = 0
            while True:
                data = f"{channel} {what}.{attempt}" if attempt else f"{channel} {what}"
                try:
                    event_id = broker.publish(channel, data)
                except BrokerUnavailable:
                    attempt += 1
                    time.sleep(0.05)
                    continue
                # In one piece and not buffered: what is killed now has said all that it had to.
                os.write(1, f"{event_id} {data}\n".encode())
                return

        number = options.start
        while number < options.start + options.count and not told_to_end.is_set():
            publish(options.channels[number % len(options.channels)], number)
            number += 1
            if options.pause:
                time.sleep(options.pause)
        if not options.no_end:
            for channel in options.channels:
                publish(channel, END)


if __name__ == "__main__":
    main()
