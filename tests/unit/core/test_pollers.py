"""Each poller of this system reports what is asked for, with real sockets."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from ssesync.pollers import EpollPoller, Poller, Ready, SelectorPoller, make_poller

MAKERS: dict[str, Callable[[], Poller]] = {
    "best": make_poller,
    "select": lambda: SelectorPoller(selectors.SelectSelector()),
}
REPORTED = 20.0


@pytest.fixture(params=MAKERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    poller = MAKERS[request.param]()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The near end, which does not block, and the peer."""
    near, peer = socket.socketpair()
    near.setblocking(False)
    with near, peer:
        yield near, peer


Pair = tuple[socket.socket, socket.socket]


def test_a_peer_that_closes_is_gone(poller: Poller, pair: Pair) -> None:
    near, peer = pair
    poller.add(near.fileno(), True)
    assert list(poller.wait(0)) == []
    peer.close()
    assert list(poller.wait(REPORTED)) == [Ready(near.fileno(), True, False)]


@pytest.mark.parametrize("counts", [True, False])
def test_a_peer_that_stops_sending_is_gone_where_that_counts(poller: Poller, pair: Pair, counts: bool) -> None:
    near, peer = pair
    poller.add(near.fileno(), counts)
    peer.shutdown(socket.SHUT_WR)
    found = list(poller.wait(REPORTED if counts else 0))
    assert [each.gone for each in found] == ([True] if counts else [])
    poller.set_writable(near.fileno(), counts, True)
    assert [each.writable for each in poller.wait(REPORTED)] == [True]


def test_writability_is_reported_while_it_is_wanted(poller: Poller, pair: Pair) -> None:
    near, _ = pair
    poller.add(near.fileno(), True)
    poller.set_writable(near.fileno(), True, True)
    for _ in range(2):
        assert list(poller.wait(REPORTED)) == [Ready(near.fileno(), False, True)]
    poller.set_writable(near.fileno(), True, False)
    assert list(poller.wait(0)) == []


def test_what_can_be_read_is_reported_until_it_was_read(poller: Poller, pair: Pair) -> None:
    near, peer = pair
    poller.read(near.fileno())
    assert list(poller.wait(0)) == []
    peer.send(b"a")
    for _ in range(2):
        assert [each.writable for each in poller.wait(REPORTED)] == [True]
    assert near.recv(1) == b"a"
    assert list(poller.wait(0)) == []
    peer.close()
    assert [each.writable for each in poller.wait(REPORTED)] == [True]


def test_nothing_is_reported_of_what_was_removed(poller: Poller, pair: Pair) -> None:
    near, peer = pair
    poller.add(near.fileno(), True)
    poller.remove(near.fileno())
    peer.close()
    assert list(poller.wait(0)) == []


def test_a_servers_descriptor_is_watched_without_reading_from_it(poller: Poller, pair: Pair) -> None:
    near, peer = pair
    if isinstance(poller, SelectorPoller):
        with pytest.raises(OSError, match="only to a read"):
            poller.watch(near.fileno(), True)
        assert not poller.is_hung_up(near.fileno(), True)
        return
    poller.watch(near.fileno(), True)
    peer.send(b"pipelined")
    assert not [each for each in poller.wait(0) if each.gone]
    peer.close()
    assert [each.gone for each in poller.wait(REPORTED)] == [True]
    assert poller.is_hung_up(near.fileno(), True)
    # Once only.
    assert list(poller.wait(0)) == []
    assert near.recv(100) == b"pipelined"


@pytest.mark.skipif(not hasattr(selectors, "EpollSelector"), reason="this system has no epoll")
def test_where_there_is_epoll_it_is_used() -> None:
    with contextlib.closing(make_poller()) as poller:
        assert isinstance(poller, EpollPoller)
