"""System checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from ssesync import Settings, SettingsError

__all__ = ["check_settings"]


def check_settings(**_: Any) -> list[CheckMessage]:
    """``ssesync.E001``: ``SSESYNC`` is no mapping, or holds an unknown option or a value that can't work."""
    options = getattr(settings, "SSESYNC", {})
    if not isinstance(options, Mapping):
        return [Error(f"SSESYNC takes a dict, got {type(options).__name__}", id="ssesync.E001")]
    try:
        Settings.from_mapping(options)
    except SettingsError as error:
        return [Error(f"SSESYNC: {error}", id="ssesync.E001")]
    return []
