"""What the commands share: ``python -m ssesync publish``, ``flask sse`` and ``manage.py``. Needs no other package.

For the library's own packages; applications call :meth:`ssesync.Broker.publish` and ``subscribe``.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

from .channels.broker import Broker
from .channels.opening import open_broker
from .errors import CloseReason, SettingsError, StreamClosed
from .event import Event
from .text import escape_json

__all__ = ["Finding", "check_broker", "follow", "make_event", "memory_warning"]

#: Seconds of a wait for events, after which the handlers of signals run.
_WAIT = 0.5


class Finding(NamedTuple):
    """What is wrong with a configuration."""

    id: str
    """``E002`` and so on: errors begin with E, warnings with W."""
    message: str
    hint: str | None = None


def make_event(data: str, type: str | None, *, as_json: bool, stdin: IO[str] | None) -> Event:
    """Make the event that a command line describes.

    :param data: its data; ``"-"`` reads it from standard input, without its last line end.
    :param type: its type.
    :param as_json: check that the data is JSON, and encode it compactly.
    :param stdin: standard input.
    :return: the event.
    :raises ValueError: it can't be made; the message is for the user.
    """
    text = _read(stdin) if data == "-" else data
    return Event.from_json(_parse(text), type=type) if as_json else Event(text, type=type)


def memory_warning(url: str) -> str:
    """Make a warning, if no client gets a command's event.

    :param url: the broker's.
    :return: the warning; empty if there is none.
    """
    if not url.startswith("memory:"):
        return ""
    return (
        "the broker is memory://, which reaches only subscribers of the same process: no client gets the event of this "
        "command. Use sqlite:////path or redis://host."
    )


def follow(
    broker: Broker, channels: tuple[str, ...], write: Callable[[str], object], *, patterns: tuple[str, ...], last: int
) -> None:
    """Write the events of channels, a JSON object each, until all of the channels are closed.

    :param broker: the broker.
    :param channels: the channels.
    :param write: called with each line, without its end.
    :param patterns: patterns of channels.
    :param last: begin with so many earlier events.
    :raises ssesync.SSEError: the broker can't be reached, no channel can have such a name, or the subscription ended
        early.
    """
    with broker.subscribe(*channels, patterns=patterns, last=last or None) as subscription:
        while True:
            try:
                event = subscription.get(_WAIT)
            except StreamClosed as closed:
                if closed.reason is CloseReason.DONE:
                    return
                raise
            if event is not None:
                fields = {"type": event.type or "message", "data": event.data, "id": event.id}
                write(escape_json(json.dumps(fields, ensure_ascii=False)))


def check_broker(url: object) -> list[Finding]:
    """Check a broker's URL without opening it.

    - ``E002``: it is empty or names no broker, or has an unknown option or a value that can't work.
    - ``E003``: the directory of an SQLite log does not exist, or it or the file can't be written to.
    - ``E004``: it needs redis-py, which is not installed.
    - ``W001``: the path of an SQLite log is relative, so that it depends on where a process was started.

    :param url: the setting.
    :return: what is wrong.
    """
    if not isinstance(url, str):
        return [Finding("E002", f"SSESYNC_BROKER takes a URL, got {type(url).__name__}")]
    scheme = urlsplit(url).scheme
    if scheme in ("redis", "rediss", "unix") and importlib.util.find_spec("redis") is None:
        hint = 'pip install "ssesync[redis]"'
        return [Finding("E004", f"SSESYNC_BROKER is {scheme}://, which needs redis-py", hint)]
    try:
        open_broker(url)
    except SettingsError as error:
        return [Finding("E002", f"SSESYNC_BROKER: {error}")]
    return _check_path(Path(unquote(urlsplit(url).path)[1:])) if scheme == "sqlite" else []


def _check_path(path: Path) -> list[Finding]:
    found: list[Finding] = []
    if not path.is_absolute():
        message = (
            f"SSESYNC_BROKER has the relative path {path}, which depends on where a process was started: workers and "
            "commands may have different logs."
        )
        found.append(Finding("W001", message, f'Make it absolute: f"sqlite:///{{BASE_DIR / {path.name!r}}}".'))
    folder = path.absolute().parent
    if not folder.is_dir():
        found.append(Finding("E003", f"SSESYNC_BROKER: there is no directory {folder}"))
    # SQLite writes other files to this directory.
    elif not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        found.append(Finding("E003", f"SSESYNC_BROKER: {path} and its directory must be writable"))
    return found


def _read(stdin: IO[str] | None) -> str:
    if stdin is None or stdin.isatty():
        raise ValueError("give the event's data, or send it to standard input")
    try:
        return stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not text: {error}") from error


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the data is not JSON: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"there is no {constant} in JSON")
