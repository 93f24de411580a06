"""A keeper of another version: ``python -m tests.live.keeper.versions VERSION OLDEST keeper …``."""

from __future__ import annotations

import sys

from ssesync.__main__ import run
from ssesync.keeper import peer

if __name__ == "__main__":
    peer.VERSION, peer.OLDEST = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    run()
