"""Settings: defaults, names, and values that can't work."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from ssesync import Settings, SettingsError


def test_the_defaults() -> None:
    settings = Settings()
    assert settings.keep_alive == 15
    assert settings.retry is None
    assert settings.threaded


def test_names_may_be_in_capitals() -> None:
    assert Settings.from_mapping({"KEEP_ALIVE": 5, "retry": 100}) == Settings(keep_alive=5, retry=100)


def test_settings_are_frozen_and_travel() -> None:
    settings = Settings(retry=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.retry = 2  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(Settings(retry=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keepalive": 5}, "unknown option 'keepalive': did you mean 'keep_alive'"),
        ({"KEEPALIVE": 5}, "did you mean 'keep_alive'"),
        ({"zzz": 5}, "there are keep_alive, retry"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_mapping(options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_alive", 0),
        ("keep_alive", -1),
        ("keep_alive", "15"),
        ("keep_alive", True),
        ("keep_alive", float("nan")),
        ("keep_alive", float("inf")),
        ("retry", -1),
        ("retry", 1.5),
        ("padding", None),
        ("padding", -1),
        ("first_event_timeout", None),
        ("first_event_timeout", -0.1),
        ("max_pending_events", 0),
        ("max_pending_bytes", 0),
        ("threaded", 1),
        ("threaded", None),
    ],
)
def test_a_value_that_can_not_work_is_refused_with_its_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings(**{name: value})
    assert repr(value) in str(caught.value)
