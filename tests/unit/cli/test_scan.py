"""What a doctor makes of a stream's bytes and of when they came: here by a clock that needs no waiting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssesync.cli import checks_body
from ssesync.cli.finding import Examination, Finding
from ssesync.cli.probe import Answer
from ssesync.cli.scan import LARGEST_EVENT, Scan

from ...cases import each_case

KEEP_ALIVE = b":keep-alive\n"
EVENT = b"id: 1\ndata: something that happened\n\n"
SAMPLE = (
    b"\xef\xbb\xbf: hello\r\n\r\nretry: 1500\revent: ping\rdata: {}\r\rid: \xc3\xa4\ndata: \xe2\x98\x83 one\n"
    b"data: two\n\n:c\n\n\n:d\ndata:\n\ndata: \xff\n\nid: 9\n\ndata: cut"
)


def scanned(*pieces: tuple[float, bytes]) -> Scan:
    scan = Scan()
    for at, data in pieces:
        scan.feed(at, data)
    return scan


def examined(scan: Scan, watched: float, *, ended: bool = False) -> Examination:
    probe: Any = SimpleNamespace(scan=scan, ended_after=watched if ended else None, error=None, cut=False)
    answer = Answer(200, "OK", "HTTP/1.1", [("Content-Type", "text/event-stream")], "http://127.0.0.1/", [])
    return Examination(probe, answer, None, None, "", None, None, watched)


def facts(scan: Scan) -> dict[str, Any]:
    shown = {**vars(scan), **vars(scan.lines)}
    return {
        name: value for name, value in shown.items() if not name.startswith("_") and name not in ("bursts", "lines")
    }


def test_what_is_seen_does_not_depend_on_how_the_bytes_were_cut():
    whole = facts(scanned((0, SAMPLE)))
    for step in range(1, len(SAMPLE)):
        scan = Scan()
        for at in range(0, len(SAMPLE), step):
            scan.feed(0, SAMPLE[at : at + step])
        assert facts(scan) == whole, step


def test_what_is_seen():
    scan = scanned((0, SAMPLE))
    assert (scan.events, scan.comments, scan.lines.events_with_id) == (4, 3, 1)
    assert (scan.ids, scan.retry, scan.lines.bom) == (["ä"], 1500, True)
    assert scan.lines.not_utf8 == SAMPLE.index(b"\xff")
    assert scan.lines.blank_after_comment == 2
    assert scan.ping_events == {"event: ping": 1, "data: (empty)": 1}
    assert scan.lines.in_event
    assert scan.lines.longest_event == len(b"retry: 1500" + b"event: ping" + b"data: {}")
    assert not scan.too_large


def test_an_event_without_an_end_is_bounded_and_reported():
    scan = Scan()
    for _ in range(80):
        scan.feed(0, b"data: " + b"x" * 65536 + b"\n")
    assert scan.too_large
    assert scan.lines.longest_event > LARGEST_EVENT
    assert found(checks_body.events, scan, 1) == ("problem", "none complete; one has more than 5.2 MB")


def test_bytes_that_come_within_a_moment_came_together():
    scan = scanned((1.0, b"data: a\n"), (1.01, b"\n"), (3.0, EVENT + KEEP_ALIVE))
    first, second = scan.bursts
    assert (first.at, first.end, first.size, first.events, first.whole) == (1.0, 1.01, 9, 1, True)
    assert (second.at, second.events, second.comments) == (3.0, 1, ["keep-alive"])
    assert second.silence == pytest.approx(1.99)
    assert scan.silences(until=5.0) == [pytest.approx(1.99), 2.0]


def found(check: Any, scan: Scan, watched: float, **options: Any) -> tuple[str, str]:
    finding: Finding = check(examined(scan, watched, **options))
    return finding.level, finding.seen


@each_case(
    "pieces, watched, expected",
    [
        ([(0, b":ok\n"), (15, KEEP_ALIVE), (30, KEEP_ALIVE)], 35, ("ok", "a comment after 15 s of silence")),
        ([(0, b":ok\n"), (20, EVENT), (35.5, KEEP_ALIVE)], 36, ("ok", "a comment after 16 s of silence")),
        ([(0, b":ok\n")], 35, ("problem", "35 s without a byte")),
        ([(0, EVENT), (25, EVENT)], 35, ("advice", "25 s without a byte")),
        ([(0, b":ok\n")], 5, ("unknown", "none in 5.0 s")),
        ([(at, EVENT) for at in range(36)], 35.5, ("ok", "none was needed: never silent for more than 1.0 s")),
        ([(0, b"event: keep-alive\ndata:\n\n")], 35, ("advice", "1 event with 'event: keep-alive'")),
        ([], 35, ("unknown", "nothing came")),
    ],
)
def test_keep_alives_are_judged_by_the_silence_before_them(
    pieces: list[tuple[float, bytes]], watched: float, expected: tuple[str, str]
):
    assert found(checks_body.keep_alive, scanned(*pieces), watched) == expected


@each_case(
    "pieces, watched, ended, expected",
    [
        ([(at, EVENT) for at in range(10)], 10, False, ("ok", "none: 10 events and comments in 10 pieces")),
        ([(0, b":ok\n"), (0.2, EVENT * 3), (9, EVENT)], 10, False, ("ok", "none: 5 events and comments in 3 pieces")),
        (
            [(0, b":ok\n"), (31, KEEP_ALIVE * 2)],
            35,
            False,
            ("problem", "2 keep-alives came at once after 31 s of silence"),
        ),
        (
            [(4, (EVENT * 300)[:4096]), (8, (EVENT * 300)[4096:8192])],
            10,
            False,
            (
                "problem",
                "2 times the bytes stopped in the middle of an event, for up to 4.0 s; 4,096 of them came at once",
            ),
        ),
        ([(4, EVENT * 8)], 4, True, ("problem", "all 8 events came at the end, 4.0 s late")),
        ([(0.1, EVENT * 8)], 0.1, True, ("ok", "none: 8 events and comments in 1 piece")),
        (
            [(0, EVENT), (5, EVENT * 6), (10, EVENT * 6)],
            12,
            False,
            ("advice", "2 times 5 events or more came at once after about 5.0 s"),
        ),
        ([(0, EVENT)], 10, False, ("unknown", "too few events came")),
    ],
)
def test_buffers_are_known_by_what_only_they_do(
    pieces: list[tuple[float, bytes]], watched: float, ended: bool, expected: tuple[str, str]
):
    finding = found(checks_body.buffering, scanned(*pieces), watched, ended=ended)
    assert finding == expected
