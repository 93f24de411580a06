"""What the tests run in processes of its own: ``python -m tests.channels.processes WHAT URL ...``."""

from __future__ import annotations

import os
import sys
import threading
import time

from ssesync import Broker, open_broker


def publish(url: str, count: str) -> None:
    """Publish numbers and say each that is published; after that many, or when killed, end."""
    broker = open_broker(url)
    for n in range(int(count)):
        broker.publish("a", str(n))
        os.write(1, b"%d\n" % n)


def fork(url: str) -> None:
    """A process that has published and listens forks; both go on. The parent prints what both saw."""
    broker = open_broker(url)
    start = broker.publish("a", "start")
    subscription = broker.subscribe("a")
    busy = threading.Thread(target=keep_busy, args=(broker,))
    busy.start()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = broker.subscribe("a", last_event_id=start)
            reset = own.get(20) if url.startswith("memory") else None
            broker.publish("a", "of the child")
            seen = sorted(event.data or "" for event in (own.get(20) for _ in range(1 if reset else 2)) if event)
            inherited = subscription.take(0) is None
            os.write(write, f"{threading.active_count()} {bool(reset)} {seen} {inherited}".encode())
            broker.close()
            os._exit(0)
        except BaseException as error:
            os.write(write, repr(error).encode())
            os._exit(1)
    os.close(write)
    broker.publish("a", "of the parent")
    said = b""
    while piece := os.read(read, 4096):
        said += piece
    _, status = os.waitpid(child, 0)
    count = 1 if url.startswith("memory") else 2
    seen = sorted(event.data or "" for event in (subscription.get(20) for _ in range(count)) if event)
    print(status, said.decode(), seen)
    busy.join()
    broker.close()


def keep_busy(broker: Broker) -> None:
    """Use the broker while the process forks."""
    for n in range(200):
        broker.publish("other", str(n))
        time.sleep(0.001)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
