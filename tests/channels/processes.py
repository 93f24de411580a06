"""What the tests run in processes of its own: ``python -m tests.channels.processes WHAT URL ...``."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator

from ssesync import Broker, ChannelFeed, EventSource, open_broker


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


def publish_in_child(url: str) -> None:
    """A process that has subscribers forks, and the child publishes, twice; then one that subscribes itself."""
    broker = open_broker(url)
    with broker.subscribe("a"):
        for subscribes in (False, True):
            child = os.fork()
            if child == 0:
                if subscribes:
                    broker.subscribe("a")
                for n in range(2):
                    broker.publish("a", str(n))
                os._exit(0)
            os.waitpid(child, 0)
            broker.publish("a", "of the parent")


def keep_busy(broker: Broker) -> None:
    """Use the broker while the process forks."""
    for n in range(200):
        broker.publish("other", str(n))
        time.sleep(0.001)


def feed(url: str, upstream: str, lease: str) -> None:
    """Feed the channel a from an upstream, until killed. What is published says by whom."""
    own = ChannelFeed(
        open_broker(url),
        "a",
        lambda: EventSource(upstream),
        transform=lambda event: f"{os.getpid()} {event.data}",
        lease=float(lease),
    )
    own.start().join()


def fork_feed(url: str) -> None:
    """A process that feeds forks. It prints its feed's state, and the child's: before its start, then, and stopped."""
    over = threading.Event()

    class Source(list[str]):
        def __iter__(self) -> Iterator[str]:
            over.wait(60)
            return iter(())

        def cancel(self) -> None:
            over.set()

    own = ChannelFeed(open_broker(url), "a", Source, lease=20).start()
    while own.state != "feeding":
        time.sleep(0.01)
    print(own.state, flush=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = [own.state]
        said.append(own.start().state)
        own.stop()
        said.append(own.state)
        os.write(write, " ".join(said).encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 4096).decode()
    print(os.waitpid(child, 0)[1], said, own.state)
    own.stop()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
