"""The notice board: two processes serve it, and commands are processes of their own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from ssesync import Backoff, EventSource

from .board import TIMEOUT, Board, User, next_of, running


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(tmp_path_factory.mktemp("board")) as board:
        yield board


# Signing in takes a good part of a second, as it should.
@pytest.fixture(scope="module")
def ada(board: Board) -> User:
    return board.user("ada")


@pytest.fixture(scope="module")
def grace(board: Board) -> User:
    return board.user("grace")


def test_without_signing_in_nothing_is_sent(board: Board) -> None:
    stranger = board.user(None)
    assert [stranger.status(path) for path in ("", "events", "state", "login")] == [302, 403, 403, 200]
    stranger.look("login")
    assert stranger.post("pin", text="x").status_code == 403
    assert stranger.post("login", username="ada", password="wrong").text.count("No user has this name") == 1


def test_the_page_requests_only_its_own_stream(board: Board, ada: User) -> None:
    for page in (ada.look(""), board.user(None).look("login")):
        assert not re.findall(r"https?://[^\"'\s<]+", page)
        assert not re.findall(r"\bsrc=|@import|\burl\(", page)
        imports = re.findall(r"\bimport\b.*", page)
        assert set(imports) <= {'import { Stream } from "/static/ssesync/ssesync.js";'}
        assert re.findall(r"<link [^>]*>", page) == ['<link rel="icon" href="data:,">']


def test_a_notice_reaches_everybody_and_a_note_only_its_user(board: Board, ada: User, grace: User) -> None:
    with ada.following() as of_ada, grace.following() as of_grace:
        assert ada.post("pin", text="The kettle\r\nis back. ").status_code == 204
        first, second = next_of(of_ada, "notice"), next_of(of_grace, "notice")
        notice = first.json()
        assert (first, notice["author"], notice["text"]) == (second, "ada", "The kettle\nis back.")
        for _ in range(2):
            assert grace.post(f"notices/{notice['id']}/thank").status_code == 204
        thanks = next_of(of_grace, "thanks")
        assert thanks.json() == {"id": notice["id"], "user": "grace"}
        assert next_of(of_ada, "thanks") == thanks
        assert next_of(of_ada, "note").json()["text"] == "grace thanks you for “The kettle is back.”"
        board.manage("tell", "grace", "Your parcel is here.")
        board.manage("sse_publish", "board", "-", "--type", "announcement", stdin="The kitchen is closed.\n")
        assert next_of(of_grace, "note").json()["text"] == "Your parcel is here."
        assert next_of(of_grace, "announcement").data == "The kitchen is closed."
        # Of grace's note there was nothing, and of the second thanks neither.
        assert next_of(of_ada, "announcement").data == "The kitchen is closed."
        ada.post(f"notices/{notice['id']}/remove")
        ada.post("clear")
        assert next_of(of_grace, "removed").json() == {"id": notice["id"]}
        assert [next_of(of_ada, "removed", "cleared").type for _ in range(2)] == ["removed", "cleared"]
    assert board.manage("tell", "nobody", "x", status=1).startswith("CommandError: there is no user nobody")


def test_nobody_can_do_what_is_not_theirs(ada: User, grace: User) -> None:
    with ada.following() as reader:
        ada.post("pin", text="mine")
        pk = next_of(reader, "notice").json()["id"]
    assert grace.post(f"notices/{pk}/remove").status_code == 404
    assert ada.post(f"notices/{pk}/thank").status_code == 404
    assert [ada.post("pin", text=text).status_code for text in ("", " ", "x" * 281, "\0")] == [400] * 4
    assert grace.post("pin", text="forged", csrfmiddlewaretoken="x" * 32).status_code == 403


def test_signing_out_ends_the_users_streams(board: Board, ada: User, grace: User) -> None:
    leaving = board.user("grace")
    with leaving.following() as one, grace.following() as two, ada.following() as other:
        leaving.post("logout")
        assert [one.read(), two.read()] == [None, None]
        ada.post("pin", text="still here")
        assert next_of(other, "notice").json()["text"] == "still here"
    assert [leaving.status("events"), grace.status("events")] == [403, 200]


def test_what_was_missed_while_the_server_was_away_comes_first(board: Board, ada: User) -> None:
    position = ada.session.get(f"{board.url}state", timeout=TIMEOUT).json()["position"]
    backoff = Backoff(initial=0.1, max_delay=1, max_elapsed=TIMEOUT)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(
            EventSource(f"{board.url}events", session=ada.session, last_event_id=position, backoff=backoff)
        )
        ada.post("pin", text="one")
        assert source.read().json()["text"] == "one"  # type: ignore[union-attr]
        board.stop()
        board.manage("sse_publish", "user:grace", "not for ada")
        board.manage("sse_publish", "board", "two", "--type", "announcement")
        board.start()
        assert source.read().data == "two"  # type: ignore[union-attr]


def test_it_runs_under_runserver_too(board: Board, ada: User) -> None:
    board.stop()
    board.start_runserver()
    with ada.following() as reader:
        board.manage("tell", "ada", "under runserver")
        assert next_of(reader, "note").json()["text"] == "under runserver"
