"""What a served stream gives to its server at a time."""

from __future__ import annotations

from ssesync.server.output import PIECE, Output


def test_a_small_write_is_given_whole() -> None:
    output = Output()
    assert output.last_write is None
    assert output.next_piece(b"data: a\n\n") == b"data: a\n\n"
    assert output.bytes == 9
    assert output.last_write is not None
    assert output.last_write >= output.created
    assert not output.rest
    assert not output.drop_rest()


def test_a_large_write_is_given_in_pieces_of_which_the_rest_is_not_copied() -> None:
    data = bytes(range(256)) * 600
    output, given = Output(), [b""]
    given.append(output.next_piece(data))
    while output.rest:
        assert isinstance(output.rest, memoryview)
        assert output.rest.obj is data
        given.append(output.next_piece(output.rest))
    assert b"".join(given) == data
    assert max(map(len, given)) == PIECE
    assert output.bytes == len(data)


def test_a_rest_that_is_dropped_is_reported_once() -> None:
    output = Output()
    output.next_piece(b"x" * (PIECE + 1))
    assert output.drop_rest()
    assert not output.drop_rest()
    assert not output.rest
    assert output.bytes == PIECE
