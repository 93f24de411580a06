"""``python -m ssesync``: follow a stream in the terminal, diagnose one, publish, and hold the clients of a host."""

from __future__ import annotations

from importlib import import_module

import click

from .. import __version__

__all__ = ["main"]

# Each is a module of this package with a command of its name.
_COMMANDS = ("doctor", "keeper", "publish", "tail")


class _Commands(click.Group):
    """Imports a command's module when it is used: the keeper, which is a service, needs neither requests nor rich, and
    takes 12 MB less without them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f".{cmd_name}", __name__), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ssesync")
def main() -> None:
    """Server-Sent Events from the terminal."""
