"""The benchmarks measure what they say: right inputs, contestants that are checked first, commands that run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import codec, peers, server
from benchmarks.inputs import CODEC, Input, hundred_bytes, large, small
from ssesync import Event
from ssesync.wire import Decoder

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=CODEC)
def case(request: pytest.FixtureRequest) -> Input:
    make, _ = CODEC[request.param]
    return make(30)


def decoded(chunks: list[bytes]) -> list[tuple[str | None, str | None, str]]:
    decoder = Decoder()
    return [(event.data, event.type, event.id or "") for chunk in chunks for event in decoder.feed(chunk)]


def test_an_input_decodes_to_its_events_however_it_is_cut(case: Input) -> None:
    assert decoded(case.cut()) == case.events
    assert decoded(case.cut(997)) == case.events
    assert decoded(case.blocks) == case.events
    assert b"".join(case.cut()) == case.stream


def test_an_input_is_the_same_every_time() -> None:
    for make, _ in CODEC.values():
        assert make(10) == make(10)


def test_the_inputs_have_the_sizes_in_their_names() -> None:
    assert {len(block) for block in hundred_bytes(50).blocks} == {100}
    assert {len(data) for data, _, _ in large(3).events} == {65536}
    assert small(5, end="\r\n").events == small(5).events


@pytest.mark.parametrize("name", ["httpx-sse", "sseclient-py", "requests-sse", "launchdarkly-eventsource", "openai"])
def test_every_peer_that_is_installed_decodes_every_input_to_its_events(name: str, case: Input) -> None:
    client = peers.decoders().get(name)
    if client is None:
        pytest.skip(f"{name} is not installed")
    for chunks in (case.cut(), case.blocks):
        peers.check(name, [client.fields(event) for event in client.events(chunks)], case.events)


def test_the_one_known_deviation_is_there_and_touches_no_data() -> None:
    client = peers.decoders().get("requests-sse")
    if client is None:
        pytest.skip("requests-sse is not installed")
    case = small(10, end="\r\n")
    cut = case.blocks[0].index(b"\r\ndata") + 1
    chunks = [case.stream[:cut], case.stream[cut:]]
    got = [client.fields(event) for event in client.events(chunks)]
    assert [data for data, _, _ in got] == [data for data, _, _ in case.events]
    assert got[0][1] == "message" != case.events[0][1]


def test_a_decoder_that_gives_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = peers.decoders()[peers.OURS]
    runs = []

    def wrong(chunks: list[bytes]) -> Iterator[Event]:
        runs.append(1)
        for event in ours.events(chunks):
            yield Event(event.data[1:], type=event.type, id=event.id)

    monkeypatch.setattr(peers, "decoders", lambda: {"wrong": peers.Client(wrong, ours.fields)})
    case = small(5)
    with pytest.raises(AssertionError, match="wrong, event 0: data is"):
        codec.decoding(case, case.blocks, "one event per chunk", 1)
    assert len(runs) == 1


def test_a_contestant_that_loses_events_or_fields_is_refused() -> None:
    expected = [("a", "message", "1"), ("b", "tick", "2")]
    with pytest.raises(AssertionError, match="1 events instead of 2"):
        peers.check("x", expected[:1], expected)
    with pytest.raises(AssertionError, match="event 1: type"):
        peers.check("x", [("a", "message", "1"), ("b", "message", "2")], expected)
    with pytest.raises(AssertionError, match="event 1: id"):
        peers.check("x", [("a", "message", "1"), ("b", "tick", "")], expected)
    peers.check("x", [("a", None, None), ("b", "tick", "2")], expected)


def test_every_encoder_that_is_installed_writes_what_decodes_to_the_event(case: Input) -> None:
    for name, encode in peers.encoders().items():
        stream = b"".join(
            encode(data, None if type == "message" else type, id or None) for data, type, id in case.events
        )
        assert decoded([stream]) == case.events, name


def test_every_reader_that_is_installed_reads_every_stream_of_the_server_to_its_events() -> None:
    with server.running(3) as base:
        for name, (case, chunks, _) in server.cases(3).items():
            assert b"".join(chunks) == case.stream
            for reader, client in peers.readers().items():
                got = [client.fields(event) for event in client.events(f"{base}/{name}")]
                peers.check(reader, got, case.events)


@pytest.mark.parametrize("module", ["codec", "reader"])
def test_a_benchmark_runs_in_quick_mode_and_prints_its_tables(module: str) -> None:
    run: Any = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "x ours" in run.stdout
    rows = [line.split() for line in run.stdout.splitlines() if line.startswith(f"  {peers.OURS} ")]
    assert len(rows) == (14 if module == "codec" else 3)
    assert all(row[-2:] == ["1.00", "1.00"] for row in rows)
