"""``tail`` into pipes: what is written, what is asked for, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssesync.cli import main
from ssesync.testing import Answer, FakeSSEServer
from tests.redis_server import lasting_port

from ...cases import each_case
from .runs import RUNNER, TIMEOUT, run, start

CONTROLS = "\x1b[31mred\x1b[0m \x07\x7f \x9b2J \u202eevil \u2028 \x00"


def test_events_come_in_columns_and_data_of_several_lines_beneath(server: FakeSSEServer):
    server.answer().event("one", id=1).event("two\nlines", type="progress").event("three", id=2).stall()
    done = run("tail", server.url, "-n", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", done.stdout) == (
        "TIME  message  #1  one\nTIME  progress  #1\n    two\n    lines\nTIME  message   #2  three\n"
    )


def test_json_has_the_reconnection_time_with_the_event_whose_block_sets_it(server: FakeSSEServer):
    server.answer().raw(
        "data: a\n\nretry: 10\ndata: b\n\nretry: 10\ndata: c\n\ndata: d\n\nretry: 20\n\ndata: e\n\n"
    ).stall()
    shown = [json.loads(line) for line in run("tail", server.url, "-n", "5", "--json").stdout.splitlines()]
    assert [(each["data"], each.get("retry")) for each in shown] == [
        ("a", None), ("b", 10), ("c", 10), ("d", None), ("e", 20),
    ]  # fmt: skip


def test_data_that_is_json_may_be_a_value_for_programs(server: FakeSSEServer):
    server.answer().event('{"a": [1, null]}').event("text").event("1e999").stall()
    lines = run("tail", server.url, "-n", "3", "--data-json").stdout.splitlines()
    assert [json.loads(line)["data"] for line in lines] == [{"a": [1, None]}, "text", "1e999"]


def test_a_changed_reconnection_time_is_shown_where_it_changed(server: FakeSSEServer):
    server.answer().raw("data: a\n\nretry: 10\ndata: b\n\nretry: 10\ndata: c\n\n").stall()
    lines = run("tail", server.url, "-n", "3").stdout.splitlines()
    assert ["retry 10 ms" in line for line in lines] == [False, True, False]


def test_timing_shows_the_time_since_the_start_and_since_the_previous_event(server: FakeSSEServer):
    server.answer().event("one").event("two").stall()
    lines = run("tail", server.url, "-n", "2", "--timing").stdout.splitlines()
    assert all(re.fullmatch(r" *\d+\.\d{3} s +\+\d+\.\d{3} s  message  (one|two)", line) for line in lines), lines


@pytest.mark.slow
def test_json_is_one_object_a_line_written_as_soon_as_the_event_is_there(server: FakeSSEServer):
    answer = server.answer().retry(1500).event("ü\nb", id="7", type="news").comment("c").event(CONTROLS.strip("\0"))
    answer.stall()
    process = start("tail", server.url, "--json", "--comments", "--timing")
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    finally:
        process.kill()
        process.communicate()
    assert lines[0] | {"time": 0, "since_start": 0, "since_last": 0} == {
        "type": "news", "data": "ü\nb", "id": "7", "retry": 1500, "time": 0, "since_start": 0, "since_last": 0,
    }  # fmt: skip
    assert lines[1]["comment"] == "c"
    assert set(lines[2]) == {"type", "data", "id", "time", "since_start", "since_last"}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_control_character_of_the_server_reaches_the_output(server: FakeSSEServer, form: list[str]):
    server.answer().event(f"{CONTROLS}\n{CONTROLS}", type="t\x1b]0;", id="i\x9b").comment(CONTROLS).stall()
    done = run("tail", server.url, "-n", "1", "--comments", *form)
    assert done.returncode == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", done.stdout), done.stdout
    if form:
        assert json.loads(done.stdout)["data"] == f"{CONTROLS}\n{CONTROLS}"


def test_an_answer_that_is_no_stream_is_shown_without_its_control_characters(server: FakeSSEServer):
    server.answer("404 Not\x1bFound", body="no \x1b[2J such")
    done = run("tail", server.url)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "ssesync: 404 Not\\x1bFound: no \\x1b[2J such\n"


def test_raw_is_every_byte_as_it_came(server: FakeSSEServer):
    body = b"\xef\xbb\xbf:c\r\ndata: \xff\x1b[0m\r\rid: 1\n\ndata: cut"
    server.answer().raw(body)
    result = RUNNER.invoke(main, ["tail", server.url, "--raw"])
    assert (result.stdout_bytes, result.stderr_bytes, result.exit_code) == (body, b"", 0)


def test_raw_ends_with_the_piece_that_has_the_requested_event(server: FakeSSEServer):
    server.answer().event("one").event("[DONE]").stall()
    assert run("tail", server.url, "--raw", "--until", "[DONE]").stdout.startswith("data: one\n\n")
    server.answer().event("one").stall()
    assert run("tail", server.url, "--raw", "-n", "1").stdout == "data: one\n\n"
    server.answer().event("one")
    done = run("tail", server.url, "--raw", "-n", "2")
    assert (done.returncode, done.stderr) == (1, "ssesync: the stream ended before --count was met\n")


def test_until_ends_the_stream_and_is_not_shown(server: FakeSSEServer):
    server.answer().event("one").event("[DONE]").stall()
    done = run("tail", server.url, "--until", "[DONE]", "--json")
    assert (done.returncode, json.loads(done.stdout)["data"]) == (0, "one")


def test_the_request_has_the_options_of_the_command_line(server: FakeSSEServer, tmp_path: Path):
    server.answer(times=None).event("x")
    (tmp_path / "body").write_bytes(b"from a file")
    bodies = [
        (["-d", "text ü"], "POST", "text ü".encode()),
        (["-d", f"@{tmp_path / 'body'}", "-X", "put"], "PUT", b"from a file"),
        (["-d", "@-"], "POST", b"piped"),
        (["-j", '{"a": 1}'], "POST", b'{"a": 1}'),
    ]
    for options, _, _ in bodies:
        run(
            "tail", server.url, "-n", "1", "-H", "X-One: ü", "-H", "Authorization: Bearer t", "--last-event-id", "é 1",
            *options, stdin=b"piped",
        )  # fmt: skip
    assert [(each.method, each.body) for each in server.requests] == [(method, body) for _, method, body in bodies]
    headers = server.requests[-1].headers
    assert headers["accept"] == "text/event-stream"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer t"
    assert headers["x-one"].encode("latin-1").decode() == "ü"
    assert server.requests[-1].last_event_id == "é 1"
    assert headers["user-agent"].startswith("ssesync/")


@pytest.mark.slow
def test_it_reconnects_and_resumes_and_says_so_on_the_error_output(server: FakeSSEServer):
    server.answer().retry(1).event("one", id="ü1").drop(rst=True)
    server.answer().event("two", id="2").stall()
    done = run("tail", server.url, "-n", "2", "--json")
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == ["one", "two"]
    assert server.requests[1].last_event_id == "ü1"
    assert re.fullmatch(
        r"ssesync: [^\n]+; again in \d[^\n]+\nssesync: open again, resumed after id ü1\n", done.stderr
    ), done.stderr


@pytest.mark.parametrize(
    ("answers", "options", "status"),
    [
        ([Answer().event("x")], ["--no-reconnect"], 0),
        ([Answer().event("x")], ["-d", ""], 0),
        ([Answer().event("x")], ["--no-reconnect", "-n", "2"], 1),
        ([Answer().event("x")], ["--no-reconnect", "--until", "y"], 1),
        ([Answer().event("x").drop(rst=True)], ["--no-reconnect"], 1),
        pytest.param([Answer().retry(1).event("x").drop(), Answer(404)], [], 1, marks=pytest.mark.slow),
        ([Answer().event("x")], ["--retries", "0"], 1),
        ([Answer().event("x").stall()], ["--no-reconnect", "--idle-timeout", "0.1"], 1),
        ([Answer(503)], [], 3),
        ([Answer(200, content_type="text/html", body="<p>")], [], 3),
        pytest.param(
            [Answer(503, retry_after=0), Answer().event("x").stall()],
            ["--reconnect", "-n", "1"],
            0,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_exit_status_shows_how_the_stream_ended(
    server: FakeSSEServer, answers: list[Answer], options: list[str], status: int
):
    for answer in answers:
        server.add(answer)
    done = run("tail", server.url, *options)
    assert done.returncode == status, done.stderr
    assert bool(done.stderr) == (status != 0 or len(answers) > 1)
    assert "Traceback" not in done.stderr


def test_an_address_without_a_server_is_reported_at_once():
    done = run("tail", "127.0.0.1:1/x")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "ssesync: no answer from http://127.0.0.1:1/x: Connection refused\n"


@each_case(
    "arguments",
    [
        [],
        ["ftp://127.0.0.1/"],
        ["http://"],
        ["http://127.0.0.1:port/"],
        ["http://127.0.0.1:1/", "-H", "no colon"],
        ["http://127.0.0.1:1/", "-H", "A: b\nC: d"],
        ["http://127.0.0.1:1/", "-d", "a", "-j", "1"],
        ["http://127.0.0.1:1/", "-j", "{"],
        ["http://127.0.0.1:1/", "-d", "@/nowhere/at/all"],
        ["http://127.0.0.1:1/", "--last-event-id", "a\nb"],
        ["http://127.0.0.1:1/", "--raw", "--json"],
    ],
)
def test_a_command_line_without_sense_is_refused_with_status_2(arguments: list[str]):
    done = run("tail", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--raw"]])
def test_it_ends_when_nobody_reads_any_more_though_no_event_comes(server: FakeSSEServer, form: list[str]):
    server.answer().event("one").stall()
    process = start("tail", server.url, *form)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(TIMEOUT) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.slow
def test_a_pipe_that_breaks_under_a_write_ends_it_quietly(server: FakeSSEServer):
    server.answer().events(*["event"] * 50_000).stall()
    process = start("tail", server.url)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(TIMEOUT) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_quietly(server: FakeSSEServer, number: signal.Signals, status: int):
    server.answer().event("one").stall()
    process = start("tail", server.url, "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=TIMEOUT) == (b"", b"")
    assert process.returncode == status


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_libraries_it_says_in_one_line_what_to_install(missing: str):
    code = f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_module('ssesync', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"python -m ssesync needs {missing}, which is not installed: pip install 'ssesync[cli]'\n"


@each_case("command", [[], ["tail"], ["doctor"]])
def test_help_lists_the_exit_statuses(command: list[str]):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert not command or "Exit status:" in done.stdout


@each_case("command", [["tail"], ["tail", "--raw"], ["doctor"], ["doctor", "--json"]])
def test_the_password_in_an_address_is_not_shown(command: list[str]):
    done = run(
        *command, f"http://user:hidden@127.0.0.1:{lasting_port()}/?access_token=hidden", "--connect-timeout", "5"
    )
    assert done.returncode == 3
    assert "hidden" not in done.stdout + done.stderr
    assert "user" in done.stdout + done.stderr
