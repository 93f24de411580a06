"""Text of others in logs and errors: without control characters, and without passwords."""

from __future__ import annotations

import traceback

import pytest

from ssesync import SettingsError, open_broker
from ssesync.text import escape, redact

from ...cases import each_case


def test_what_is_escaped_is_one_line_that_gives_no_orders():
    every = "".join(map(chr, range(0x3000))) + "\ud800\udfff"
    shown = escape(every)
    assert shown.splitlines() == [shown]
    assert not [c for c in shown if not c.isprintable() and c != "\t" and c in "\x1b\x9b\u202e\u2028\ud800"]
    shown.encode()
    assert escape("a\r\nERROR forged \x1b[2J\x9b\u202e ü ☃ 😀") == "a\\r\\nERROR forged \\x1b[2J\\x9b\\u202e ü ☃ 😀"
    assert escape(ValueError("a\nb")) == "a\\nb"


@each_case(
    "text, shown",
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user@h/0", "redis://user@h/0"),
        ("redis://:hidden@h/0", "redis://:***@h/0"),
        ("a rediss://user:hid%40den@h:1/0?db=1 b", "a rediss://user:***@h:1/0?db=1 b"),
        ("https://u:hid@den@h/?mail=a@b", "https://u:***@h/?mail=a@b"),
        ("unix:///run/a@b.sock?password=hidden&db=1", "unix:///run/a@b.sock?password=***&db=1"),
        ("x?db=1&ssl_Password=hidden&access_token=hidden#f", "x?db=1&ssl_Password=***&access_token=***#f"),
        ("sqlite:////var/lib/a:b@c.db", "sqlite:////var/lib/a:b@c.db"),
    ],
)
def test_passwords_in_addresses_are_not_shown(text: str, shown: str):
    assert redact(text) == shown


@each_case(
    "url",
    [
        "rdis://user:hidden@h/0",
        "memory://user:hidden@h",
        "sqlite://user:hidden@h/x.db",
        "sqlite://user:hid/den@h",
        "redis://user:hidden@h:port/0",
        "redis://:hidden@h:99999999/0",
        # Passwords that are not encoded as a URL needs it.
        "redis://user:hid/den@h:6379/0",
        "redis://user:hid?den@h:6379/0",
        "redis://user:hid#den@h:6379/0",
        "redis://user:hid[den@h:6379/0",
        "redis://user:hid\u2100den@h:6379/0",
        "redis://hid/den@h/0",
        "redis://hid?den@h/0",
        "redis://hid#den@h/0",
        "redis://user:hidden@h/0?max_evnts=1",
        "redis://user:hidden@h/0?max_events=many",
        "redis://h/0?password=hidden&max_events=many",
        "redis://h/0?pasword=hidden",
        "redis://user:hidden@h/0?max_events=1&max_events=2",
        "redis://user:hidden@h/0?socket_timeout=soon",
        "://user:hidden@h",
    ],
)
def test_errors_of_a_brokers_url_do_not_show_its_password(url: str):
    with pytest.raises(SettingsError) as caught:
        open_broker(url)
    formatted = "".join(traceback.format_exception(caught.value, limit=0, chain=True))
    assert "hid" not in formatted
    assert "den" not in formatted


def test_what_is_no_text_is_not_shown_as_a_brokers_url():
    with pytest.raises(TypeError, match="text, got bytes") as caught:
        open_broker(b"redis://:hidden@h")  # type: ignore[arg-type]
    assert "hidden" not in str(caught.value)


@each_case("url", ["redis://user:hidden@h:1/0", "unix://user:hidden@/run/a@b.sock", "redis://h/0?password=hidden"])
def test_a_broker_does_not_show_its_password(url: str):
    with open_broker(url) as broker:
        assert "hidden" not in repr(broker) + repr(vars(broker))
