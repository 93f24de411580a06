"""What the log has of a run."""

from __future__ import annotations

from typing import Any

from ssesync import Broker


def transcript(broker: Broker, name: str) -> list[tuple[str, Any]]:
    """The type and the data of all events of a run."""
    start = broker.start_of([name], (), None)
    page = broker.read(start.epoch, start.seq, [name], (), 100_000)
    assert not page.lost
    events = [message.event for message in page.messages]
    return [(event.type or "message", event.json() if event.type == "end" else event.data) for event in events]


def texts_of(broker: Broker, name: str) -> list[Any]:
    """The data of a run's events, without the final one."""
    *events, final = transcript(broker, name)
    assert final[0] == "end"
    return [data for _, data in events]


def final_of(broker: Broker, name: str) -> Any:
    """The data of a run's final event."""
    finals = [data for type, data in transcript(broker, name) if type == "end"]
    assert len(finals) == 1
    return finals[0]
