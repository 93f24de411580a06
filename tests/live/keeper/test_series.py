"""Deploys, crashes and upgrades under clients that count every event, in small.

``series.py`` and ``chaos.py`` do the same with thousands of clients.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .chaos import chaos
from .series import kinds_of, plan_of, series

CLIENTS = 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "broker", "worker", "steps"),
    [
        ("siblings", "sqlite", "gthread", ["hup", "hup"]),
        pytest.param("siblings", "redis", "sync", ["hup"], marks=pytest.mark.matrix),
        ("keeper", "sqlite", "gthread", ["hup", "kill", "upgrade"]),
        ("keeper", "redis", "sync", ["upgrade", "crash"]),
    ],
)
def test_no_stream_ends_and_no_event_is_lost(
    way: str, broker: str, worker: str, steps: list[str], tmp_path: Path
) -> None:
    plan = plan_of(way, broker, worker, send_buffer=8192)
    figures, faults = series(plan, kinds_of(CLIENTS, plain=2), steps, tmp_path, pause=0.3, size=400, channels=2)
    assert not faults, f"{figures}\n" + "\n".join(faults)
    assert figures["steps"] == len(steps)
    assert figures["received"] > CLIENTS * len(steps)


@pytest.mark.slow
def test_no_request_fails_whatever_happens_to_the_keeper(tmp_path: Path) -> None:
    figures, faults = chaos("sqlite", "gthread", 30, 300, tmp_path, pauses=(0.1, 0.5))
    assert not faults, f"{figures}\n" + "\n".join(faults)
    assert figures["requests"] >= 300
