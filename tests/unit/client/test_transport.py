"""Private parts of urllib3 and http.client are used only where all of them are of the known types."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from urllib3.response import HTTPResponse

from ssesync import Event, Reader
from ssesync.client.body import Body, _ChunkedReader
from ssesync.client.transport import reader_of
from ssesync.testing import CHUNKED, HOLD, LAST_CHUNK, FakeSSEServer, chunk, head

from ...cases import each_case
from .background import Reading
from .raw_server import TIMEOUT

THREE = [head(CHUNKED), *(chunk(f"data: {name}\n\n".encode()) for name in "abc"), LAST_CHUNK]


class Ahead:
    """A connection's reader of which some bytes were read already."""

    def __init__(self, reader: Any) -> None:
        self._ahead = reader.read1(65536)
        self._reader = reader

    def read1(self, size: int) -> bytes:
        ahead, self._ahead = self._ahead, b""
        return ahead or self._reader.read1(size)  # type: ignore[no-any-return]


class ReadsAhead(HTTPResponse):
    """Keeps the bytes that it has read in a place of its own, as another library's response may."""

    chunks: _ChunkedReader

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        return self.chunks.read()


def reading_ahead(response: requests.Response) -> requests.Response:
    raw: Any = response.raw
    raw.__class__ = ReadsAhead
    raw.chunks = _ChunkedReader(raw, Ahead(raw._fp.fp))
    return response


class OtherReader:
    """A reader beneath the response that is not the connection's own: a test's recording, or another socket's."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def with_another_reader(response: requests.Response) -> requests.Response:
    inner: Any = response.raw._fp
    inner.fp = OtherReader(inner.fp)
    return response


def with_another_inner(response: requests.Response) -> requests.Response:
    inner: Any = response.raw._fp
    inner.__class__ = type("Recorded", (type(inner),), {})
    return response


OTHERS = {"response": reading_ahead, "http.client's": with_another_inner, "reader": with_another_reader}


def test_the_fast_path_is_taken_over_the_known_types(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve_both(THREE))
    assert reader_of(response.raw) is not None
    body = Body(response)
    assert isinstance(body._next.__self__, _ChunkedReader)  # type: ignore[attr-defined]
    assert b"".join(body) == b"data: a\n\ndata: b\n\ndata: c\n\n"


@each_case("other", OTHERS)
def test_another_type_on_the_way_is_read_by_its_public_methods_and_loses_nothing(
    other: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = OTHERS[other](get(serve_both(THREE)))
    assert reader_of(response.raw) is None
    assert list(Reader(response)) == [Event(name, type="message") for name in "abc"]


@each_case("other", OTHERS)
def test_a_blocked_read_of_another_type_can_be_cancelled(
    other: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both([*THREE[:-1], HOLD])
    reader = Reader(OTHERS[other](get(server)))
    reading = Reading(reader).wait_for_next(3)
    reader.cancel()
    assert len(reading.result()) == 3
    assert server.client_left.acquire(timeout=TIMEOUT)


class WithoutDescriptor:
    """A response of a package in urllib3's place: it has a connection, but no descriptor."""

    def __init__(self, version: int, sock: Any) -> None:
        self.headers = {"Content-Type": "text/event-stream"}
        self.status = 200
        self.version = version
        self.connection = SimpleNamespace(sock=sock)
        self.closed = False

    def fileno(self) -> int:
        raise OSError("no file descriptor")

    def __iter__(self) -> Any:
        raise NotImplementedError

    read_chunked = __iter__

    def read1(self, size: int, decode_content: bool) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True

    def release_conn(self) -> None:
        pass


@each_case("version, with_socket", [(20, True), (30, False), (11, False)])
def test_a_response_whose_read_could_not_be_cancelled_is_refused(
    version: int, with_socket: bool, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    other = get(serve([*THREE[:-1], HOLD]))
    response = WithoutDescriptor(version, other.raw.connection.sock if with_socket else None)
    with pytest.raises(TypeError, match=rf"could not be cancelled.*WithoutDescriptor, HTTP version {version}"):
        Reader(response)


@pytest.fixture(scope="module")
def with_urllib3_future(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script reads where niquests, and so urllib3-future, is installed, in a folder of its own."""
    target = tmp_path_factory.mktemp("niquests")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    # What is imported is compiled then: the rest would take several seconds.
    command += ["--no-compile", "--timeout", "15", "--only-binary", ":all:"]
    if importlib.util.find_spec("pip") is None:
        _lacking("there is no pip")
    if subprocess.run(
        [*command, "--target", str(target), "niquests>=3.10"], capture_output=True, timeout=120
    ).returncode:
        _lacking("pip can't install niquests")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(root)])}
    child = subprocess.run(
        [sys.executable, "-m", "tests.unit.client.other_urllib3"],
        env=environment, cwd=root, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert not child.returncode, child.stderr
    results: dict[str, Any] = json.loads(child.stdout)
    assert results.pop("urllib3") == "future"
    return results


def _lacking(reason: str) -> None:
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


FOLLOWED = [["one", "two"], ["", "1", "1", "2"]]
FROM_URLLIB3_FUTURE = {
    **{
        f"{library}, {framing}": ["one", "two", "three"]
        for library in ("requests", "niquests")
        for framing in ("chunked", "close", "length")
    },
    "requests, cancel": ["one", None, True],
    "niquests, cancel": ["one", None, True],
    "idle": "IdleTimeout",
    "source": FOLLOWED,
    "source, own session": FOLLOWED,
    "closing": [[], "closed"],
    "refused": [404, "no such stream"],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", FROM_URLLIB3_FUTURE)
def test_with_urllib3_future_in_urllib3s_place_all_is_as_with_urllib3(
    what: str, with_urllib3_future: dict[str, Any]
) -> None:
    assert with_urllib3_future[what] == FROM_URLLIB3_FUTURE[what]
