"""The chat example: messages of one process reach the authorised clients of all, and none is lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from ssesync import StatusError

from .chat import TIMEOUT, Chat, Person, next_of, running


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with running(tmp_path_factory.mktemp("flask_chat")) as chat:
        yield chat


@pytest.fixture
def room(chat: Chat, request: pytest.FixtureRequest) -> str:
    """A room for this test only."""
    answer = Person(chat, "builder").ask("POST", "rooms", title=f"Room {abs(hash(request.node.name)) % 10**8}")
    assert answer.status_code == 201
    return str(answer.json()["slug"])


def names(people: list[dict[str, str]]) -> list[str]:
    return [each["name"] for each in people]


def wait_for_people(person: Person, room: str, expected: list[str]) -> None:
    end = time.monotonic() + TIMEOUT
    while (found := names(person.look(room)["people"])) != expected:
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_the_page_loads_no_external_files_and_inserts_no_html(chat: Chat) -> None:
    answer = Person(chat, None).session.get(chat.url, timeout=TIMEOUT)
    page = answer.text
    assert answer.status_code == 200
    assert re.findall(r"\bimport\b.*", page) == ['import {Stream} from "/ssesync/ssesync.js";']
    assert not re.findall(r"\bsrc=|@import|\burl\(|innerHTML|outerHTML|insertAdjacent|document\.write", page)
    assert re.findall(r"<link [^>]*>", page) == ['<link rel="icon" href="data:,">']
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    (nonce,) = set(re.findall(r'nonce="([^"]*)"', page))
    assert f"script-src 'nonce-{nonce}'" in policy


def test_messages_reach_the_readers_of_all_workers_in_order_and_once(chat: Chat, room: str) -> None:
    people = [chat.person(f"reader {n}") for n in range(6)]
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(person.following(room)) for person in people]
        for n, person in enumerate(people):
            person.say(room, f"message {n}")
        for source in sources:
            texts = [next_of(source, "say")["text"] for _ in people]
            assert texts == [f"message {n}" for n in range(6)]


def test_the_place_that_comes_with_the_messages_is_where_the_events_go_on(chat: Chat, room: str) -> None:
    ada = chat.person("Ada")
    ada.say(room, "before")
    values = ada.look(room)
    assert [message["text"] for message in values["messages"]] == ["before"]
    ada.say(room, "after")
    with ada.following(room, values["lastEventId"]) as source:
        assert next_of(source, "say")["text"] == "after"


def test_a_message_that_is_sent_again_is_kept_once(chat: Chat, room: str) -> None:
    ada = chat.person("Ada")
    for _ in range(2):
        assert ada.ask("POST", f"rooms/{room}/messages", id="same", text="once").status_code == 201
    assert [message["text"] for message in ada.look(room)["messages"]] == ["once"]
    assert chat.person("Mallory").ask("POST", f"rooms/{room}/messages", id="same", text="mine").status_code == 409


def test_without_a_name_nothing_is_read_or_sent_also_not_from_the_log(chat: Chat, room: str) -> None:
    ada, nobody = chat.person("Ada"), Person(chat, None)
    before = ada.look(room)["lastEventId"]
    ada.say(room, "secret")
    for headers in ({}, {"Last-Event-ID": before}):
        answer = nobody.ask("GET", f"rooms/{room}/events", headers=headers)
        assert answer.status_code == 403
        assert "secret" not in answer.text
    assert nobody.ask("GET", f"rooms/{room}").status_code == 401
    assert nobody.ask("POST", f"rooms/{room}/messages", id="a", text="b").status_code == 401


@pytest.mark.parametrize("slug", ["nowhere", "*", "a" * 300, "room:lobby"])
def test_a_missing_room_has_no_events(chat: Chat, slug: str) -> None:
    ada = chat.person("Ada")
    assert ada.ask("GET", f"rooms/{slug}/events").status_code in (403, 404)
    assert ada.ask("GET", f"rooms/{slug}").status_code == 404


def test_a_page_of_another_origin_is_given_no_stream(chat: Chat) -> None:
    headers = {"Origin": "https://elsewhere.example"}
    assert chat.person("Ada").ask("GET", "rooms/lobby/events", headers=headers).status_code == 403


def test_presence_is_published_as_people_arrive_and_leave(chat: Chat, room: str) -> None:
    ada, grace = chat.person("Ada"), chat.person("Grace")
    with ada.following(room) as source:
        assert names(next_of(source, "people")) == ["Ada"]
        with grace.following(room) as other:
            # It connects when it is read.
            assert names(next_of(other, "people")) == ["Ada", "Grace"]
            assert names(next_of(source, "people")) == ["Ada", "Grace"]
        assert names(next_of(source, "people")) == ["Ada"]


def test_a_worker_that_is_killed_takes_nobody_with_it(chat: Chat, room: str) -> None:
    ada = chat.person("Ada")
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(ada.following(room)) for _ in range(4)]
        for source in sources:
            next_of(source, "people")
        before = chat.workers()
        os.kill(before[0], signal.SIGKILL)
        psutil.wait_procs([psutil.Process(before[0])] if psutil.pid_exists(before[0]) else [], timeout=TIMEOUT)
        ada.say(room, "still here?")
        for source in sources:
            assert next_of(source, "say")["text"] == "still here?"
    wait_for_people(ada, room, [])
    end = time.monotonic() + TIMEOUT
    while len(chat.workers()) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_leaving_ends_all_that_the_person_has_open_and_nobody_else_s(chat: Chat, room: str) -> None:
    ada, grace = chat.person("Ada"), chat.person("Grace")
    with contextlib.ExitStack() as stack:
        hers = [stack.enter_context(ada.following(room)) for _ in range(3)]
        other = stack.enter_context(grace.following(room))
        for source in [*hers, other]:
            next_of(source, "people")
        assert ada.ask("DELETE", "me").status_code == 200
        for source in hers:
            # It ends, and its client is refused when it reconnects.
            with pytest.raises(StatusError, match="403"):
                next_of(source, "say")
        grace.say(room, "bye")
        assert next_of(other, "say")["text"] == "bye"


def test_a_script_is_heard_without_a_request(chat: Chat) -> None:
    ada = chat.person("Ada")
    with ada.following("garden") as source:
        next_of(source, "people")
        chat.say("garden", "The roses want water.")
        values = next_of(source, "say")
    assert (values["name"], values["text"]) == ("say.py", "The roses want water.")


def test_activity_is_published_to_people_in_other_rooms(chat: Chat, room: str) -> None:
    ada = chat.person("Ada")
    with ada.following("workshop") as source:
        ada.say(room, "anything")
        assert next_of(source, "activity") == {"room": room}
        assert ada.ask("POST", "rooms", title="Gänse & Co").json() == {"slug": "ganse-co"}
        assert next_of(source, "room") == {"slug": "ganse-co", "title": "Gänse & Co"}


@pytest.mark.parametrize("text", ["", " \n ", "\u200b", "\x1b", "\ud800", "x" * 2001, 5, None])
def test_what_can_t_be_shown_is_refused(chat: Chat, text: Any) -> None:
    answer = chat.person("Ada").ask("POST", "rooms/lobby/messages", id="a", text=text)
    assert answer.status_code == 400
    assert "text" in answer.json()["error"]


def test_names_and_texts_lose_what_would_move_a_terminal_and_keep_the_rest(chat: Chat, room: str) -> None:
    ada = chat.person("A\x1b[2Jda\r")
    ada.say(room, " one\ntwo \u202e\U0001f469\u200d\U0001f52c\x07 ")
    (message,) = ada.look(room)["messages"]
    assert (message["name"], message["text"]) == ("A[2Jda", "one\ntwo \u202e\U0001f469\u200d\U0001f52c")
