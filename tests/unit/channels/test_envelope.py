"""Envelopes: each client gets its own text around shared data, however it is served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssesync import Broker, Event, SettingsError
from ssesync.channels.envelope import Envelope, jsonrpc_result, mcp_notification, mcp_subscription, splice
from ssesync.channels.message import Message, Slotted, body_of
from ssesync.detached.state import State
from ssesync.wire import Decoder

from .clients import Join, await_events, await_that, turn
from .conftest import texts

AROUND = Envelope(b"<", b"|", b">")


def spliced(body: bytes, envelope: Envelope = AROUND) -> bytes:
    return splice([Message.make("e", 1, "a", body)])(envelope)


@pytest.mark.parametrize(
    ("item", "data"),
    [
        ("plain", "<plain>"),
        ("two\nlines", "<two\nlines>"),
        ("", "<>"),
        (Event("x", type="note", retry=5, comment="data: y"), "<x>"),
        (Slotted("a", "b"), "<a|b>"),
        (Slotted("ä\n", "\nb"), "<ä\n|\nb>"),
        (Slotted("", ""), "<|>"),
    ],
)
def test_the_text_is_around_the_data_and_in_its_slot(item: Any, data: str) -> None:
    body = body_of(item, None, None)
    (event,) = Decoder().feed(spliced(body))
    (without,) = Decoder().feed(Message.make("e", 1, "a", body))
    assert event.data == data
    assert without.data == data.translate({ord(each): None for each in "<|>"})
    assert event.id == without.id == "e-1"
    assert event.type == without.type
    # What a process of an older version sends of it.
    (older,) = Decoder().feed(b"id: e-1\n" + body)
    assert older.data == without.data


def test_events_of_the_library_have_none() -> None:
    reset = Message.make("e", 1, "", b"event: reset\ndata: {}\n\n")
    note = b"event: dropped\ndata: 1\n\n"
    wrapped = splice([reset, note, Message.first(b"data: x\n\n")])(AROUND)
    assert wrapped == reset + note + b"data: <x>\n\n"


def test_nothing_is_spliced_to_nothing() -> None:
    assert splice([])(AROUND) == b""


def test_json_rpc() -> None:
    (event,) = Decoder().feed(spliced(body_of({"n": 1}, None, None), jsonrpc_result('a"b')))
    assert event.json() == {"jsonrpc": "2.0", "id": 'a"b', "result": {"n": 1}}


ENDING = jsonrpc_result(7, {"done": {"ok": True}, "stopped": None})


def final(state: str, number: int = 1) -> Message:
    return Message.make("e", number, "a", b'event: end\ndata: {"state":"%s","events":1}\n\n' % state.encode(), True)


def test_an_envelope_may_have_the_data_of_a_run_s_final_event() -> None:
    items = [Message.make("e", 1, "a", b"data: 1\n\n"), final("done", 2), b": x\n\n", final("stopped", 3)]
    join = splice([*items, final("failed", 4)])
    events = Decoder().feed(join(ENDING))
    assert [(event.id, event.type, event.json()["result"]) for event in events] == [
        ("e-1", "message", 1),
        ("e-2", "message", {"ok": True}),
        ("e-3", "message", None),
        ("e-4", "end", {"state": "failed", "events": 1}),
    ]
    assert all(event.json()["id"] == 7 for event in events)
    others = Decoder().feed(join(jsonrpc_result(8)))  # of the same batch
    assert [event.type for event in others] == ["message", "end", "end", "end"]
    assert others[1].json() == {"jsonrpc": "2.0", "id": 8, "result": {"state": "done", "events": 1}}


def test_an_envelope_may_have_one_more_event_after_that_data() -> None:
    join = splice([final("done"), final("failed", 2)])
    text = join(Envelope(done=b"all", last=b"[DONE]")).decode()
    assert text.startswith("id: e-1\ndata: all\n\ndata: [DONE]\n\n")
    assert text.count("[DONE]") == 1  # failed: the library's own event, and its end


def test_only_a_final_event_with_a_state_is_one_of_a_run() -> None:
    other = Message.make("e", 1, "a", b'data: {"state":"gone"}\n\n', True)
    earlier = Message.make("e", 2, "a", b'data: {"state":"done"}\n\n')
    assert [event.json()["result"] for event in Decoder().feed(splice([other, earlier])(ENDING))] == [
        {"state": "gone"},
        {"state": "done"},
    ]


def test_a_state_that_no_run_ends_in_is_refused() -> None:
    with pytest.raises(SettingsError, match="running"):
        jsonrpc_result(1, {"running": {}})


@pytest.mark.parametrize("params", [None, {"uri": "x:y"}])
def test_mcp(params: dict[str, Any] | None) -> None:
    body = body_of(mcp_notification("notifications/resources/updated", params), None, None)
    (event,) = Decoder().feed(spliced(body, mcp_subscription(7)))
    meta = {"io.modelcontextprotocol/subscriptionId": 7}
    notification = {"jsonrpc": "2.0", "method": "notifications/resources/updated"}
    assert event.json() == {**notification, "params": {"_meta": meta, **(params or {})}}
    (plain,) = Decoder().feed(Message.make("e", 1, "a", body))
    assert plain.json() == {**notification, "params": {"_meta": {}, **(params or {})}}
    with pytest.raises(TypeError):
        mcp_notification("m", {"_meta": {}})


def test_each_client_gets_its_own_in_sync_lagging_and_coming_back(memory: Broker, join: Join) -> None:
    published = [memory.publish("a", Slotted("1", "1"))]
    memory.publish("a", "2")
    plain = join(memory, "a", last_event_id=published[0])
    clients = [
        join(memory, "a", last_event_id=published[0], envelope=(f"{name}(", "-", ")"), first=["0"], patience=60)
        for name in ("ada", "bob")
    ]
    turn()
    assert len({client.connection.group for client in clients}) == 1
    assert plain.connection.group is not clients[0].connection.group
    memory.publish("a", Slotted("3", "3"))
    large = "x" * 300_000
    memory.publish("a", large)
    await_that(lambda: all(each.connection.state is not State.IN_SYNC for each in clients), "they take no more")
    for number in range(4, 8):
        memory.publish("a", str(number))
    for name, client in zip(("ada", "bob"), clients, strict=True):
        await_events(8, client)
        await_that(lambda client=client: client.connection.state is State.IN_SYNC, "it is in sync")  # type: ignore[misc]
        expected = ["0", "2", "3-3", large, "4", "5", "6", "7"]
        assert client.data == [f"{name}({text})" for text in expected]
        assert client.connection.stats.bytes == len(client.bytes) - len(b"head")
    await_events(7, plain)
    assert plain.data == ["2", "33", large, "4", "5", "6", "7"]


def test_a_stream_that_is_served_has_it_and_a_program_has_the_events(broker: Broker) -> None:
    subscription = broker.subscribe("a", envelope=("[", "]"))
    ids = [broker.publish("a", Slotted("1", "2")), broker.publish("a", "3")]
    assert texts(subscription, 2) == ["12", "3"]
    pulled = broker.subscribe("a", last_event_id=ids[0], envelope=("[", "]")).as_source().pull(1000)
    assert isinstance(pulled, bytes)
    assert json.loads(Decoder().feed(pulled)[0].data or "") == [3]
