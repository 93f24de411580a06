"""Checks of options that several modules share."""

from __future__ import annotations

from typing import Any

import pytest

from ssesync import SettingsError
from ssesync.validation import check_number, nearest, suggest

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
