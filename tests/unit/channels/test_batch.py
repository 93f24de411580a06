"""Batches: each client gets the events of its channels, in the order of the log, in as few sends as may be."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from ssesync.channels import batch
from ssesync.channels.batch import next_batch
from ssesync.channels.message import Message
from ssesync.detached.pieces import SEND, split

from ...cases import each_case

CHANNELS = "abcde"
FDS_BY_CHANNEL = st.dictionaries(st.sampled_from(CHANNELS), st.sets(st.integers(0, 6)))


def messages_of(channels: list[str], size: int = 10) -> deque[Message]:
    return deque(Message.make("e", seq, channel, b"x" * size) for seq, channel in enumerate(channels, 1))


@given(
    st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=60), FDS_BY_CHANNEL, st.sampled_from([10, 9_000, 40_000])
)
def test_each_client_gets_its_channels_events_in_order_and_no_others(
    channels: list[str], fds_by_channel: dict[str, set[int]], size: int
):
    waiting = messages_of(channels, size)
    all_messages = list(waiting)
    got: dict[int, list[int]] = {fd: [] for fd in range(7)}
    taken: list[Message] = []
    while waiting:
        messages, parts = next_batch(waiting, lambda channel: tuple(fds_by_channel.get(channel, ())))
        taken += messages
        members = [fd for _, fds in parts for fd in fds]
        assert len(members) == len(set(members)), "a client in two parts"
        assert len({tuple(part) for part, _ in parts}) == len(parts), "two parts of the same messages"
        for part, fds in parts:
            assert {message.seq for message in part} <= {message.seq for message in messages}
            for fd in fds:
                got[fd] += [message.seq for message in part]
    assert taken == all_messages
    for fd, seqs in got.items():
        assert seqs == [message.seq for message in all_messages if fd in fds_by_channel.get(message.channel, ())]


def test_clients_of_the_same_channels_are_one_part_as_they_are():
    members = dict.fromkeys(range(100))
    messages, [(part, fds)] = next_batch(messages_of(["a", "b", "a"]), lambda channel: members)
    assert part == messages
    assert fds is members


def test_an_event_for_all_and_one_for_each_is_one_send_a_client():
    fds_by_channel = {"news": list(range(50)), **{f"u{number}": [number] for number in range(50)}}
    channels = ["news", *(f"u{number}" for number in range(20)), "news"]
    _, parts = next_batch(messages_of(channels), lambda channel: fds_by_channel[channel])
    assert sorted(fd for _, fds in parts for fd in fds) == list(range(50))
    assert len(parts) == 21
    for part, fds in parts:
        seqs = [message.seq for message in part]
        assert seqs == ([1, 22] if len(fds) > 1 else [1, fds[0] + 2, 22])  # type: ignore[index]


def test_of_a_channel_there_is_a_send_and_of_others_as_much_beside_it():
    waiting = messages_of(["a", "b"] * 100, SEND // 10)
    messages, _ = next_batch(waiting, lambda channel: [1, 2])
    for channel in "ab":
        size = sum(len(message) for message in messages if message.channel == channel)
        assert SEND * 0.8 < size <= SEND


def test_a_batch_takes_no_longer_than_so_many_sends():
    """Or the loop's thread would do nothing else while a thousand rooms of many members are busy."""
    fds_by_channel = {str(number): list(range(number * 500, number * 500 + 500)) for number in range(100)}
    waiting = messages_of(list(fds_by_channel) * 2)
    messages, parts = next_batch(waiting, lambda channel: fds_by_channel[channel])
    assert 0 < sum(len(fds) for _, fds in parts) <= batch._SENDS
    assert len(messages) == batch._SENDS // 500


def test_a_message_of_a_channel_without_clients_is_taken_and_in_no_part():
    messages, parts = next_batch(messages_of(["a", "b"]), lambda channel: ())
    assert len(messages) == 2
    assert parts == []


@each_case("sizes", [[10], [SEND * 2, 10], [SEND, 10, 10], [SEND // 2] * 5])
def test_pieces_are_one_send_each_and_have_at_least_one_message(sizes: list[int]):
    messages = [Message.make("e", seq, "a", b"x" * size) for seq, size in enumerate(sizes)]
    rest, pieces = messages, []
    while rest:
        piece, rest = split(rest)
        pieces.append(piece)
        assert len(piece) == 1 or sum(map(len, piece)) <= SEND
    assert [message for piece in pieces for message in piece] == messages
