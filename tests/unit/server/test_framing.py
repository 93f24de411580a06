"""The bytes before and after a stream's events."""

from __future__ import annotations

from ssesync import Settings
from ssesync.server.framing import make_preamble, make_trailer
from ssesync.wire import Decoder

from ...cases import each_case


@each_case(
    "settings, reset_retry, preamble",
    [
        (Settings(), False, b":ok\n"),
        (Settings(), True, b"retry: 3000\n"),
        (Settings(retry=500), False, b"retry: 500\n"),
        (Settings(retry=500), True, b"retry: 500\n"),
        (Settings(padding=4), False, b":    \n:ok\n"),
        (Settings(padding=4, retry=0), False, b":    \nretry: 0\n"),
    ],
)
def test_a_preamble_is_a_reconnection_time_or_a_comment(settings: Settings, reset_retry: bool, preamble: bytes) -> None:
    assert make_preamble(settings, reset_retry=reset_retry) == preamble
    decoder = Decoder(comments=False)
    assert decoder.feed(preamble + b"data: a\n\n")[0].data == "a"


@each_case("retry, least", [(None, 2000), (0, 2000), (1, 1), (700, 700)])
def test_a_trailer_spreads_reconnections_up_to_twice_the_time(retry: int | None, least: int) -> None:
    seen = set()
    for _ in range(200):
        decoder = Decoder()
        decoder.feed(make_trailer(Settings(retry=retry)))
        seen.add(decoder.retry)
    assert all(value is not None and least <= value <= 2 * least for value in seen)
    assert len(seen) > 1
