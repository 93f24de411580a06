"""``python -m ssesync tail URL`` and ``python -m ssesync doctor URL``; see :mod:`ssesync.cli`."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line, or print which package is missing."""
    try:
        from .cli import main

        main(prog_name="python -m ssesync")  # imports the command's module
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in ("click", "rich"):
            raise
        sys.stderr.write(f"python -m ssesync needs {name}, which is not installed: pip install 'ssesync[cli]'\n")
        sys.exit(2)


if __name__ == "__main__":
    run()
