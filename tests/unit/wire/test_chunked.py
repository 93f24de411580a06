"""The chunked transfer coding, both ways. What a malformed body does to a reader is in ``tests/unit/client``."""

from __future__ import annotations

from ssesync.wire.chunked import LAST_CHUNK, ChunkDecoder, is_complete, to_chunk

from ...cases import each_case

BODY = to_chunk(b"one") + to_chunk(b"2\r\n" * 40) + to_chunk(b"3") + LAST_CHUNK


def test_what_is_encoded_is_decoded_wherever_it_is_cut() -> None:
    for cut in range(len(BODY)):
        decoder = ChunkDecoder()
        pieces = [*decoder.decode(BODY[:cut]), *decoder.decode(BODY[cut:])]
        assert (b"".join(pieces), decoder.done, decoder.rest) == (b"one" + b"2\r\n" * 40 + b"3", True, b""), cut


@each_case(
    "body, complete",
    [
        (BODY, True),
        (LAST_CHUNK, True),
        (b"0\r\nExpires: 0\r\n\r\n", True),
        (BODY[:-1], False),
        (BODY + b"H", False),
        (b"", False),
        (b"3\r\nabcd\r\n" + LAST_CHUNK, False),
        (b"x\r\nabc\r\n" + LAST_CHUNK, False),
        (b"-1\r\n\r\n", False),
    ],
)
def test_a_body_is_complete_with_its_last_chunk_and_nothing_after_it(body: bytes, complete: bool) -> None:
    assert is_complete(body) is complete
