"""What the tests run in processes of its own: ``python -m tests.unit.channels.processes WHAT URL ...``."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator

from ssesync import Broker, BrokerBusy, ChannelFeed, EventSource, Subscription, open_broker
from ssesync.channels.runs.record import RunRecord, RunState


def publish(url: str, count: str) -> None:
    """Publish numbers and say each that is published; after that many, or when killed, end."""
    broker = open_broker(url)
    for n in range(int(count)):
        broker.publish("a", str(n))
        os.write(1, b"%d\n" % n)


def begin_runs(url: str, count: str) -> None:
    """So many threads begin one run at the same time, when a line is read. Prints what each has got."""
    broker = open_broker(url)
    broker.position()
    outcomes = []

    def begin(number: int) -> None:
        ready.wait()
        record = RunRecord("r", f"{os.getpid()}-{number}", RunState.RUNNING, "ada", "f", time.time(), 60.0, 0.0)
        added, found = broker._begin_run(record, None, False)
        outcomes.append(f"{added} {found.owner if found else None}")

    ready = threading.Barrier(int(count) + 1)
    threads = [threading.Thread(target=begin, args=(number,)) for number in range(int(count))]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    ready.wait()
    for thread in threads:
        thread.join()
    print("\n".join(outcomes))
    broker.close()


def own_run(url: str, forks: str = "") -> None:
    """Own a run, with a lease of an hour, until killed. With ``forks``, a child that has the same descriptors is there
    for as long, and is an owner, too. Prints its pid."""
    broker = open_broker(url)

    def own(name: str) -> None:
        broker._renew_owner(name, 3600)
        broker._begin_run(RunRecord(name, name, RunState.RUNNING, "", "", time.time(), 60.0, 0.0), None, False)

    own("r")
    if forks:
        child = os.fork()
        if not child:
            own("child's")
            print(os.getpid(), [found.name for found in broker._abandoned()], flush=True)
    else:
        print(os.getpid(), flush=True)
    time.sleep(60)


def abandoned(url: str) -> None:
    """Print the names of the abandoned runs."""
    with open_broker(url) as broker:
        print([found.name for found in broker._abandoned()])


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
    output = b""
    while piece := os.read(read, 4096):
        output += piece
    _, status = os.waitpid(child, 0)
    count = 1 if url.startswith("memory") else 2
    seen = sorted(event.data or "" for event in (subscription.get(20) for _ in range(count)) if event)
    print(status, output.decode(), seen)
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
        output = [own.state]
        output.append(own.start().state)
        own.stop()
        output.append(own.state)
        os.write(write, " ".join(output).encode())
        os._exit(0)
    os.close(write)
    output = os.read(read, 4096).decode()
    print(os.waitpid(child, 0)[1], output, own.state)
    own.stop()


def under_signals(url: str, seconds: str) -> None:
    """Threads publish, subscribe, revoke and close, as the main thread does, whom a signal interrupts each millisecond.
    One subscriber of those that are left alone has to get all that was published, in order."""
    faulthandler.dump_traceback_later(60, exit=True)
    broker = open_broker(url, max_events=10**7, max_bytes=10**9)  # however fast the machine is
    published: list[str] = []
    came: Counter[str] = Counter()
    follower = broker.subscribe("a", patience=60)
    victims: deque[Subscription] = deque(maxlen=20)
    over = time.monotonic() + float(seconds)

    def use(chance: random.Random) -> None:
        try:
            choice = chance.random()
            if choice < 0.6:
                published.append(broker.publish("a", "x"))
            elif choice < 0.8:
                victims.append(broker.subscribe("a", key="k", max_pending_events=3))
            elif choice < 0.85:
                broker.revoke("k")
            elif victims:
                victims.popleft().cancel()
        except BrokerBusy:
            came["busy"] += 1

    def interrupt(*args: object) -> None:
        came["signals"] += 1
        use(random)  # type: ignore[arg-type]

    def keep_using(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < over:
            use(chance)

    threads = [threading.Thread(target=keep_using, args=(n,)) for n in range(2)]
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for thread in threads:
        thread.start()
    keep_using(7)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for thread in threads:
        thread.join()
    seen = []
    while len(seen) < len(published):
        event = follower.get(20)
        assert event is not None, f"{len(seen)} of {len(published)} came"
        seen.append(event.id)
    broker.close()
    assert seen == sorted(published, key=lambda each: int(each.rpartition("-")[2]))
    assert came["signals"] > 10
    print("ok")


def under_ctrl_c(url: str, seconds: str) -> None:
    """A signal handler raises while the main thread publishes. Afterwards others can publish still, and the subscriber
    has got all of which there is an id."""
    faulthandler.dump_traceback_later(60, exit=True)
    broker = open_broker(url, max_events=10**7, max_bytes=10**9)  # however fast the machine is
    subscription = broker.subscribe("a", patience=60)
    published: list[str] = []
    armed = False

    def interrupt(*args: object) -> None:
        if armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    over = time.monotonic() + float(seconds)
    while time.monotonic() < over:
        try:
            armed = True
            published.append(broker.publish("a", "x"))
            armed = False
        except KeyboardInterrupt:  # noqa: PERF203 - that is what is tried
            armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    other = threading.Thread(target=lambda: published.append(broker.publish("a", "of another thread")))
    other.start()
    other.join()
    seen = []
    while not seen or seen[-1] != published[-1]:
        event = subscription.get(20)
        assert event is not None, f"{len(seen)} of {len(published)} came"
        seen.append(event.id)
    assert [each for each in seen if each in set(published)] == published
    assert len(set(seen)) == len(seen)
    broker.close()
    print("ok")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
