"""A process that serves clients of the channel "a", takes others' and passes its own on:
``python -m tests.unit.keeper.member URL SOCKET ROLE [FAULT]``.

A client connects over TCP and sends a line: its last event id, "chunked" or "plain", and "stays" or "moves". Commands
come by lines: ``move PATH``, ``snapshot``. Each is answered by a line.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ssesync import Broker, CloseReason, Settings, StreamStats, open_broker
from ssesync.detached.connection import Connection, Handover
from ssesync.keeper import batch, exporting
from ssesync.keeper.batch import Batch
from ssesync.keeper.exporting import Exporter
from ssesync.keeper.framing import Link, LinkLost
from ssesync.keeper.importing import Importer, epochs
from ssesync.keeper.peer import connect, listen, make_hello
from ssesync.server.descriptors import divide, duplicate
from ssesync.server.registry import streams

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Record:
    """The account of a client that this process has answered."""

    key = "k"

    def __init__(self, is_movable: bool) -> None:
        self.is_movable, self.is_bound = is_movable, not is_movable

    def began(self, connection: Connection) -> None:
        pass

    def at_end(self, call: Callable[[], object]) -> None:
        pass

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> None:
        pass


def serve(broker: Broker, listener: socket.socket) -> None:
    settings = Settings(keep_alive=None)
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        last_event_id, framing, kind = client.makefile().readline().rstrip("\n").split(",")
        client.setblocking(False)
        source = broker.subscribe("a", last_event_id=last_event_id or None)._source
        handover = Handover(
            duplicate(client.fileno()), framing == "chunked", HEAD, "test", settings, time.monotonic(), 0
        )  # fmt: skip
        source.detach(handover, Record(kind == "moves"))
        client.close()
        del source


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def with_fault(fault: str) -> None:
    """What goes wrong in this process."""
    send, acknowledge = Link.send, Batch.acknowledge
    parse = batch._client_from
    turns = itertools.count()

    def stop_before(self: Batch, link: Link) -> None:
        print("stops", flush=True)
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # by os.kill() this thread may go on a little
        acknowledge(self, link)

    def wait_before(self: Batch, link: Link) -> None:
        poll = select.poll()
        poll.register(link.pidfd, select.POLLIN)
        poll.poll(20_000)
        acknowledge(self, link)

    def kill_after(self: Link, head: Any, *more: Any, **options: Any) -> None:
        send(self, head, *more, **options)
        if head["op"] == "take":
            kill()

    def refuse(*values: Any) -> Any:
        if next(turns) % 3 == 0:
            raise RuntimeError("a test refuses it")
        return parse(*values)

    patches: dict[str, tuple[Any, str, Any]] = {
        "killed before the acknowledgement": (Batch, "acknowledge", kill),
        "killed after the acknowledgement": (Batch, "_commit", kill),
        "stopped before the acknowledgement": (Batch, "acknowledge", stop_before),
        "waits for the sender's end": (Batch, "acknowledge", wait_before),
        "killed after it has sent": (Link, "send", kill_after),
        "refuses each third": (batch, "_client_from", refuse),
        "timeout": (exporting, "ANSWER_TIMEOUT", 0.3),
    }
    setattr(*patches[fault])


def move(broker: Broker, path: str, role: str) -> dict[str, Any]:
    found: dict[str, Any] = {"moved": 0, "refused": 0, "left": 0}
    try:
        with connect(path, 10, make_hello(role, epochs([broker]))) as link, Exporter(link, broker) as exporter:
            while True:
                moved = exporter.move()
                found = {
                    "moved": exporter.moved, "refused": moved.refused, "left": moved.left, "why": exporter.why,
                    "worst": exporter.worst,
                }  # fmt: skip
                if not moved.left or (moved.refused and not moved.moved):
                    break
                if not moved.moved:
                    time.sleep(0.01)  # a log is being read for the others
    except LinkLost as error:
        found["lost"] = str(error)
    return found


def in_system_thread(call: Callable[[], str]) -> str:
    """Call on a thread of the system, as under gevent no greenlet may wait for standard input."""
    if "gevent" not in sys.modules:
        return call()
    import gevent

    return str(gevent.get_hub().threadpool.apply(call))


def main(url: str, path: str, role: str, *faults: str) -> None:
    if "few descriptors" in faults:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    for fault in {*faults} - {"gevent", "few descriptors"}:
        with_fault(fault)
    divide()
    broker = open_broker(url)
    importer = Importer(lambda: [broker])
    importer.start(listen(path), lambda: make_hello(role, epochs([broker])))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
    threading.Thread(target=serve, args=(broker, listener), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for command in iter(functools.partial(in_system_thread, sys.stdin.readline), ""):
        name, _, argument = command.rstrip("\n").partition(" ")
        found = (
            move(broker, argument, role) if name == "move" else {**importer.snapshot(), **streams.snapshot()["closed"]}
        )
        print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
