"""Checks of options that several modules share."""

from __future__ import annotations

from typing import Any

import pytest

from ssesync import SettingsError
from ssesync.validation import check_number, check_sockets, nearest, suggest

from ...cases import each_case


@each_case(
    "value, options",
    [(0, {}), (0.5, {"above": 0}), (3, {"whole": True}), (None, {"optional": True}), (7, {"most": 7}), (1e300, {})],
)
def test_numbers_within_bounds_pass(value: Any, options: dict[str, Any]) -> None:
    check_number("size", value, **options)


@each_case(
    "value, options, message",
    [
        (-1, {}, "size takes a number of at least 0, got -1"),
        (0, {"above": 0}, "size takes a number above 0, got 0"),
        (1.5, {"whole": True}, "size takes a whole number of at least 0, got 1.5"),
        (True, {}, "size takes a number of at least 0, got True"),
        ("1", {}, "size takes a number of at least 0, got '1'"),
        (float("nan"), {}, "size takes a number of at least 0, got nan"),
        (None, {}, "size takes a number of at least 0, got None"),
        (8, {"most": 7, "optional": True}, "size takes a number of at least 0 or None, got 8"),
    ],
)
def test_other_values_are_refused_with_what_is_allowed(value: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_number("size", value, **options)
    assert str(caught.value) == message


def test_the_nearest_name_is_suggested_or_all_are_listed() -> None:
    assert suggest("keepalive", ["keep_alive", "retry"]) == "did you mean 'keep_alive'?"
    assert suggest("on_clsoe", ["keep_alive"], ["on_close"]) == "did you mean 'on_close'?"
    assert suggest("xyz", ["keep_alive", "retry"], ["on_close"]) == "there are keep_alive, retry"
    assert (nearest("retries", ["retry"]), nearest("retries", ["retry"], cutoff=0.9)) == ("retry", None)


def test_the_paths_of_sockets_are_split_at_commas() -> None:
    assert check_sockets("keeper", " /run/a.sock , /run/b.sock") == ("/run/a.sock", "/run/b.sock")
    assert check_sockets("keeper", " ") == ()


@each_case(
    "value, message",
    [
        ("keeper.sock", "keeper takes the absolute path of a unix socket, or several with commas between them, got"),
        ("/a,", "got ''"),
        ("/a\0b", "absolute path"),
        (5, "keeper takes the absolute path of a unix socket, got 5"),
        ("/" + "x" * 107, "at most 107 bytes"),
        ("/a,/b,/a", "keeper has a path twice"),
    ],
)
def test_other_paths_are_refused(value: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_sockets("keeper", value)
