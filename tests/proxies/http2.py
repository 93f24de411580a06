"""One request over HTTP/2, with the methods of an answer of tests/http_client.py that tests of streams need."""

from __future__ import annotations

import socket

import h2.connection
import h2.events

from tests.http_client import TIMEOUT


class Http2:
    """One connection with one stream, over a socket that has agreed on HTTP/2."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self._socket = sock
        self._connection = h2.connection.H2Connection()
        self._stream = 0
        self._headers: dict[str, str] = {}
        self._body = b""
        #: How the stream ended: ``"end"`` or ``"reset"``; ``None`` while it has not.
        self.end: str | None = None

    def get(self, path: str, **headers: str) -> Http2:
        self._connection.initiate_connection()
        self._stream = self._connection.get_next_available_stream_id()
        fields = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "localhost"}
        fields |= {name.replace("_", "-").lower(): value for name, value in headers.items()}
        self._connection.send_headers(self._stream, list(fields.items()), end_stream=True)
        while not self._headers:
            self._more()
        return self

    @property
    def status(self) -> int:
        return int(self._headers[":status"])

    def header(self, name: str) -> str | None:
        return self._headers.get(name)

    def find(self, data: bytes) -> bytes:
        """Wait for these bytes; what came before them."""
        while data not in self._body:
            if self.end is not None:
                raise EOFError(f"the stream ended by {self.end} after {self._body!r}")
            self._more()
        before, _, self._body = self._body.partition(data)
        return before

    def read(self) -> bytes:
        """All that is left of the body."""
        while self.end is None:
            self._more()
        data, self._body = self._body, b""
        return data

    def reset(self) -> None:
        """Leave as a browser does: the connection stays for other requests."""
        self._connection.reset_stream(self._stream, 8)  # CANCEL
        self._socket.sendall(self._connection.data_to_send())

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self) -> None:
        self._socket.sendall(self._connection.data_to_send())
        data = self._socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._body!r}")
        for event in self._connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self._headers = {_text(name): _text(value) for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                self._body += event.data
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.end = "end" if isinstance(event, h2.events.StreamEnded) else "reset"
        self._socket.sendall(self._connection.data_to_send())


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
