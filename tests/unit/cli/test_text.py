"""Text as it may be shown."""

from __future__ import annotations

import json

from ssesync.cli.text import bytes_text, duration_text, escape, json_lines, reason

from ...cases import each_case


def test_no_character_that_a_terminal_obeys_is_left():
    every = "".join(map(chr, range(0x3000))) + "\ud800\udfff"
    shown = escape(every)
    assert not {c for c in shown if ord(c) < 32 and c != "\t"} | {c for c in shown if 0x7F <= ord(c) < 0xA0}
    shown.encode()
    assert escape("a\x1b[2J\r\n\x9b\u202eb ü ☃ 😀") == "a\\x1b[2J\\r\\n\\x9b\\u202eb ü ☃ 😀"


@each_case("text", ["text", "12", '"text"', "{", "[1, 2", "", "[" * 5000, "{'a': 1}"])
def test_what_is_no_json_object_or_array_is_not_laid_out(text: str):
    assert json_lines(text, 80) is None


def test_json_is_opened_only_where_it_does_not_fit():
    text = '{"a":1.10,"b":[1,2,{"c":null}],"long":{"x":"yyyyyyyyyyyyyyyy","z":[true,false]},"e":{},"a":1e999}'
    assert json_lines(text, 30) == [
        "{",
        '  "a": 1.10,',
        '  "b": [1, 2, {"c": null}],',
        '  "long": {',
        '    "x": "yyyyyyyyyyyyyyyy",',
        '    "z": [true, false]',
        "  },",
        '  "e": {},',
        '  "a": 1e999',
        "}",
    ]
    wide = json_lines(text, 200)
    assert wide is not None
    assert len(wide) == 1
    assert json.loads(wide[0]) == json.loads(text)


def test_json_keeps_its_control_characters_escaped():
    assert json_lines('{"a\\u001b": "\\u009b\\u202e ü"}', 80) == ['{"a\\u001b": "\\u009b\\u202e ü"}']


@each_case(
    "size, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (12_345_678, "12.3 MB"), (5e12, "5,000.0 GB")],
)
def test_sizes_are_short(size: float, text: str):
    assert bytes_text(size) == text


@each_case(
    "seconds, text",
    [(0, "0 ms"), (0.0042, "4 ms"), (0.9996, "1.0 s"), (9.96, "10 s"), (99.6, "1:40"), (3725, "1:02:05")],
)
def test_times_are_short(seconds: float, text: str):
    assert duration_text(seconds) == text


def test_a_reason_is_the_cause_without_the_layers_that_passed_it_on():
    error = RuntimeError("all retries used up")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert reason(error) == "Connection refused"
    assert reason(ValueError("no \x1b way")) == "no \\x1b way"
    assert reason(ValueError()) == "ValueError"
