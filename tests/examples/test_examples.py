from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import psutil
import pytest

from ssesync import Event, Reader

from .started import Server, get, read

LIVE = {"flask_live": "stats", "django_live": "top"}

DJANGO = pytest.mark.parametrize("example", ["django_live-gunicorn", "django_live-runserver"], indirect=True)


def test_the_page_requests_only_its_own_streams(example: Server) -> None:
    with get(example.url) as response:
        page = response.text
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"\bsrc=|@import|\burl\(|\bfetch\((?![`\"]jobs)", page)
    assert set(re.findall(r"\bimport\b.*", page)) <= {'import {Stream} from "/ssesync/ssesync.js";'}
    assert re.findall(r"<link [^>]*>", page) == ['<link rel="icon" href="data:,">']


def test_the_first_events_are_what_the_machine_says_of_itself(example: Server) -> None:
    with read(example.url + LIVE[example.example]) as reader:
        first, second, third = itertools.islice(reader, 3)
    memory = psutil.virtual_memory().total
    if example.example == "flask_live":
        assert [first.type, second.type, third.type] == ["host", "sample", "sample"]
        assert (first.json()["cores"], first.json()["memory"]) == (psutil.cpu_count(), memory)
        values = third.json()
        assert values["time"] > second.json()["time"]
        assert values["server"][0]["pid"] == example.process.pid
        assert len(values["server"]) == 2
        assert all(process["memory"] > 1_000_000 for process in values["server"])
        assert len(values["cores"]) == psutil.cpu_count()
        assert 0 < values["memory"]["used"] < memory
    else:
        assert first == Event("ready", type="hello", retry=1000)
        assert (second.type, third.type) == ("message", "message")
        values = third.json()
        assert values["memory"]["total"] == memory
        assert values["processes"] >= len(values["busiest"]) == 8
        busy = [process["cpu"] for process in values["busiest"]]
        assert busy == sorted(busy, reverse=True)
    assert len(values["load"]) == 3


def test_a_head_request_is_given_the_stream_s_headers_and_no_stream(example: Server) -> None:
    with get(example.url + LIVE[example.example], method="HEAD") as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.content == b""


@DJANGO
def test_the_job_counts_its_percents_in_ids_and_ends(example: Server) -> None:
    with read(example.url + "job") as reader:
        events = list(reader)
        assert reader.retry == 1000
    assert [event.id for event in events] == [str(percent) for percent in range(1, 101)]
    assert [event.type for event in events] == ["progress"] * 99 + ["done"]


@DJANGO
def test_a_cut_off_job_goes_on_where_it_was_without_gap_or_repetition(example: Server) -> None:
    events: list[Event] = []
    last_event_id = ""
    for count in (1, 41, 100):
        with read(example.url + "job", last_event_id) as reader:
            events += itertools.islice(reader, count)
            last_event_id = reader.last_event_id
    assert [event.id for event in events] == [str(percent) for percent in range(1, 101)]


@DJANGO
def test_the_job_s_results_are_those_of_the_files_on_disk(example: Server) -> None:
    with read(example.url + "job") as reader:
        results = [event.json() for event in reader]
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    assert [name for result in results for name in result["files"]] == [file.name for file in files]
    assert sum(result["lines"] for result in results) == sum(file.read_bytes().count(b"\n") for file in files)


@DJANGO
def test_the_compressing_middleware_takes_the_page_and_leaves_the_stream(example: Server) -> None:
    with get(example.url, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
    with get(example.url + "top", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "identity"
        event = Reader(response).read()
    assert event is not None
    assert event.data == "ready"


@DJANGO
def test_a_wrong_question_is_answered_404_and_no_stream(example: Server) -> None:
    with get(example.url + "top?limit=many") as response:
        assert response.status_code == 404


@DJANGO
def test_a_client_that_saw_the_job_s_end_is_answered_204(example: Server) -> None:
    with get(example.url + "job", "100") as response:
        assert response.status_code == 204
        assert response.content == b""
    with read(example.url + "job", "100") as reader:
        assert list(reader) == []


@DJANGO
@pytest.mark.parametrize("last_event_id", ["101", "999", "0100", "-1", "1e1", "half", "٣"])
def test_a_last_event_id_that_is_no_percentage_starts_the_job_anew(example: Server, last_event_id: str) -> None:
    with read(example.url + "job", last_event_id) as reader:
        event = reader.read()
    assert event is not None
    assert event.id == "1"
