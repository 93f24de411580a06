"""The names that users may rely on, and what importing them costs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType
from typing import get_origin

import pytest

import ssesync
import ssesync_django
import ssesync_flask

PUBLIC = {
    "ssesync": {
        "Backoff",
        "Broker",
        "BrokerBusy",
        "BrokerClosed",
        "BrokerDamaged",
        "BrokerError",
        "BrokerUnavailable",
        "CancelToken",
        "ChannelClosed",
        "ChannelError",
        "ChannelFeed",
        "CloseReason",
        "ConnectFailed",
        "ConnectionLost",
        "ContentEncodingError",
        "ContentTypeError",
        "Event",
        "EventError",
        "EventSource",
        "EventStream",
        "EventTooLarge",
        "IdleTimeout",
        "IncompleteStream",
        "ReadError",
        "Reader",
        "ReceivedEvent",
        "Relay",
        "ResponseError",
        "RetriesExhausted",
        "Run",
        "RunConflict",
        "RunRefused",
        "RunState",
        "RunUnknown",
        "SSEError",
        "Settings",
        "SettingsError",
        "StatusError",
        "StreamClosed",
        "StreamEnded",
        "StreamStats",
        "Subscription",
        "Ticket",
        "TicketRefused",
        "UnknownOption",
        "Tickets",
        "Writer",
        "add_accept_mime",
        "drain",
        "drain_on_signal",
        "from_async",
        "get_last_event_id",
        "json_default",
        "open_broker",
        "register_encoder",
        "relay_request",
        "set_last_event_id",
        "streams",
        "wire",
    },
    "ssesync.testing": {
        "Answer",
        "CHUNKED",
        "EndOfStream",
        "FIN",
        "FakeClock",
        "FakeSSEServer",
        "HOLD",
        "LAST_CHUNK",
        "OpenStream",
        "Pause",
        "RST",
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
    },
    "ssesync.wire": {
        "Decoder",
        "KEEP_ALIVE",
        "MEDIA_TYPE",
        "add_accept_mime",
        "encode",
        "encode_comment",
        "escape",
        "get_last_event_id",
        "is_event_stream",
        "response_headers",
        "set_last_event_id",
        "with_cors",
    },
    "ssesync_django": {
        "ChannelView",
        "EventStreamResponse",
        "Ticket",
        "event_stream",
        "event_writer",
        "follow_run",
        "get_broker",
        "issue_ticket",
        "publish",
        "revoke",
        "run",
        "start_run",
        "stop_run",
        "subscribe",
        "ticket_required",
    },
    "ssesync_flask": {"EventStreamResponse", "SSE", "Ticket", "event_stream", "event_writer"},
}


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    """All modules of the three packages, by their names."""
    found = {}
    for package in (ssesync, ssesync_django, ssesync_flask):
        found[package.__name__] = package
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not info.name.endswith("__main__"):
                found[info.name] = importlib.import_module(info.name)
    return found


# What lies in them is what there is.
ROOMS = {
    "ssesync.channels",
    "ssesync.channels.brokers",
    "ssesync.channels.brokers.memory",
    "ssesync.channels.brokers.redis",
    "ssesync.channels.brokers.sqlite",
    "ssesync.channels.runs",
    "ssesync.client",
    "ssesync.detached",
    "ssesync.keeper",
    "ssesync.server",
    "ssesync_django.management",
    "ssesync_django.management.commands",
}


def in_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them too."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these_and_no_others(package: str) -> None:
    assert set(importlib.import_module(package).__all__) == PUBLIC[package]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_can_be_imported_and_is_listed_by_dir(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))


def test_every_module_lists_its_names_once_in_order_and_has_them(modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        if name in ROOMS:
            assert not hasattr(module, "__all__"), f"{name} is a room, which offers its modules"
            continue
        offered = module.__all__
        assert len(offered) == len(set(offered)), name
        assert offered == sorted(offered, key=in_order), name
        for key in offered:
            assert getattr(module, key) is not None, f"{name}.{key}"


def test_every_module_and_every_name_it_lists_has_a_docstring(modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        assert module.__doc__, name
        for key in getattr(module, "__all__", ()):
            thing = getattr(module, key)
            if get_origin(thing) is None and (inspect.isclass(thing) or inspect.isfunction(thing)):
                assert thing.__doc__, f"{name}.{key}"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    return done.stdout.strip()


@pytest.mark.slow
def test_importing_the_package_loads_only_the_standard_library() -> None:
    # -c puts the working directory on the path; what the interpreter's start loads (.pth files) was there before.
    code = """
import sys
before = set(sys.modules)
import ssesync
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - set(sys.stdlib_module_names) - {"ssesync"}))
"""
    assert run(code) == "[]"


@pytest.mark.slow
def test_the_reader_is_imported_at_its_first_use() -> None:
    code = """
import sys
import ssesync
assert "ssesync.client.reader" not in sys.modules and "urllib3" not in sys.modules
from ssesync import Reader
assert Reader is ssesync.Reader and "ssesync.client.reader" in sys.modules
print(Reader.__name__)
"""
    assert run(code) == "Reader"


def test_a_name_that_is_not_there_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Raeder'"):
        ssesync.Raeder  # noqa: B018


def test_the_packages_carry_the_marker_of_typed_packages() -> None:
    for package in (ssesync, ssesync_django, ssesync_flask):
        assert pkgutil.get_data(package.__name__, "py.typed") is not None
