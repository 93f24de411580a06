"""Settings: defaults, names, and values that can't work."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from ssesync import Event, Settings, SettingsError

from ...cases import each_case


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


@each_case(
    "options, message",
    [
        ({"keepalive": 5}, "unknown option 'keepalive': did you mean 'keep_alive'"),
        ({"BROKER": "memory://"}, "unknown option 'BROKER': its key is SSESYNC_BROKER"),
        ({"KEEPALIVE": 5}, "did you mean 'keep_alive'"),
        ({"zzz": 5}, "there are keep_alive, keep_alive_event, retry"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_mapping(options)


@each_case(
    "name, value",
    [
        ("keep_alive", 0),
        ("keep_alive", -1),
        ("keep_alive", "15"),
        ("keep_alive", True),
        ("keep_alive", float("nan")),
        ("keep_alive", float("inf")),
        ("keep_alive_event", ""),
        ("keep_alive_event", "message"),
        ("keep_alive_event", "a\nb"),
        ("keep_alive_event", 5),
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
        ("detach", 1),
        ("detach", "always"),
        ("max_detached", 0),
        ("max_detached", "all"),
    ],
)
def test_a_value_that_can_not_work_is_refused_with_its_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings(**{name: value})
    assert repr(value) in str(caught.value)


def test_the_defaults_of_living_streams() -> None:
    settings = Settings()
    assert settings.sense_disconnect
    assert settings.half_close_is_gone
    assert settings.send_timeout == 30
    assert settings.max_lifetime is None
    assert settings.max_streams == "auto"
    assert settings.max_streams_per_key is None
    assert (settings.drain, settings.drain_timeout) == ("auto", 20)
    assert (settings.resumable, settings.error_event) == ("auto", None)
    assert settings.release_db == "step"


@each_case(
    "name, value",
    [
        ("sense_disconnect", 0),
        ("half_close_is_gone", None),
        ("send_timeout", 0),
        ("send_timeout", True),
        ("max_lifetime", -1),
        ("max_lifetime", 0),
        ("max_streams", 0),
        ("max_streams", 1.5),
        ("max_streams", "all"),
        ("max_streams_per_key", 0),
        ("max_streams_per_key", "auto"),
        ("drain", "later"),
        ("drain", None),
        ("drain_timeout", -1),
        ("resumable", "yes"),
        ("resumable", None),
        ("resumable", 1),
        ("error_event", "sorry"),
        ("error_event", {"message": "sorry"}),
        ("drain_timeout", None),
        ("release_db", "never"),
        ("release_db", True),
        ("release_db", []),
    ],
)
def test_a_living_streams_option_that_can_not_work_is_refused_with_its_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings(**{name: value})
    assert repr(value) in str(caught.value)


@each_case(
    "options",
    [
        {"send_timeout": None},
        {"send_timeout": 0.1},
        {"max_lifetime": 3600},
        {"max_streams": None},
        {"max_streams": "auto"},
        {"max_streams": 1},
        {"max_streams_per_key": 3},
        {"drain": "finish", "drain_timeout": 0},
        {"drain": "end"},
        {"resumable": True},
        {"resumable": False},
        {"error_event": Event("sorry", type="error")},
        {"error_event": lambda error: Event("sorry")},
        {"release_db": None},
        {"release_db": "start"},
    ],
)
def test_a_living_streams_option_that_can_work_is_taken(options: dict[str, Any]) -> None:
    settings = Settings(**options)
    for name, value in options.items():
        assert getattr(settings, name) == value
