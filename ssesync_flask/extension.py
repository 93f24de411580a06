"""The extension object, and where an application's settings are kept."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app

from ssesync import Settings

__all__ = ["SSE"]

_KEY = "ssesync"


class SSE:
    """Binds an application's settings: ``SSE(app)``, or ``sse = SSE()`` and ``sse.init_app(app)`` in a factory.

    Settings come from ``app.config["SSESYNC"]``, a mapping of :class:`ssesync.Settings`' options; those given here
    are the defaults beneath them. Without the extension the views read the same mapping, when first used.

    :raises ssesync.SettingsError: an unknown option or a value that can't work, when the application is bound.
    """

    def __init__(self, app: Flask | None = None, **defaults: Any) -> None:
        self._defaults = Settings.from_mapping(defaults)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the application's settings, so that a mistake in them is found when the application starts."""
        app.extensions[_KEY] = self._defaults.replace(**app.config.get("SSESYNC", {}))

    @property
    def settings(self) -> Settings:
        """The current application's settings.

        :raises RuntimeError: there is no application context.
        """
        return app_settings()


def app_settings() -> Settings:
    """The current application's settings, read from its configuration the first time."""
    extensions = current_app.extensions
    if _KEY not in extensions:
        SSE(current_app._get_current_object())  # type: ignore[attr-defined]
    settings: Settings = extensions[_KEY]
    return settings
