"""On a terminal: colours, the status line, and a terminal that is as it was before, however the command ends."""

from __future__ import annotations

import re
import signal
import threading

import pytest

from ssesync.cli.screen import waking_on_signals
from ssesync.testing import FakeSSEServer

from .runs import terminal

COLOUR = re.compile(rb"\x1b\[(?:\d+;)*3[0-7]m")


def test_events_are_coloured_above_a_status_line(server: FakeSSEServer):
    server.answer().json({"a": 1, "b": "x" * 80}, type="sample", id=7).comment("hm").event(
        "\x1b]0;title\x07\x9b2J"
    ).stall()
    with terminal("tail", server.url, "--comments") as screen:
        screen.until("│ last id 7 │")
        screen.until("● open │ 2 events │")
        assert COLOUR.search(screen.seen)
        assert '  sample  #7\n    {\n      "a": 1,\n      "b": "' + "x" * 60 in screen.text
        assert "  : hm\n" in screen.text
        assert "\\x1b]0;title\\x07\\x9b2J" in screen.text
        assert b"\x1b]" not in screen.seen
        assert b"\x07" not in screen.seen
        assert all(len(line) <= 80 for line in re.split(r"[\n\r]", screen.text))
        screen.type(b"\x03")
        assert screen.ends() == 130
        assert re.search(r"— 2 events, 2? ?.*1 comment, 1\d\d B of data in .*\n$", screen.text), screen.text
        assert "Traceback" not in screen.text


def test_no_color_is_respected(server: FakeSSEServer):
    server.answer().json({"a": 1}, type="sample", id=7).stall()
    with terminal("tail", server.url, "-n", "1", NO_COLOR="1") as screen:
        assert screen.ends() == 0
        assert '  sample  #7  {"a":1}\n' in screen.text
        assert not COLOUR.search(screen.seen)


def test_a_wait_is_counted_down_and_ctrl_c_ends_it(server: FakeSSEServer):
    server.answer().retry(30_000).event("x").drop(rst=True)
    with terminal("tail", server.url) as screen:
        screen.until("; again in 3")
        screen.until("◌ waiting 3")
        screen.until("◌ waiting 29.")
        screen.type(b"\x03")
        assert screen.ends() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_terminal_needs_no_restoring(server: FakeSSEServer, number: signal.Signals):
    server.answer().event("x").stall()
    with terminal("tail", server.url) as screen:
        screen.until("● open │ 1 event │")
        screen.process.send_signal(number)
        screen.ends()
        assert screen.modes_now() == screen.modes
        assert b"\x1b[?" not in screen.seen  # neither a hidden cursor nor another screen


def test_where_it_is_no_terminal_that_can_draw_there_is_no_status_line(server: FakeSSEServer):
    server.answer().event("x").stall()
    with terminal("tail", server.url, "-n", "1", TERM="dumb") as screen:
        assert screen.ends() == 0
        assert "open" not in screen.text
        assert b"\x1b" not in screen.seen


def test_raw_bytes_can_give_the_terminal_no_orders(server: FakeSSEServer):
    server.answer().raw("data: \x1b[31m ü\r\n\xff\n")
    with terminal("tail", server.url, "--raw") as screen:
        assert screen.ends() == 0
        assert screen.text == "data: \\x1b[31m ü\\r\nÿ\n"
        assert b"\x1b" not in screen.seen


def test_the_doctor_shows_how_far_the_watch_is_and_then_its_findings(server: FakeSSEServer):
    server.answer(times=None).event("x", id=1).stall()
    with terminal("doctor", server.url, "--seconds", "4") as screen:
        screen.until("of 4 s, 1 event, 0 comments, ")
        assert screen.ends() == 0
        assert re.search(r"^ok +Media type +text/event-stream$", screen.text, re.MULTILINE)
        assert COLOUR.search(screen.seen)


def test_ctrl_c_ends_the_doctor_without_a_word(server: FakeSSEServer):
    server.answer(times=None).stall()
    with terminal("doctor", server.url) as screen:
        screen.until("of 35 s, 0 events")
        screen.type(b"\x03")
        assert screen.ends() == 130
        assert "Answer" not in screen.text


def test_a_signal_that_comes_just_before_the_main_thread_waits_ends_the_wait_all_the_same():
    woken = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with waking_on_signals(woken.set):
            # To a thread that is in no call that it could interrupt.
            signal.raise_signal(signal.SIGINT)
            assert woken.wait(90)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.set_wakeup_fd(-1) == -1
