"""The chunked transfer coding (RFC 9112, section 7.1), both ways."""

from __future__ import annotations

from ..errors import ConnectionLost, ReadError

__all__ = ["LAST_CHUNK", "ChunkDecoder", "is_complete", "to_chunk"]

#: The end of a chunked body.
LAST_CHUNK = b"0\r\n\r\n"

# Bytes of a chunk-size line with its extensions; urllib3 allows as many.
_MAX_LINE = 65536
# int() would also accept signs, "0x" and underscores.
_HEX = b"0123456789abcdefABCDEF"


def to_chunk(data: bytes) -> bytes:
    """Encode one chunk.

    :param data: the chunk's data; not empty, or the chunk ends the body.
    :return: the chunk with its size line.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


def is_complete(body: bytes) -> bool:
    """Whether bytes are a whole chunked body, and nothing after it.

    :param body: the bytes.
    :return: whether they are.
    """
    decoder = ChunkDecoder()
    decoder.decode(body)
    return decoder.done and not decoder.rest and decoder.error is None


class ChunkDecoder:
    """Decodes a chunked body, however its bytes are cut."""

    __slots__ = ("_last", "_left", "_line_end", "done", "error", "is_between", "rest")

    def __init__(self) -> None:
        #: Bytes that are not decoded yet: of a chunk-size line; once ``done``, those that follow the body.
        self.rest = b""
        #: Whether the end of the body, trailers included, was read.
        self.done = False
        #: Why no more can be decoded. All bytes that were decoded before are valid.
        self.error: ReadError | None = None
        self._left = 0  # bytes of the chunk's data that were not received yet
        self._line_end = 0  # bytes of the CR LF after a chunk's data that were not received yet
        self._last = False  # the last chunk was read: trailer lines follow
        #: Whether the next byte is the first one of a chunk.
        self.is_between = True

    def decode(self, data: bytes) -> list[bytes]:
        """Decode the next bytes.

        :param data: the bytes.
        :return: the data of the chunks in them, complete or not. An error is in :attr:`error`.
        """
        pieces: list[bytes] = []
        if self.rest:
            data = self.rest + data
        at, end = 0, len(data)
        try:
            try_bulk = True
            self.rest = b""
            while at < end and not self.done:
                if self._left:
                    piece = data[at : at + self._left] if at or self._left < end else data
                    pieces.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    self._line_end = 0 if self._left else 2
                elif self._line_end:
                    step = min(self._line_end, end - at)
                    if data[at : at + step] != b"\r\n"[2 - self._line_end :][:step]:
                        raise ReadError(f"a chunk of the body is longer than its size says: {data[at : at + 20]!r}")
                    at += step
                    self._line_end -= step
                else:
                    stop = data.find(b"\r\n", at)
                    if stop < 0:
                        self.rest = data[at:]
                        if len(self.rest) > _MAX_LINE:
                            raise ReadError("a chunk-size line of the body is too long")
                        return pieces
                    if self._last:
                        self.done = stop == at
                        at = stop + 2
                    else:
                        size = _chunk_size(data[at:stop])
                        if try_bulk and 0 < size * 8 < end - at:
                            bulk = _decode_bulk(data[at:])
                            try_bulk = False  # a second try would cost as much again for each chunk
                            if bulk is not None:
                                pieces += bulk[0]
                                at = end - bulk[1]
                                continue
                        at = stop + 2
                        self._left = size
                        self._last = not size
            self.rest = self.rest or data[at:]
        except ReadError as error:
            self.error = error
        finally:
            self.is_between = not (self._left or self._line_end or self._last or self.rest)
        return pieces

    def whole(self, data: bytes) -> int:
        """Check for the most frequent case: the bytes are one chunk, from its size to its end. Called if ``is_between``
        is set; the decoder does not change.

        :param data: the bytes.
        :return: the offset of the chunk's data; 0 if they are anything else.
        """
        stop = data.find(b"\r\n", 0, 10)
        if stop < 1 or data[:stop].translate(None, _HEX):
            return 0
        size = int(data[:stop], 16)
        return stop + 2 if size and size + stop + 4 == len(data) and data.endswith(b"\r\n") else 0

    def end(self) -> ReadError | None:
        """Note that the connection has ended.

        :return: the error if the body is incomplete; ``None`` at its end.
        """
        return None if self.done else ConnectionLost("the connection ended before the last chunk of the body")


def _decode_bulk(data: bytes) -> tuple[list[bytes], int] | None:
    """Decode many small chunks with one split: 0.2 us a chunk; one by one it is 1 us.

    Cut at every CR LF, sizes and data alternate, unless some data holds a CR LF: then a size does not match the
    length of the next part.

    :return: the chunks' data, and how many bytes at the end are no whole chunk; ``None`` if the sizes do not match.
    """
    parts = data.split(b"\r\n")
    whole = (len(parts) - 1) & ~1
    names, pieces = parts[:whole:2], parts[1:whole:2]
    try:
        sizes = {name: _chunk_size(name) for name in set(names)}  # few differ
    except ReadError:
        return None
    if 0 in sizes.values() or [sizes[name] for name in names] != list(map(len, pieces)):
        return None
    return pieces, len(b"\r\n".join(parts[whole:]))


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].strip(b" \t")
    if not size or size.translate(None, _HEX):
        raise ReadError(f"not a chunk size: {line[:40]!r}")
    return int(size, 16)
