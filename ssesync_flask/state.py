"""What an application has of this library: its settings and its broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flask import Flask, current_app
from flask.json.provider import DefaultJSONProvider

from ssesync import Broker, Settings, open_broker

__all__ = ["State", "bind", "encoder_of", "state_of_current_app"]

_KEY = "ssesync"


class State(NamedTuple):
    """Kept in ``app.extensions``."""

    settings: Settings
    broker: Broker


def bind(app: Flask, defaults: Settings, broker: str | Broker | None) -> None:
    """Give an application its state; what its configuration says goes before what is given here.

    :raises ssesync.SettingsError: the configuration has an unknown option or a value that can't work.
    """
    options: Mapping[str, Any] = app.config.get("SSESYNC", {})
    settings = defaults.replace(**options)
    where = app.config.get("SSESYNC_BROKER") or broker or "memory://"
    app.extensions[_KEY] = State(settings, where if isinstance(where, Broker) else open_broker(where))


def state_of(app: Flask) -> State:
    """An application's state, made of its configuration where no extension was bound to it."""
    if _KEY not in app.extensions:
        bind(app, Settings(), None)
    state: State = app.extensions[_KEY]
    return state


def state_of_current_app() -> State:
    """The current application's state.

    :raises RuntimeError: there is no application context.
    """
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def encoder_of(app: Flask) -> Callable[[Any], str]:
    """JSON through the application's own provider. NaN is no JSON, and Flask's default provider would let it pass."""

    def dumps(value: Any) -> str:
        provider = app.json
        if isinstance(provider, DefaultJSONProvider):
            return provider.dumps(value, allow_nan=False, indent=None, separators=(",", ":"))
        return provider.dumps(value)

    return dumps
