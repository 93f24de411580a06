"""The errors that end a command, written as ``tail`` writes its own: ``ssesync: …``."""

from __future__ import annotations

from typing import IO, Any

import click

from ..text import escape

__all__ = ["Failure", "Misconfigured"]


class Failure(click.ClickException):
    """Ends the command with exit status 1; has what failed, and the remedy."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to the error output.

        :param file: written to in place of it.
        """
        click.echo(f"ssesync: {escape(self.message)}", file=file, err=True)


class Misconfigured(Failure):
    """A configuration that can't work: the exit status is 2, as that of an invalid command line."""

    exit_code = 2
