"""A decoder that is plainly right and slow, ways to cut bytes, and one comparison."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ssesync.errors import EventTooLarge
from ssesync.event import Event
from ssesync.wire import Decoder
from tests.profiles import EXAMPLES, examples

BOM = b"\xef\xbb\xbf"
#: Streams up to so many bytes are cut in every three pieces: 28 bytes give 378 of these cuts, 14 bytes 91.
THREE_WAY = 14 if examples() == EXAMPLES["quick"] else 28


@dataclass
class Outcome:
    """All that a stream tells; what two ways of decoding it must agree on."""

    events: list[Event]
    retry: int | None = None
    last_event_id: str = ""
    too_large: bool = False


def message(data: str, id: str | None = None, type: str = "message") -> Event:
    """A decoded event, shorter to write."""
    return Event(data, id=id, type=type)


def decode(chunks: Iterable[bytes], last_event_id: str | None = None, **options: object) -> Outcome:
    """Decode with the library's decoder."""
    decoder = Decoder(last_event_id, **options)  # type: ignore[arg-type]
    events: list[Event] = []
    too_large = False
    try:
        for chunk in chunks:
            events += decoder.feed(chunk)
    except EventTooLarge as error:
        events += error.events
        too_large = error.size > error.limit == decoder.max_event_size
    return Outcome(events, decoder.retry, decoder.last_event_id, too_large)


def reference(
    stream: bytes, last_event_id: str | None = None, *, comments: bool = False, max_event_size: int | None = None
) -> Outcome:
    """The standard's rules, one after the other, on the whole stream. No thought for speed or memory."""
    stream = stream[3:] if stream.startswith(BOM) else stream
    *lines, unfinished = re.split(b"\r\n|\r|\n", stream)
    result = Outcome([])
    data, type_, id_, held = "", "", last_event_id, 0
    for raw in lines:
        line = whatwg_utf8(raw)
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line and field in ("data", "event", "id", "retry") and max_event_size is not None:
            if held + len(raw) > max_event_size:
                result.too_large = True
                break
            held += len(raw) if field != "retry" else 0
        if not line:
            result.last_event_id = id_ or ""
            if data:
                result.events.append(message(data[:-1], id_, type_ or "message"))
            data, type_, held = "", "", 0
        elif not field:
            if comments and (max_event_size is None or len(raw) <= max_event_size):
                result.events.append(Event(comment=value))
        elif field == "event":
            type_ = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            id_ = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            result.retry = min(int(value[:4000]), 10**18)
    else:
        # An unfinished line counts from its colon on, which is where it is known to be a field.
        field, colon, _ = unfinished.partition(b":")
        if colon and field in (b"data", b"event", b"id", b"retry") and max_event_size is not None:
            result.too_large = held + len(unfinished) > max_event_size
    if not result.last_event_id and not any(not line for line in lines):
        result.last_event_id = last_event_id or ""
    return result


def whatwg_utf8(raw: bytes) -> str:
    """The Encoding Standard's UTF-8 decoder, step by step, with the error mode "replacement"."""
    out: list[str] = []
    point = needed = seen = 0
    lower, upper = 0x80, 0xBF
    position = 0
    while position < len(raw):
        byte = raw[position]
        position += 1
        if not needed:
            if byte <= 0x7F:
                out.append(chr(byte))
            elif 0xC2 <= byte <= 0xDF:
                needed, point = 1, byte & 0x1F
            elif 0xE0 <= byte <= 0xEF:
                lower = 0xA0 if byte == 0xE0 else 0x80
                upper = 0x9F if byte == 0xED else 0xBF
                needed, point = 2, byte & 0xF
            elif 0xF0 <= byte <= 0xF4:
                lower = 0x90 if byte == 0xF0 else 0x80
                upper = 0x8F if byte == 0xF4 else 0xBF
                needed, point = 3, byte & 0x7
            else:
                out.append("\ufffd")
        elif not lower <= byte <= upper:
            point = needed = seen = 0
            lower, upper = 0x80, 0xBF
            position -= 1
            out.append("\ufffd")
        else:
            lower, upper = 0x80, 0xBF
            point = point << 6 | byte & 0x3F
            seen += 1
            if seen == needed:
                out.append(chr(point))
                point = needed = seen = 0
    if needed:
        out.append("\ufffd")
    return "".join(out)


def every_cut(stream: bytes, three_way_up_to: int = THREE_WAY) -> Iterator[list[bytes]]:
    """The stream whole, byte by byte, in every two pieces and, when it is short, in every three."""
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    yield [piece for i in range(len(stream)) for piece in (b"", stream[i : i + 1])]
    for i in range(1, len(stream)):
        yield [stream[:i], stream[i:]]
        if len(stream) <= three_way_up_to:
            for j in range(i + 1, len(stream)):
                yield [stream[:i], stream[i:j], stream[j:]]


def pieces(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """The stream cut at these places (taken modulo its length)."""
    places = sorted({place % (len(stream) + 1) for place in at} | {0, len(stream)})
    return [stream[i:j] for i, j in pairwise(places)]
