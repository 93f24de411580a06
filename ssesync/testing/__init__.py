"""For tests of what serves and of what reads event streams.

Importing this module loads nothing that is not needed: each name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answer import Answer
    from .clock import FakeClock
    from .errors import EndOfStream, ScriptError, WaitTimeout
    from .fake_server import FakeSSEServer, RecordedRequest
    from .live import live_stream
    from .steps import CHUNKED, FIN, HOLD, LAST_CHUNK, RST, Pause, Step, Steps, chunk, chunked, head
    from .stream import OpenStream
    from .wsgi import open_stream

__all__ = [
    "CHUNKED",
    "FIN",
    "HOLD",
    "LAST_CHUNK",
    "RST",
    "Answer",
    "EndOfStream",
    "FakeClock",
    "FakeSSEServer",
    "OpenStream",
    "Pause",
    "RecordedRequest",
    "ScriptError",
    "Step",
    "Steps",
    "WaitTimeout",
    "chunk",
    "chunked",
    "head",
    "live_stream",
    "open_stream",
]

_LAZY = {
    "CHUNKED": "steps",
    "FIN": "steps",
    "HOLD": "steps",
    "LAST_CHUNK": "steps",
    "RST": "steps",
    "Answer": "answer",
    "EndOfStream": "errors",
    "FakeClock": "clock",
    "FakeSSEServer": "fake_server",
    "OpenStream": "stream",
    "Pause": "steps",
    "RecordedRequest": "fake_server",
    "ScriptError": "errors",
    "Step": "steps",
    "Steps": "steps",
    "WaitTimeout": "errors",
    "chunk": "steps",
    "chunked": "steps",
    "head": "steps",
    "live_stream": "live",
    "open_stream": "wsgi",
}


def __getattr__(name: str) -> Any:
    """PEP 562: import what lies behind a name the first time it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
