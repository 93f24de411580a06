"""The app's configuration and its settings."""

from __future__ import annotations

import contextlib
import functools
import sys
from contextvars import ContextVar
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.signals import request_started, setting_changed

from ssesync import Settings, SettingsError

__all__ = ["SSESyncConfig", "app_settings", "current_environ"]

_environ: ContextVar[dict[str, Any] | None] = ContextVar("ssesync_django.environ", default=None)


class SSESyncConfig(AppConfig):
    """``"ssesync_django"`` in ``INSTALLED_APPS``: checks ``SSESYNC``, ``SSESYNC_BROKER`` and ``SSESYNC_KEEPER``,
    adds ``sse_publish``, and lets responses find their request."""

    name = "ssesync_django"
    verbose_name = "Server-Sent Events"

    def ready(self) -> None:
        """Register the checks and the signals, and make the broker in a worker of gunicorn."""
        from .checks import check_broker, check_broker_for_deployment, check_keeper, check_settings

        checks.register(check_settings)
        checks.register(check_broker)
        checks.register(check_keeper)
        checks.register(check_broker_for_deployment, deploy=True)
        request_started.connect(_keep_environ, dispatch_uid="ssesync_django.environ")
        setting_changed.connect(_forget_settings, dispatch_uid="ssesync_django.settings")
        if "gunicorn" in sys.modules:
            # Before its first request, a worker may take the clients of one that stops. Nothing is opened or connected
            # here, and a wrong URL is reported by the check and by the first view that needs the broker.
            from .channels import get_broker

            with contextlib.suppress(SettingsError):
                get_broker()


@functools.cache
def app_settings() -> Settings:
    """``settings.SSESYNC``, a mapping of :class:`ssesync.Settings`' options in small or capital letters, read once.

    :return: the settings.
    :raises ssesync.SettingsError: an unknown option or an invalid value, or an unknown setting ``SSESYNC_…``.
    """
    Settings.check_keys(dir(settings))
    return Settings.from_mapping(getattr(settings, "SSESYNC", {}))


def current_environ() -> dict[str, Any] | None:
    """The WSGI environ of the request that this thread serves.

    :return: the environ; ``None`` outside of a request and under ASGI.
    """
    return _environ.get()


def _keep_environ(*, environ: dict[str, Any] | None = None, **_: Any) -> None:
    _environ.set(environ)


def _forget_settings(*, setting: str, **_: Any) -> None:
    if setting.startswith("SSESYNC"):
        app_settings.cache_clear()
