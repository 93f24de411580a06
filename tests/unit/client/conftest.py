"""Servers and sessions for the client's tests."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from ssesync.testing import FakeSSEServer


@dataclass
class Tls:
    context: ssl.SSLContext
    ca: str


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for 127.0.0.1, and the authority that signed it, made for this run."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = Path(tmp_path_factory.mktemp("tls")) / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return Tls(context, str(path))


# A handshake of TLS takes longer than most of these tests: quick runs go without.
@pytest.fixture(params=["http", pytest.param("https", marks=pytest.mark.slow)])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeSSEServer]]:
    """Starts a server over http that lasts as long as the test."""
    with ExitStack() as stack:

        def start(script: Any) -> FakeSSEServer:
            return stack.enter_context(FakeSSEServer(script))

        yield start


@pytest.fixture
def serve_both(scheme: str, tls: Tls) -> Iterator[Callable[..., FakeSSEServer]]:
    """Starts a server that lasts as long as the test, once over http and once over https."""
    with ExitStack() as stack:

        def start(script: Any) -> FakeSSEServer:
            return stack.enter_context(FakeSSEServer(script, tls=tls.context if scheme == "https" else None))

        yield start


@pytest.fixture
def session(tls: Tls) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = tls.ca
        yield session


@pytest.fixture
def get(session: requests.Session) -> Iterator[Callable[..., requests.Response]]:
    """Asks a server for its stream. The response is closed with the test."""
    with ExitStack() as stack:

        def ask(server: FakeSSEServer, **options: Any) -> requests.Response:
            options.setdefault("stream", True)
            options.setdefault("timeout", (10, None))
            return stack.enter_context(session.get(server.url, **options))

        yield ask


class _WithoutFp:
    """A urllib3 response with only its public face, as a later urllib3 may be."""

    def __init__(self, raw: Any) -> None:
        self._raw_response = raw

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._raw_response, name)


@pytest.fixture
def without_fast_path() -> Callable[[requests.Response], requests.Response]:
    """Hides what the fast path looks for, so that the body must do with urllib3's public ``read1``."""

    def hide(response: requests.Response) -> requests.Response:
        response.raw = _WithoutFp(response.raw)
        return response

    return hide


@pytest.fixture(autouse=True, scope="package")
def _patient_excerpts() -> Iterator[None]:
    """A busy machine may let a moment pass between a head and its body."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssesync.client.reader._EXCERPT_SILENCE", 2.0)
        yield
