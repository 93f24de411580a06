"""The counters of :data:`ssesync.streams` for Prometheus, through ``prometheus_client`` (the extra ``prometheus``).

``prometheus_client.REGISTRY.register(StreamsCollector())`` once in each process that serves. With several workers
each counts its own streams, as with every collector of ``prometheus_client``.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .server.registry import streams

__all__ = ["StreamsCollector"]


class StreamsCollector(Collector):
    """Reads the process's streams whenever metrics are collected; keeps no state."""

    def collect(self) -> Iterator[Metric]:
        """``ssesync_streams_open`` by tier, ``ssesync_producers`` by stream, ``ssesync_pending_bytes``, and the
        counters of opened, refused and closed streams."""
        snapshot = streams.snapshot()
        current = snapshot["streams"]
        open_now = GaugeMetricFamily("ssesync_streams_open", "Event streams open now, by tier.", labels=["tier"])
        for tier in ("served", "detached"):
            open_now.add_metric([tier], sum(stream["tier"] == tier for stream in current))
        yield open_now
        running, ended = snapshot["producers"]["running"], len(snapshot["producers"]["ended"])
        text = "Producers that run now, by whether their stream is open or has ended."
        by_stream = GaugeMetricFamily("ssesync_producers", text, labels=["stream"])
        by_stream.add_metric(["open"], running - ended)
        by_stream.add_metric(["ended"], ended)
        yield by_stream
        yield GaugeMetricFamily(
            "ssesync_pending_bytes",
            "Bytes that wait for slow clients.",
            value=sum(stream["pending_bytes"] for stream in current),
        )
        yield CounterMetricFamily("ssesync_streams_opened", "Event streams opened.", value=snapshot["opened"])
        yield CounterMetricFamily(
            "ssesync_streams_refused",
            "Requests for event streams that were refused, with 503 or, for browsers, with a reconnection time.",
            value=snapshot["refused"],
        )
        closed = CounterMetricFamily("ssesync_streams_closed", "Event streams closed, by reason.", labels=["reason"])
        for reason, count in snapshot["closed"].items():
            closed.add_metric([reason], count)
        yield closed
        for name in ("events", "bytes", "keep_alives"):
            total = snapshot[name] + sum(stream.get(name, 0) for stream in current)
            yield CounterMetricFamily(f"ssesync_{name}", f"{name.replace('_', '-').capitalize()} sent.", value=total)
