"""Which process of pytest-xdist runs what: see ``tests/order.py``."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

from .order import unit_of


class UnitScheduling(LoadFileScheduling):
    """As ``--dist loadfile``, but files that share servers go to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return unit_of(file.removeprefix("tests/"))
