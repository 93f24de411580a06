"""The options of public functions: their sets for type checkers, and the error for a name that does not exist."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import requests

import ssesync_django
import ssesync_flask
from ssesync import (
    Event,
    EventSource,
    EventStream,
    Reader,
    Relay,
    Settings,
    SettingsError,
    UnknownOption,
    open_broker,
    relay_request,
)
from ssesync import options as sets
from ssesync.channels.policy import Policy
from ssesync.channels.runs.options import RunOptions
from ssesync.options import check_names
from ssesync.settings import QueueOptions

from ...cases import each_case


def keywords(function: Callable[..., Any]) -> set[str]:
    return {each.name for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY}


def names(known: type) -> set[str]:
    return set(known.__annotations__)


# The sets


@each_case(
    "known, checked",
    [(sets.SettingsOptions, Settings), (sets.PolicyOptions, Policy), (sets.RunKeywords, RunOptions)],
    ids=["settings", "policy", "run"],
)
def test_a_set_has_the_names_and_types_of_the_class_that_checks_the_values(known: type, checked: type) -> None:
    types = {each.name: each.type for each in fields(checked)}  # type: ignore[arg-type]
    assert names(known) == set(types)
    # Any iterable of origins but text is taken; the same options of a stream may be None, for the default.
    wider = {"cors_origins", "settings"}
    assert {name: each.__forward_arg__ for name, each in known.__annotations__.items() if name not in wider} == {
        name: each for name, each in types.items() if name not in wider
    }


def test_a_stream_has_the_options_of_its_set() -> None:
    assert names(sets.EventStreamOptions) == keywords(EventStream) | names(sets.SettingsOptions)


# Names that do not exist


def streamed(**options: Any) -> EventStream:
    return EventStream([], **options)


def read(**options: Any) -> Reader:
    return Reader([], **options)


def followed(**options: Any) -> EventSource:
    return EventSource("http://127.0.0.1/", **options)


def relayed(**options: Any) -> Relay:
    return Relay(None, **options)


def requested(**options: Any) -> requests.Response:
    return relay_request({}, "http://127.0.0.1/", **options)


def subscribed(**options: Any) -> Any:
    with open_broker("memory://") as broker:
        return broker.subscribe("a", **options)


def started(**options: Any) -> Any:
    with open_broker("memory://") as broker:
        return broker.start_run("a", [], **options)


@each_case(
    "function, wrong, right",
    [
        (Event, "event", "type"),
        (Event, "dat", "data"),
        (Event, "retri", "retry"),
        (streamed, "keepalive", "keep_alive"),
        (streamed, "on_closed", "on_close"),
        (Settings().replace, "keepalive", "keep_alive"),
        (read, "idle_timout", "idle_timeout"),
        (followed, "reconect", "reconnect"),
        (followed, "verfy", "verify"),
        (relayed, "max_bodi", "max_body"),
        (requested, "time_out", "timeout"),
        (subscribed, "overflw", "overflow"),
        (started, "max_second", "max_seconds"),
        (ssesync_flask.event_stream, "keepalive", "keep_alive"),
        (ssesync_django.event_writer, "keepalive", "keep_alive"),
        (lambda **options: ssesync_django.subscribe(None, "a", **options), "overflw", "overflow"),
        (lambda **options: ssesync_django.subscribe(None, "a", **options), "untl_type", "until_type"),
        (lambda **options: ssesync_flask.SSE().subscribe("a", **options), "keepalive", "keep_alive"),
        (lambda **options: ssesync_flask.SSE().run("a", [], subject="b", **options), "max_second", "max_seconds"),
    ],
)
def test_the_error_for_an_unknown_name_names_the_nearest(function: Callable[..., Any], wrong: str, right: str) -> None:
    with pytest.raises(TypeError, match=f"'{wrong}'.*: did you mean '{right}'") as caught:
        function(**{wrong: 5})
    assert isinstance(caught.value, UnknownOption)
    assert isinstance(caught.value, SettingsError)


def test_a_name_that_is_like_none_is_refused_with_a_list() -> None:
    with pytest.raises(UnknownOption, match=r"^test_a_.*\(\) takes no 'zzz': there are max_pending_events"):
        check_names(test_a_name_that_is_like_none_is_refused_with_a_list, {"zzz"}, QueueOptions)


class OtherSession(requests.Session):
    """One with an option of its own, such as that of ``requests-cache``."""

    def request(self, *args: Any, expire_after: int, **options: Any) -> requests.Response:  # type: ignore[override]
        response = requests.Response()
        response.status_code, response.headers["X-Expire"] = expire_after, "yes"
        return response


def test_a_session_of_another_kind_has_options_of_its_own() -> None:
    environ, url, session = {"REQUEST_METHOD": "GET"}, "http://127.0.0.1/", OtherSession()
    options: Any = {"session": session, "expire_after": 203}
    EventSource(url, **options).close()
    assert relay_request(environ, url, **options).status_code == 203
    Relay.from_request(environ, url, **options).close()
