"""System checks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as Warning_

from ssesync import Settings, SettingsError, open_broker
from ssesync.commands import check_broker as find_faults

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
    """Check ``SSESYNC_BROKER`` without opening it: ``ssesync.E002`` to ``E004`` and ``ssesync.W001``, see
    ``ssesync.commands.check_broker``."""
    kinds = {"E": Error, "W": Warning_}
    return [
        kinds[found.id[0]](found.message, hint=found.hint, id=f"ssesync.{found.id}")
        for found in find_faults(broker_url())
    ]


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
