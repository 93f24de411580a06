"""Many readers of one stream, all in one thread: python crowd.py http://127.0.0.1:8000/events 1000

Once a second it prints the time between the first and the last reader's receipt of the newest event. `ulimit -n` limits
the connections of a process.
"""

import re
import selectors
import socket
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

ID = re.compile(rb"^id: (\S+)$", re.MULTILINE)


class Crowd:
    def __init__(self, url, size):
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port or 80
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Accept: text/event-stream", "", ""]
        self._request = "\r\n".join(lines).encode()
        self._size = size
        self._selector = selectors.DefaultSelector()
        self._rest = {}
        self._first = {}
        self._had = Counter()

    def connect(self):
        for _ in range(self._size):
            connection = socket.create_connection(self._address, timeout=20)
            connection.sendall(self._request)
            connection.setblocking(False)
            self._rest[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)

    def read(self):
        """Yields, for each event that all readers have received, the seconds between the first receipt and the last."""
        while self._rest:
            for key, _ in self._selector.select():
                received = key.fileobj.recv(65536)
                now = time.monotonic()
                if not received:
                    self._selector.unregister(key.fileobj)
                    del self._rest[key.fileobj]
                    continue
                # The last line may be incomplete.
                whole, end, self._rest[key.fileobj] = (self._rest[key.fileobj] + received).rpartition(b"\n")
                for number in ID.findall(whole + end):
                    self._first.setdefault(number, now)
                    self._had[number] += 1
                    if self._had[number] == self._size:
                        del self._had[number]
                        yield now - self._first.pop(number)


def main():
    url, size = sys.argv[1], int(sys.argv[2])
    crowd = Crowd(url, size)
    crowd.connect()
    print(f"  {size:,} readers are connected.", flush=True)
    printed = 0.0
    for seconds in crowd.read():
        if time.monotonic() - printed >= 1:
            printed = time.monotonic()
            print(f"  All {size:,} had it within {seconds * 1000:.0f} ms.", flush=True)
    return "The server has ended the streams."


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"The readers can't connect: {error}")
