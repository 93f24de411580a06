"""System checks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as Warning_

from ssesync import Settings, SettingsError, open_broker

from .channels import broker_url, keeper_sockets

__all__ = ["check_broker", "check_broker_for_deployment", "check_keeper", "check_settings"]


def check_settings(**_: Any) -> list[CheckMessage]:
    """``ssesync.E001``: ``SSESYNC`` is no mapping, or has an unknown option or an invalid value.
    ``ssesync.E005``: there is an unknown setting ``SSESYNC_…``."""
    found: list[CheckMessage] = []
    try:
        Settings.check_keys(dir(settings))
    except SettingsError as error:
        found.append(Error(str(error), id="ssesync.E005"))
    options = getattr(settings, "SSESYNC", {})
    if not isinstance(options, Mapping):
        return [*found, Error(f"SSESYNC takes a dict, got {type(options).__name__}", id="ssesync.E001")]
    try:
        Settings.from_mapping(options)
    except SettingsError as error:
        found.append(Error(f"SSESYNC: {error}", id="ssesync.E001"))
    return found


def check_broker(**_: Any) -> list[CheckMessage]:
    """Check ``SSESYNC_BROKER`` without opening it.

    - ``ssesync.E002``: it is empty or names no broker, or has an unknown option or a value that can't work.
    - ``ssesync.E003``: the directory of an SQLite log does not exist, or it or the file can't be written to.
    - ``ssesync.E004``: it needs redis-py, which is not installed.
    - ``ssesync.W001``: the path of an SQLite log is relative, so that it depends on where a process was started.
    """
    url = broker_url()
    if not isinstance(url, str):
        return [Error(f"SSESYNC_BROKER takes a URL, got {type(url).__name__}", id="ssesync.E002")]
    scheme = urlsplit(url).scheme
    if scheme in ("redis", "rediss", "unix") and importlib.util.find_spec("redis") is None:
        hint = 'pip install "ssesync[redis]"'
        return [Error(f"SSESYNC_BROKER is {scheme}://, which needs redis-py", hint=hint, id="ssesync.E004")]
    try:
        open_broker(url)
    except SettingsError as error:
        return [Error(f"SSESYNC_BROKER: {error}", id="ssesync.E002")]
    return _check_path(Path(unquote(urlsplit(url).path)[1:])) if scheme == "sqlite" else []


def check_keeper(**_: Any) -> list[CheckMessage]:
    """``ssesync.E006``: ``SSESYNC_KEEPER``, the setting or else the environment variable, has no absolute paths of unix
    sockets. ``ssesync.W003``: there is a keeper, and ``SSESYNC_BROKER`` is ``memory://``, whose clients stay in their
    process."""
    paths = keeper_sockets()
    paths = os.environ.get("SSESYNC_KEEPER", "") if paths is None else paths
    try:
        open_broker("memory://").keeper = paths
    except SettingsError as error:
        return [Error(f"SSESYNC_KEEPER: {error}", id="ssesync.E006")]
    if paths and str(broker_url()).startswith("memory:"):
        message = "SSESYNC_KEEPER has no effect, as SSESYNC_BROKER is memory://: the keeper can't read its log."
        return [
            Warning_(message, hint="Set it to sqlite:////path on one machine, or to redis://host.", id="ssesync.W003")
        ]
    return []


def check_broker_for_deployment(**_: Any) -> list[CheckMessage]:
    """With ``check --deploy``: ``ssesync.W002`` if ``SSESYNC_BROKER`` is ``memory://``, ``ssesync.I001`` if it is not
    set, which means the same, but does not matter to a project that does not publish."""
    if not str(broker_url()).startswith("memory:"):
        return []
    message = "reaches the subscribers of the process that publishes, and not those of other workers or commands"
    hint = "Set it to sqlite:////path on one machine, or to redis://host."
    if hasattr(settings, "SSESYNC_BROKER"):
        return [Warning_(f"SSESYNC_BROKER is memory://, which {message}.", hint=hint, id="ssesync.W002")]
    return [Info(f"SSESYNC_BROKER is not set: an event {message}.", hint=hint, id="ssesync.I001")]


def _check_path(path: Path) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if not path.is_absolute():
        found.append(
            Warning_(
                f"SSESYNC_BROKER has the relative path {path}, which depends on where a process was started: workers "
                "and commands may have different logs.",
                hint=f'Make it absolute: f"sqlite:///{{BASE_DIR / {path.name!r}}}".',
                id="ssesync.W001",
            )
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        found.append(Error(f"SSESYNC_BROKER: there is no directory {folder}", id="ssesync.E003"))
    # SQLite writes other files to this directory.
    elif not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        found.append(Error(f"SSESYNC_BROKER: {path} and its directory must be writable", id="ssesync.E003"))
    return found
