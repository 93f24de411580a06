"""What the tests of reading add to :class:`ssesync.testing.FakeSSEServer`: every way that a body may travel."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from ssesync.testing import CHUNKED, FIN, LAST_CHUNK, Step, Steps, chunk, head

__all__ = ["FRAMINGS", "TIMEOUT", "Steps", "framings", "gzip_pieces"]

# Longer than any test waits for something that goes well, shorter than the suite's limit for a test.
TIMEOUT = 90.0


def gzip_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Each piece compressed and flushed, as servers do that stream; the trailer comes as a piece of its own."""
    compress = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield compress.compress(piece) + compress.flush(zlib.Z_SYNC_FLUSH)
    yield compress.flush()


def framings() -> dict[str, Callable[[Sequence[bytes]], tuple[bytes, list[list[bytes]], list[bytes | Step]]]]:
    """Every way a body may travel: from its pieces to the head, what is sent for each piece, and what ends it."""

    def one_chunk_each(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head(CHUNKED), [[chunk(piece)] for piece in pieces], [LAST_CHUNK]

    def many_chunks_each(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        sent = [[chunk(piece[at : at + 3]) for at in range(0, len(piece), 3)] for piece in pieces]
        return head(CHUNKED), sent, [LAST_CHUNK]

    def one_chunk_that_trickles(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        size = b"%X\r\n" % sum(map(len, pieces))
        return head(CHUNKED) + size, [[piece] for piece in pieces], [b"\r\n" + LAST_CHUNK]

    def close_delimited(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head("Connection: close"), [[piece] for piece in pieces], [FIN]

    def http_1_0(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head(version="1.0"), [[piece] for piece in pieces], [FIN]

    def content_length(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head(f"Content-Length: {sum(map(len, pieces))}"), [[piece] for piece in pieces], []

    def gzip_chunked(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        *sent, end = gzip_pieces(pieces)
        return head(CHUNKED, "Content-Encoding: gzip"), [[chunk(piece)] for piece in sent], [chunk(end) + LAST_CHUNK]

    def gzip_close_delimited(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        *sent, end = gzip_pieces(pieces)
        return head("Content-Encoding: gzip", "Connection: close"), [[piece] for piece in sent], [end, FIN]

    def gzip_content_length(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        *sent, end = gzip_pieces(pieces)
        length = sum(map(len, sent)) + len(end)
        return head("Content-Encoding: gzip", f"Content-Length: {length}"), [[piece] for piece in sent], [end]

    return {
        "one chunk each": one_chunk_each,
        "many chunks each": many_chunks_each,
        "one chunk that trickles": one_chunk_that_trickles,
        "close-delimited": close_delimited,
        "HTTP/1.0": http_1_0,
        "Content-Length": content_length,
        "gzip, chunked": gzip_chunked,
        "gzip, close-delimited": gzip_close_delimited,
        "gzip, Content-Length": gzip_content_length,
    }


FRAMINGS = framings()
