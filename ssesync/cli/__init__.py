"""``python -m ssesync``: follow a stream in the terminal, and diagnose one."""

from __future__ import annotations

import click

from .. import __version__
from .doctor import doctor
from .keeper import keeper
from .tail import tail

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ssesync")
def main() -> None:
    """Server-Sent Events from the terminal."""


main.add_command(tail)
main.add_command(doctor)
main.add_command(keeper)
