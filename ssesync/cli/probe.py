"""Probe: one request, watched on a thread of its own for a limited time, whatever the server does.

requests reads the body of a redirect to its end, and its timeout is for each header line, not for all of them. So
redirects are followed here, and a caller waits for a time and not for the probe's thread, which is a daemon.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from ..client.body import Body
from ..client.session import new_session
from ..locks import make_condition
from ..wire.http import is_event_stream
from .options import Request
from .scan import Scan

__all__ = ["BROWSER_ENCODINGS", "Answer", "Probe", "http2_offered"]

#: The value that Chrome and Firefox send.
BROWSER_ENCODINGS = "gzip, deflate, br, zstd"
_MOST_BYTES = 8_000_000
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
# Bytes that are kept of an answer that is no event stream.
_EXCERPT = 2000


@dataclass
class Answer:
    """The head of an answer."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    url: str
    #: The status of each redirect, and its target.
    redirects: list[tuple[int, str]]

    def all(self, name: str) -> list[str]:
        """All values of a header.

        :param name: its name, in any case.
        :return: the values, in their order.
        """
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The values of a header as one.

        :param name: its name, in any case.
        :return: the values joined by commas, ``""`` if there is none.
        """
        return ", ".join(self.all(name))

    @property
    def is_stream(self) -> bool:
        """Whether it is an event stream."""
        return self.status == 200 and is_event_stream(self.get("Content-Type"))


class Probe:
    """A request and the watch of its answer. Times are seconds since the request.

    :param request: the request.
    :param idle_timeout: seconds without a byte until it fails.
    :param encodings: the ``Accept-Encoding`` to send.
    :param last_event_id: resume after this ID; by default after that of the request.
    :param method: the method; by default that of the request.
    """

    def __init__(
        self,
        request: Request,
        *,
        idle_timeout: float,
        encodings: str = "identity",
        last_event_id: str = "",
        method: str = "",
    ) -> None:
        self.answer: Answer | None = None
        self.answered_after: float | None = None
        self.scan = Scan()
        self.excerpt = b""
        self.error: Exception | None = None
        #: When the stream ended by itself or broke; ``None`` while it is open.
        self.ended_after: float | None = None
        #: Whether it had more bytes than are read.
        self.cut = False
        self._request = request
        self._method = method or request.method
        self._idle_timeout = idle_timeout
        self._headers = request.headers_to_send(last_event_id)
        self._headers["Accept-Encoding"] = encodings
        self._body: Body | None = None
        self._stopped = False
        self._changed = make_condition("cli.probe")
        self._started = time.monotonic()
        threading.Thread(target=self._run, name="ssesync-probe", daemon=True).start()

    @property
    def age(self) -> float:
        """Seconds since the request."""
        return time.monotonic() - self._started

    @property
    def over(self) -> bool:
        """Whether the stream ended or the watch was stopped."""
        return self.ended_after is not None or self._stopped

    def wait(self, seconds: float) -> None:
        """Wait for a change of the answer, the scan or the state.

        :param seconds: how long at most.
        """
        with self._changed:
            if not self.over:
                self._changed.wait(max(0.0, seconds))

    def stop(self) -> None:
        """End the watch. Its results do not change any more."""
        with self._changed:
            self._stopped = True
            body = self._body
        if body is not None:
            body.cancel()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with new_session() as session:
                self._watch(session)
        except Exception as failed:
            error = failed
        with self._changed:
            if not self._stopped:
                self.error = error
                self.ended_after = self.age
            self._changed.notify_all()

    def _watch(self, session: requests.Session) -> None:
        response, redirects = self._send(session)
        body = Body(response)
        try:
            with self._changed:
                if self._stopped:
                    return
                self.answered_after = self.age
                raw: Any = response.raw
                version = {10: "HTTP/1.0", 20: "HTTP/2"}.get(raw.version, "HTTP/1.1")
                headers = [(str(name), str(value)) for name, value in raw.headers.items()]
                reason = response.reason or ""
                self.answer = Answer(response.status_code, reason, version, headers, response.url, redirects)
                self._body = body
                self._changed.notify_all()
            # The answer to HEAD may have the headers of a body, but has no body.
            while self._method != "HEAD" and (data := body.read()):
                with self._changed:
                    if self._stopped:
                        return
                    if self.answer.is_stream:
                        self.scan.feed(self.age, data)
                        self.cut = self.scan.size > _MOST_BYTES
                    else:
                        self.excerpt += data[: _EXCERPT - len(self.excerpt)]
                        self.cut = len(self.excerpt) == _EXCERPT
                    self._changed.notify_all()
                if self.cut:
                    return
        finally:
            body.close()

    def _send(self, session: requests.Session) -> tuple[requests.Response, list[tuple[int, str]]]:
        url, method, data, headers = self._request.url, self._method, self._request.data, self._headers.copy()
        redirects: list[tuple[int, str]] = []
        while True:
            prepared = session.prepare_request(requests.Request(method, url, headers=headers, data=data))
            settings: Any = session.merge_environment_settings(url, {}, True, self._request.verify, None)
            timeout = (self._request.connect_timeout, self._idle_timeout)
            response = session.get_adapter(url).send(prepared, timeout=timeout, **settings)
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not target or len(redirects) == _MOST_REDIRECTS:
                return response, redirects
            response.close()
            # Headers travel as Latin-1, addresses in them as UTF-8.
            old, url = url, urljoin(url, target.encode("latin-1", "replace").decode("utf-8", "replace"))
            redirects.append((response.status_code, url))
            if session.should_strip_auth(old, url):  # type: ignore[no-untyped-call]
                for name in _PRIVATE:
                    headers.pop(name, None)
            if response.status_code < 307 and method not in ("GET", "HEAD"):
                method, data = "GET", None


_PRIVATE = ("authorization", "cookie", "proxy-authorization")


def http2_offered(url: str, *, timeout: float) -> bool | None:
    """Check whether an https server offers HTTP/2.

    :param url: a URL of the server.
    :param timeout: seconds for connecting.
    :return: whether it does; ``None`` if that is not known, for http and behind a proxy.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or requests.utils.get_environ_proxies(url):
        return None
    context = ssl.create_default_context()
    # Only the handshake is sent and read, and the probe has checked the certificate before.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout) as plain:
            with context.wrap_socket(plain, server_hostname=parts.hostname) as secure:
                return secure.selected_alpn_protocol() == "h2"
    except OSError:
        return None
