"""A broker's URL and options, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..errors import SettingsError, UnknownOption, excerpt
from ..text import redact
from ..validation import check_number, suggest

__all__ = ["Limits", "check_url", "checked_options", "options_of_url", "shown_url", "take_linger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a log keeps for clients that reconnect. The oldest events are removed first, a channel's newest never.

    :raises SettingsError: a value that can't work.
    """

    max_events: int = 10_000
    """Events of a channel."""

    max_bytes: int = 1024 * 1024
    """Bytes of a channel's events."""

    max_age: float | None = 86_400.0
    """Seconds. ``None``: without end."""

    max_channels: int = 10_000
    """Channels. Beyond that the channel with the oldest last event is removed: so channels for each user or order,
    whose number only grows, need no clean-up."""

    def __post_init__(self) -> None:
        for name in ("max_events", "max_bytes", "max_channels"):
            check_number(name, getattr(self, name), above=0, whole=True)
        check_number("max_age", self.max_age, above=0, optional=True)


def shown_url(url: str) -> str:
    """A broker's URL for an error message, without its password, even one that is not percent-encoded.

    :param url: the URL.
    :return: the URL to be shown.
    """
    scheme, _, rest = url.partition("://")
    _, at, place = rest.rpartition("@")
    return excerpt(redact(f"{scheme}://***@{place}" if at and not rest.startswith("/") else url))


def check_url(url: Any) -> None:
    """Check that a URL can be parsed. The error never shows a password, even if that is the reason.

    :param url: the URL.
    :raises TypeError: it is no text.
    :raises SettingsError: it can't be parsed, or a part of its password would be taken for the host, path or query.
    """
    if not isinstance(url, str):
        raise TypeError(f"a broker's URL is text, got {type(url).__name__}")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises if it is no number
        # No option and no database has "@" in its name: it is the rest of a password with "/", "?" or "#" in it.
        names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        path = parts.path if parts.netloc and parts.scheme != "unix" else ""
        is_split = any("@" in each for each in (path, parts.fragment, *names))
    except ValueError:
        is_split = True
    if is_split:
        raise SettingsError(
            f"the broker's URL can't be read: {shown_url(url)}; its port is a number, and in a user's name or a "
            "password every character but letters and digits is percent-encoded (urllib.parse.quote)"
        )


def options_of_url(url: str) -> dict[str, str]:
    """The options in a URL's query.

    :param url: the URL.
    :return: the options, as text by name.
    :raises SettingsError: an option is given twice.
    """
    options: dict[str, str] = {}
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name in options:
            raise SettingsError(f"the option {name!r} is in the broker's URL twice")
        options[name] = value
    return options


def checked_options(
    given: Mapping[str, Any], known: Mapping[str, Callable[[str], Any]], others: Iterable[str] = ()
) -> dict[str, Any]:
    """Parse the options that are text, as in a URL; other values stay as they are.

    :param given: the options by name.
    :param known: how each is parsed.
    :param others: more names, whose values stay as they are.
    :return: the options by name.
    :raises SettingsError: a name that is no option (the nearest is named), or text that can't be parsed.
    """
    others = list(others)
    options = {}
    for name, value in given.items():
        if name in known:
            try:
                options[name] = known[name](value) if isinstance(value, str) else value
            except ValueError:
                raise SettingsError(f"the broker's option {name} can't be {excerpt(value)}") from None
        elif name in others:
            options[name] = value
        else:
            raise UnknownOption(f"unknown broker option {name!r}: {suggest(name, known, others)}")
    return options


def _number_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


#: How the options that every broker has are parsed.
LIMITS: dict[str, Callable[[str], Any]] = {
    field.name: _number_or_none if field.name == "max_age" else int for field in dataclasses.fields(Limits)
}


def take_limits(options: dict[str, Any]) -> Limits:
    """Remove the limits from a broker's options.

    :param options: checked options by name. The other options are left in it.
    :return: the limits.
    :raises SettingsError: a limit that can't work.
    """
    return Limits(**{name: options.pop(name) for name in LIMITS.keys() & options.keys()})


def take_linger(options: dict[str, Any]) -> float | None:
    """Take the option ``linger`` out of a broker's options.

    :param options: the options by name, as text or values.
    :return: seconds; ``None``: each event is appended by itself.
    :raises SettingsError: a value that can't work.
    """
    linger = checked_options({"linger": options.pop("linger", None)}, {"linger": _number_or_none})["linger"]
    check_number("linger", linger, above=0, most=1, optional=True)
    return None if linger is None else float(linger)
