"""How fast a server accepts subscriptions, beside how fast the same server answers a plain view.

``python -m benchmarks.accept [--clients 1000] [--rounds 5] [--workers gthread,sync] [--brokers memory,sqlite,redis]``

A gunicorn worker serves a Flask application with a plain view of 100 bytes and with a subscription. One client process
opens connections, 32 at a time, and sends one request on each. A subscription is accepted when its opening has been
received: the first bytes behind the head; its connection stays open until the round ends. A plain view is answered when
its connection has ended. With ``with id`` each subscriber sends the ID of the last event, as a client does that comes
back.

Plain view and subscription take turns on the same worker. The table has the best round of each, the ratio of the
rates, and the processor time that the worker took for one, with its ratio: that figure does not depend on other
processes of the machine.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .channel_servers import redis_running
from .processes import AtWork, free_port, tree_of, wait_for_port
from .timing import machine

_AT_ONCE = 32
_TICK = os.sysconf("SC_CLK_TCK")


def application() -> object:
    """The application that gunicorn serves."""
    from flask import Flask, request

    from ssesync import get_last_event_id
    from ssesync_flask import SSE

    app = Flask(__name__)
    sse = SSE(app, broker=os.environ["BENCH_BROKER"])
    app.add_url_rule("/plain", "plain", lambda: "x" * 100)
    app.add_url_rule("/events", "events", lambda: sse.subscribe("benchmark"))
    app.add_url_rule("/id", "id", lambda: sse.publish("benchmark", get_last_event_id(request) or "x"))
    return app


class Worker(AtWork):
    """A gunicorn with one worker."""

    def __init__(self, worker: str, broker: str) -> None:
        self.port = free_port()
        command = [
            sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--worker-class", worker,
            *(["--threads", "4"] if worker == "gthread" else []), "--config", "python:ssesync.gunicorn",
            "--log-level", "error", "benchmarks.accept:application()",
        ]  # fmt: skip
        super().__init__(f"{worker}, {broker}", command, {"BENCH_BROKER": broker})

    def _begin(self) -> None:
        wait_for_port(self.port, self.server)
        self.last_id = self._publish()

    def _publish(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/id") as answer:
            return str(answer.read().decode())

    def cpu(self) -> float:
        """Seconds of processor time that the server has taken."""
        ticks = 0
        for pid in tree_of(self.server.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICK


@dataclass
class Round:
    """What came of one round."""

    rate: float  # a second
    cpu: float  # seconds for each


def measure(server: Worker, path: str, clients: int, last_id: str = "") -> Round:
    """Send so many requests.

    :param path: of the view.
    :param last_id: the last event ID that each client sends.
    :return: rate and processor time.
    """
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nConnection: close\r\n"
    request = (head + (f"Last-Event-ID: {last_id}\r\n" if last_id else "") + "\r\n").encode()
    selector, held = selectors.DefaultSelector(), list[socket.socket]()
    sources = iter(range(clients))
    cpu, begun, done = server.cpu(), time.monotonic(), 0

    def begin() -> None:
        if next(sources, None) is not None:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(request)
            selector.register(client, selectors.EVENT_READ, bytearray())

    for _ in range(_AT_ONCE):
        begin()
    while selector.get_map():
        ready = selector.select(30)
        if not ready:
            raise RuntimeError(f"{done} of {clients} were answered, and no more within 30 s")
        for key, _ in ready:
            client, data = key.fileobj, key.data
            assert isinstance(client, socket.socket)
            piece = client.recv(65536)
            data += piece
            if piece and (path == "/plain" or not data.partition(b"\r\n\r\n")[2]):
                continue
            if b" 200 " not in data[:20] or (path != "/plain" and not piece):
                raise RuntimeError(f"not accepted: {bytes(data[:200])!r}")
            selector.unregister(client)
            if path == "/plain":
                client.close()
            else:
                held.append(client)
            done += 1
            begin()
    seconds, cpu = time.monotonic() - begun, server.cpu() - cpu
    for client in held:
        client.close()
    time.sleep(0.5)  # the worker notices that they have left, which is not counted
    return Round(clients / seconds, cpu / clients)


def compare(worker: str, name: str, broker: str, clients: int, rounds: int) -> Iterator[str]:
    """Measure one worker with one broker.

    :return: the rows of the table.
    """
    with Worker(worker, broker) as server:
        kinds = {"plain": ("/plain", ""), "new": ("/events", ""), "with id": ("/events", server.last_id)}
        found: dict[str, list[Round]] = {kind: [] for kind in kinds}
        for path, last_id in kinds.values():
            measure(server, path, 50, last_id)
        for _ in range(rounds):
            for kind, (path, last_id) in kinds.items():
                found[kind].append(measure(server, path, clients, last_id))
    rate = {kind: max(each.rate for each in rows) for kind, rows in found.items()}
    cpu = {kind: min(each.cpu for each in rows) for kind, rows in found.items()}
    for kind in kinds:
        yield (
            f"  {worker:8} {name:7} {kind:8} {rate[kind]:8,.0f} {rate[kind] / rate['plain']:6.2f}"
            f" {cpu[kind] * 1e6:10,.0f} {cpu['plain'] / cpu[kind]:6.2f}"
        )


def main() -> None:
    """Run the benchmark, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000, help="connections of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each")
    parser.add_argument("--workers", default="gthread,sync", help="of gunicorn")
    parser.add_argument("--brokers", default="memory,sqlite,redis", help="of ssesync")
    options = parser.parse_args()
    print(machine(), flush=True)
    print(f"  {'worker':8} {'broker':7} {'':8} {'a second':>8} {'ratio':>6} {'CPU us':>10} {'ratio':>6}", flush=True)
    with tempfile.TemporaryDirectory() as folder, redis_running() as redis:
        urls = {"memory": "memory://", "sqlite": f"sqlite:///{folder}/events.db"}
        if redis is not None:
            urls["redis"] = f"redis://127.0.0.1:{redis.redis_port}/0"  # type: ignore[attr-defined]
        for worker in options.workers.split(","):
            for name in options.brokers.split(","):
                if name in urls:
                    for row in compare(worker, name, urls[name], options.clients, options.rounds):
                        print(row, flush=True)


if __name__ == "__main__":
    main()
