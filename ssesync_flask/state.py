"""An application's settings and broker."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from flask import Flask, current_app
from flask.json.provider import DefaultJSONProvider

from ssesync import Broker, Settings, SettingsError, json_default, open_broker
from ssesync.wire import escape

__all__ = ["State", "bind", "encoder_of", "state_of", "state_of_current_app", "take_settings"]

logger = logging.getLogger("ssesync")

_KEY = "ssesync"


class State(NamedTuple):
    """Kept in ``app.extensions``."""

    settings: Settings
    broker: Broker


def bind(app: Flask, defaults: Settings, broker: str | Broker | None) -> None:
    """Make an application's state. Its configuration takes precedence over the arguments.

    :param app: the application.
    :param defaults: the extension's settings.
    :param broker: the extension's broker, or its URL.
    :raises ssesync.SettingsError: the configuration has an unknown key or option, an invalid value, an empty URL of a
        broker, or a keeper's socket without an absolute path.
    """
    Settings.check_keys(app.config)
    options = app.config.get("SSESYNC", {})
    if not isinstance(options, Mapping):
        raise SettingsError(f"SSESYNC takes a mapping of options, got {type(options).__name__}")
    settings = defaults.replace(**options)
    where = app.config.get("SSESYNC_BROKER")
    if where is None:
        where = "memory://" if broker is None else broker
    if not isinstance(where, Broker):
        url, where = where, open_broker(where)
        _warn_of_relative_path(url)
    if (keeper := app.config.get("SSESYNC_KEEPER")) is not None:
        where.keeper = keeper
    app.extensions[_KEY] = State(settings, where)


def _warn_of_relative_path(url: str) -> None:
    scheme, _, path, *_ = urlsplit(url)
    name = PurePath(unquote(path[1:]))
    if scheme == "sqlite" and path[1:] and not name.is_absolute():
        logger.warning(
            "the broker's URL has the relative path %s, which depends on where a process was started: workers and "
            'scripts may have different logs; make it absolute: f"sqlite:///{app.instance_path}/%s"',
            escape(name),
            escape(name.name),
        )


def state_of(app: Flask) -> State:
    """An application's state; made from its configuration if no extension was bound to it.

    :param app: the application.
    :return: its state.
    """
    if _KEY not in app.extensions:
        bind(app, Settings(), None)
    state: State = app.extensions[_KEY]
    return state


def state_of_current_app() -> State:
    """The current application's state.

    :return: its state.
    :raises RuntimeError: there is no application context.
    """
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def encoder_of(app: Flask) -> Callable[[Any], str]:
    """A JSON encoder that uses the application's own provider. NaN, which Flask's default provider writes, is refused.
    What that provider can't encode is encoded by :func:`ssesync.json_default`.

    :param app: the application.
    :return: the encoder.
    """

    def dumps(value: Any) -> str:
        provider = app.json
        if not isinstance(provider, DefaultJSONProvider):
            return provider.dumps(value)
        options: dict[str, Any] = {"allow_nan": False, "indent": None, "separators": (",", ":")}
        if type(provider).dumps is DefaultJSONProvider.dumps:  # else it may set a default of its own there
            options["default"] = functools.partial(json_default, own=provider.default)
        return provider.dumps(value, **options)

    return dumps


def take_settings(settings: Settings, options: dict[str, Any]) -> Settings:
    """Take the settings out of a call's options.

    :param settings: those of the application.
    :param options: the options, of which ``settings`` and the names of settings are removed.
    :return: the settings of the call.
    :raises ssesync.SettingsError: a value that can't work.
    """
    given: Settings = options.pop("settings", settings)
    return given.replace(**{name: options.pop(name) for name in Settings.__dataclass_fields__.keys() & options.keys()})
