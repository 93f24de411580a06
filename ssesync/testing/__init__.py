"""For tests of code that serves or reads event streams.

Importing this module loads no other modules of the kit: each name is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import FakeClock
    from .errors import EndOfStream, ScriptError, WaitTimeout
    from .fake_server import FakeSSEServer, RecordedRequest
    from .live import live_stream
    from .script import CHUNKED, FIN, HOLD, LAST_CHUNK, RST, Answer, Pause, Step, Steps, chunk, chunked, head
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

_MODULES = {
    "clock": ("FakeClock",),
    "errors": ("EndOfStream", "ScriptError", "WaitTimeout"),
    "fake_server": ("FakeSSEServer", "RecordedRequest"),
    "live": ("live_stream",),
    "script": (
        "CHUNKED", "FIN", "HOLD", "LAST_CHUNK", "RST", "Answer", "Pause", "Step", "Steps", "chunk", "chunked", "head",
    ),
    "stream": ("OpenStream",),
    "wsgi": ("open_stream",),
}  # fmt: skip
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """PEP 562: import the object of a name at its first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
