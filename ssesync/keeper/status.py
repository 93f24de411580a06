"""The state of a keeper, as ``python -m ssesync keeper --status`` prints it."""

from __future__ import annotations

import json
from typing import Any

from . import peer

__all__ = ["ask_status"]

# Seconds to connect, and for the answer.
_CONNECT, _ANSWER = 2.0, 10.0


def ask_status(path: str) -> dict[str, Any]:
    """Ask a keeper for its state.

    :param path: of its socket.
    :return: see :meth:`ssesync.keeper.process.Keeper.describe`.
    :raises OSError: it can't be reached, or does not answer.
    :raises ValueError: its answer is none.
    """
    with peer.connect(path, _CONNECT, peer.make_hello("worker", [])) as link:
        link.send({"op": "status"})
        with link.receive(_ANSWER) as frame:
            described: dict[str, Any] = json.loads(frame.blob)
            return described
