"""Where a command finds its broker. The URL may have a password, so it is no option: all users see command lines."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..channels.opening import open_broker
from ..errors import SettingsError
from .failure import Misconfigured

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["broker_file", "find_broker"]

_VARIABLE = "SSESYNC_BROKER"

_OPTION = click.option(
    "--broker-file",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help=f"A file with the broker's URL. Without it the environment variable {_VARIABLE} has it.",
)


def broker_file(function: Callable[..., None]) -> Callable[..., None]:
    """Add the option ``--broker-file`` to a command.

    :param function: the function of the command.
    :return: the function, which gets the option's value as ``broker_file``.
    """
    return _OPTION(function)


def find_broker(file: str | None) -> Broker:
    """Open the broker of a command.

    :param file: the file with its URL; ``None``: the environment variable.
    :return: the broker. It is not memory://.
    :raises Misconfigured: there is no URL, or it can't work.
    """
    url, where = (os.environ.get(_VARIABLE, ""), f"the environment variable {_VARIABLE}")
    if file is not None:
        url, where = _read(Path(file)), file
    if not url:
        raise Misconfigured(f"{where} has no broker's URL: give it the one that the workers have")
    try:
        broker = open_broker(url)
    except SettingsError as error:
        raise Misconfigured(f"{where}: {error}") from error
    if not broker.is_shared:
        raise Misconfigured(f"{where}: the log of memory:// is within one process: use sqlite:// or redis://")
    return broker


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
                click.echo(f"ssesync: other users can read {path}, which may have the broker's password", err=True)
            return file.readline().strip()
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} can't be read: {error}") from error
