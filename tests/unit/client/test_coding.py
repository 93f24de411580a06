"""A body in a coding that can't be decoded here is refused by name; values that mean nothing are read over."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest
import requests
from urllib3.response import HTTPResponse

from ssesync import ContentEncodingError, Event, Reader, ReadError, StatusError
from ssesync.testing import CHUNKED, LAST_CHUNK, FakeSSEServer, chunk, chunked, head

from ...cases import each_case

EVENT = b"data: hello\n\n"
HELLO = [Event("hello", type="message")]
# brotli's own bytes for EVENT, in one piece that is not compressed.
BROTLI = bytes.fromhex("8b0580646174613a2068656c6c6f0a0a03")


@pytest.fixture(autouse=True)
def _no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where neither brotli nor a package for zstd is installed."""
    monkeypatch.setattr(HTTPResponse, "CONTENT_DECODERS", ["gzip", "x-gzip", "deflate"])


@each_case(
    "value, named",
    [
        ("br", r"'br'.*pip install 'urllib3\[brotli\]'"),
        ("BR", r"'br'.*pip install 'urllib3\[brotli\]'"),
        ("zstd", r"'zstd'.*pip install 'urllib3\[zstd\]'"),
        ("gzip, br", r"'br'.*urllib3\[brotli\]"),
        ("br, gzip", r"'br'.*urllib3\[brotli\]"),
        ("compress", r"'compress'.*no package"),
        ("dcb", r"'dcb'.*no package"),
    ],
)
@each_case("framing", ["chunked", "length"])
def test_a_content_coding_that_can_not_be_decoded_is_named_with_the_remedy(
    value: str, named: str, framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    size, body = (CHUNKED, chunked(BROTLI)) if framing == "chunked" else (f"Content-Length: {len(BROTLI)}", BROTLI)
    response = get(serve([head(f"Content-Encoding: {value}", size), body]))
    with pytest.raises(ContentEncodingError, match=named) as caught:
        Reader(response)
    assert isinstance(caught.value, ReadError)
    assert caught.value.response is response


@each_case("value", ["gzip, chunked", "deflate, chunked", "GZIP,chunked", "br, chunked"])
def test_a_transfer_coding_is_named(
    value: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(f"Transfer-Encoding: {value}"), chunked(gzip.compress(EVENT))])
    with pytest.raises(ContentEncodingError, match=r"'(gzip|deflate|br)' \(Transfer-Encoding\).*send chunks alone"):
        Reader(get(server))


@each_case("value", ["none", "UTF-8", "identity", "identity, identity", "utf-8, none", "binary", ","])
def test_a_value_that_means_nothing_is_read_over(
    value: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED, f"Content-Encoding: {value}"), chunked(EVENT)])
    assert list(Reader(get(server))) == HELLO


@pytest.mark.parametrize("value", ["chunked", "Chunked"])
def test_chunks_alone_are_read(
    value: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    assert list(Reader(get(serve([head(f"Transfer-Encoding: {value}"), chunked(EVENT)])))) == HELLO


def test_the_body_of_a_refused_status_is_not_shown_in_a_coding_that_can_not_be_decoded(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED, "Content-Encoding: br", status="500 Broken"), chunk(BROTLI), LAST_CHUNK])
    with pytest.raises(StatusError, match="status 500") as caught:
        Reader(get(server))
    assert caught.value.body == b""


def test_without_the_check_it_is_an_error_of_the_first_read(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED, "Content-Encoding: br"), chunked(BROTLI)])
    reader = Reader(get(server), check=False)
    with pytest.raises(ContentEncodingError, match="brotli"):
        reader.read()


@pytest.mark.parametrize("status", ["204 No Content"])
def test_an_answer_without_a_body_has_no_coding(
    status: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head("Content-Encoding: br", status=status, content_type=None)])
    assert list(Reader(get(server))) == []


def test_a_body_that_was_read_whole_is_refused_too(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED, "Content-Encoding: br"), chunked(BROTLI)])
    with pytest.raises(ContentEncodingError):
        Reader(get(server, stream=False))
