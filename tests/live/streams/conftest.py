"""Fixtures: servers for one test, servers for many, and the test's end of the telephone line to its producers."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from tests.logs import show_if_failed

from .servers import KINDS, Kind, Server, running


@dataclass
class Certificate:
    """A certificate for 127.0.0.1, and what a client needs to accept it."""

    options: list[str]
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Certificate(["--certfile", str(folder / "certificate.pem"), "--keyfile", str(folder / "key.pem")], context)


class Fleet:
    """Starts each server when it is first asked for; ends all together."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, certificate: Certificate) -> None:
        self._folder = folder
        self._stack = stack
        self._certificate = certificate
        self._running: dict[str, Server] = {}

    def __call__(self, kind: Kind, **sockopts: int) -> Server:
        if kind.name not in self._running:
            tls = self._certificate.context if kind.transport == "tls" else None
            # Short, as a unix socket's path may have 107 bytes.
            folder = self._folder / str(len(self._running))
            self._running[kind.name] = self._stack.enter_context(running(kind, folder, tls, **sockopts))
        return self._running[kind.name]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(tmp_path_factory.mktemp("fleet"), stack, certificate)


@pytest.fixture
def server(request: pytest.FixtureRequest, fleet: Fleet, certificate: Certificate) -> Server:
    """The server that an indirect parameter names."""
    kind = KINDS[request.param]
    if kind.transport == "tls":
        plain = kind.command
        kind = replace(kind, command=lambda *where: [*plain(*where)[:-1], *certificate.options, plain(*where)[-1]])
    return fleet(kind)


@pytest.fixture
def serve(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Starts a server that lasts as long as the test."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start(kind: Kind, **sockopts: int) -> Server:
            server = stack.enter_context(running(kind, tmp_path / str(next(numbers)), **sockopts))
            show_if_failed(request.node, kind.name, server.log)
            return server

        yield start
