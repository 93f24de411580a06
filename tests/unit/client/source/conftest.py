"""Servers for the tests of EventSource, and an environment that knows of no proxies and no passwords."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests
import trustme

from ssesync.testing import FakeSSEServer

from .following import GEVENT

# Tables of answers and of waits that are not made: threads have no part in them.
collect_ignore = ["test_redirects.py", "test_waits.py"] if GEVENT else []

_ENVIRONMENT = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True, scope="package")
def _plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in _ENVIRONMENT:
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        patch.setenv("NETRC", os.devnull)
        yield


@pytest.fixture
def server() -> Iterator[FakeSSEServer]:
    """Answers what a test adds to it, and then 204, which ends a source for good."""
    with FakeSSEServer() as server:
        yield server


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeSSEServer]]:
    """Starts a server that lasts as long as the test."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(FakeSSEServer(*args, **options))


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A certificate for 127.0.0.1, and the file of the authority that signed it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def largest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every random part of a wait is as long as it may be."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)


@pytest.fixture
def smallest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every random part of a wait is as short as it may be: what remains is the floor."""
    monkeypatch.setattr("random.uniform", lambda low, high: low)
