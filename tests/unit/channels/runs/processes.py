"""What the tests of runs run in other processes: ``python -m tests.unit.channels.runs.processes WHAT URL ...``."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator

from ssesync import Run, RunState, Writer, open_broker
from ssesync.channels.runs import owner


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def own(url: str, lease: str) -> None:
    """Produce a run without end. It says when the producer has begun, and by what it was ended."""
    owner.LEASE = float(lease)
    over = threading.Event()

    def produce(writer: Writer) -> None:
        say("begun")
        try:
            for number in itertools.count():
                writer.write({"number": number})
                time.sleep(0.005)
        finally:
            say(f"ended {writer.reason}")
            over.set()

    run = open_broker(url).start_run("a", produce, writer=True)
    run.wait()
    say(f"state {run.state}")
    over.wait(90)


def silent(url: str, lease: str) -> None:
    """Produce a run that writes nothing, and says when it is cancelled."""
    owner.LEASE = float(lease)

    def produce(writer: Writer) -> None:
        say("begun")
        writer.cancelled.wait()
        say(f"cancelled {time.time()}")

    open_broker(url).start_run("a", produce, writer=True).wait()
    time.sleep(60)


def starts(url: str, count: str) -> None:
    """Start the same run from many threads at the same moment, when a line comes in."""
    broker = open_broker(url)

    def produce() -> Iterator[str]:
        say("producer")
        yield "x"
        time.sleep(0.2)

    def start() -> None:
        barrier.wait()
        runs.append(broker.start_run("a", produce, subject="u", fingerprint="f"))

    barrier, runs = threading.Barrier(int(count)), list[Run]()
    threads = [threading.Thread(target=start) for _ in range(int(count))]
    say("ready")
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(run.wait(90) and run.state is RunState.DONE for run in runs), runs
    say(f"joined {len(runs)}")


def fork(url: str) -> None:
    """A process that produces a run forks. Neither disturbs the other; each has a run of its own afterwards."""
    broker = open_broker(url)
    with broker.open_run("a") as run:
        run.write("of the parent")
        child = os.fork()
        if child == 0:
            try:
                code = 0 if in_child(run, url) else 1
            except BaseException as error:
                say(repr(error))
                code = 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        run.write("of the parent again")
    broker.start_run("c", ["x"]).wait(90)
    say(f"{status} {run.state} {broker.get_run('c').state}")
    broker.close()


def in_child(inherited: Run, url: str) -> bool:
    try:
        inherited.write("of the child")
    except RuntimeError:
        pass
    else:
        return False
    memory = url.startswith("memory")
    broker = inherited._runs._broker
    with broker.open_run("b") as run:  # type: ignore[attr-defined]
        run.write("x")
    done = run.state is RunState.DONE
    inherited.__exit__(None, None, None)
    broker.close()  # type: ignore[attr-defined]
    return done and (memory or not inherited.owned)


def at_exit(url: str) -> None:
    """End while a run is produced."""
    broker = open_broker(url)
    started = threading.Event()

    def produce(writer: Writer) -> None:
        writer.write("x")
        started.set()
        time.sleep(60)

    broker.start_run("a", produce, writer=True)
    started.wait(90)


def on_term(url: str, seconds: str) -> None:
    """A process that ends on SIGTERM, whose run takes so many seconds more. It has 2 seconds to finish."""
    from ssesync import Settings, drain_on_signal

    broker = open_broker(url)
    drain_on_signal()

    def produce(writer: Writer) -> None:
        writer.write("x")
        say("begun")
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            time.sleep(0.02)
        writer.write("last")

    broker.start_run("a", produce, writer=True, settings=Settings(drain_timeout=2))
    time.sleep(60)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
