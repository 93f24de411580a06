"""The figures of docs/guide/proxies.md: ``python -m tests.proxies.measure``. It takes a minute."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.live.detached.kinds import KINDS as SERVERS
from tests.live.detached.kinds import Server
from tests.servers import Certificate, eventually

from .fronts import KINDS, Front
from .test_streams import WAYS, Stream, delay

EVENTS = 50
TIMES = 5


def connect(front: Front | Server, version: str, **options: object) -> Stream:
    server = front if isinstance(front, Server) else front.server
    client = front.connect_http2() if isinstance(front, Front) and version == "2" else front.connect()
    return Stream(server, client, **options)  # type: ignore[arg-type]


def milliseconds(front: Front | Server, version: str) -> str:
    """The median and the longest delay of its events."""
    stream = connect(front, version)
    delays = [1000 * delay(stream) for _ in range(EVENTS)]
    stream.stop()
    return f"events {statistics.median(delays):6.1f} ms, at most {max(delays):6.1f} ms"


def leaving(front: Front | Server, version: str, keep_alive: float, **options: object) -> float:
    stream = connect(front, version, keep_alive=keep_alive, **options)
    started = time.monotonic()
    stream.leave()
    assert eventually(lambda: stream.end)
    return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name.replace(" ", "-") for name in ("server", "tls", *KINDS)]
        for place in places:
            place.mkdir(mode=0o755)
        Path(folder).chmod(0o755)
        server = Server(SERVERS["gthread"], places[0])
        certificate = Certificate.issue(places[1])
        fronts = {name: Front(name, place, server, certificate) for name, place in zip(KINDS, places[2:], strict=True)}
        try:
            for front in fronts.values():
                front.wait()
            print(f"load {os.getloadavg()[0]:.1f}")
            print(f"{'direct':24} {milliseconds(server, '1.1')}")
            for name, version in (*WAYS, ("haproxy by default", "1.1")):
                print(f"{name + ' HTTP/' + version:24} {milliseconds(fronts[name], version)}")
            for name, version in WAYS:
                if name != "apache":
                    left = statistics.median(leaving(fronts[name], version, 60) for _ in range(TIMES))
                    print(f"{name + ' HTTP/' + version:24} leaving seen after {1000 * left:.0f} ms without a write")
            slow = [("apache", "1.1", {}), ("apache", "2", {}), ("varnish", "1.1", {"accept": "*/*"}),
                    ("haproxy by default", "1.1", {})]  # fmt: skip

            def report(name: str, version: str, options: dict[str, str]) -> None:
                for keep_alive in (2, 1):
                    left = leaving(fronts[name], version, keep_alive, **options)
                    print(
                        f"{name} HTTP/{version} leaving seen after {left:.2f} s with a keep-alive every {keep_alive} s"
                    )

            threads = [threading.Thread(target=report, args=each) for each in slow]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for front in fronts.values():
                front.stop()
            server.stop()


if __name__ == "__main__":
    main()
