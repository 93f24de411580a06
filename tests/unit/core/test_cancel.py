"""CancelToken: one signal, any thread, every callback once."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from ssesync.cancel import CancelToken

from ...cases import each_case


def test_a_new_token_is_not_set():
    token = CancelToken()
    assert not token.is_set()
    assert token.reason is None
    assert token.wait(0) is False


def test_set_wakes_all_waiting_threads():
    token, woken = CancelToken(), []
    threads = [threading.Thread(target=lambda: woken.append(token.wait(90))) for _ in range(5)]
    for thread in threads:
        thread.start()
    token.set()
    for thread in threads:
        thread.join(90)
    assert woken == [True] * 5
    assert token.is_set()


def test_a_wait_ends_with_its_time():
    start = time.monotonic()
    assert CancelToken().wait(0.02) is False
    assert time.monotonic() - start < 10


def test_the_first_reason_stays():
    token = CancelToken()
    token.set("client_gone")
    token.set("shutdown")
    assert token.reason == "client_gone"


def test_a_reason_need_not_be_given():
    token = CancelToken()
    token.set()
    assert token.reason == "cancelled"


def test_callbacks_are_called_once_and_in_order():
    token, calls = CancelToken(), []
    for number in range(3):
        token.add_callback(lambda number=number: calls.append(number))
    assert calls == []
    token.set()
    token.set()
    assert calls == [0, 1, 2]


def test_a_callback_sees_the_token_set_and_its_reason():
    token, seen = CancelToken(), []
    token.add_callback(lambda: seen.append((token.is_set(), token.reason)))
    token.set("shutdown")
    assert seen == [(True, "shutdown")]


def test_a_callback_is_called_on_the_thread_that_gives_the_signal():
    token, seen = CancelToken(), []
    token.add_callback(lambda: seen.append(threading.current_thread()))
    thread = threading.Thread(target=token.set)
    thread.start()
    thread.join(90)
    assert seen == [thread]


def test_a_late_callback_is_called_at_once():
    token, calls = CancelToken(), []
    token.set()
    token.add_callback(lambda: calls.append(1))
    assert calls == [1]
    token.set()
    assert calls == [1]


def test_a_removed_callback_is_not_called():
    token, calls = CancelToken(), []
    one, two = lambda: calls.append(1), lambda: calls.append(2)
    token.add_callback(one)
    token.add_callback(two)
    token.remove_callback(one)
    token.set()
    assert calls == [2]


def test_removing_what_is_not_there_is_no_error():
    token = CancelToken()
    token.remove_callback(print)
    token.add_callback(lambda: None)
    token.set()
    token.remove_callback(print)


def test_a_callback_added_twice_is_called_twice_and_removed_once():
    token, calls = CancelToken(), []

    def callback():
        calls.append(1)

    for _ in range(3):
        token.add_callback(callback)
    token.remove_callback(callback)
    token.set()
    assert calls == [1, 1]


def test_a_callback_may_use_its_token():
    token, calls = CancelToken(), []

    def callback():
        token.set("other")
        token.remove_callback(callback)
        token.add_callback(lambda: calls.append(token.wait(0)))

    token.add_callback(callback)
    token.set("first")
    assert calls == [True]
    assert token.reason == "first"


@pytest.mark.parametrize("late", [False, True], ids=["waiting", "late"])
def test_a_failing_callback_is_logged_and_does_not_stop_the_others(caplog, late):
    token, calls = CancelToken(), []

    def broken():
        raise RuntimeError("broken on purpose")

    if late:
        token.set()
    with caplog.at_level(logging.ERROR, logger="ssesync"):
        for callback in (lambda: calls.append(1), broken, lambda: calls.append(2)):
            token.add_callback(callback)
        token.set()
    assert calls == [1, 2]
    (record,) = caplog.records
    assert record.name == "ssesync"
    assert "broken" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


def test_a_callback_may_end_the_program():
    token = CancelToken()

    def leave():
        raise SystemExit(3)

    token.add_callback(leave)
    with pytest.raises(SystemExit):
        token.set()


@each_case("attempt", range(20))
def test_many_threads_that_set_and_add_lose_no_callback_and_call_none_twice(attempt):
    token, calls, reasons = CancelToken(), [], set()
    start = threading.Barrier(9)

    def add(group):
        start.wait(90)
        for number in range(50):
            token.add_callback(lambda number=number: calls.append((group, number)))

    def give(reason):
        start.wait(90)
        token.set(reason)
        reasons.add(token.reason)

    threads = [threading.Thread(target=add, args=(group,)) for group in range(4)]
    threads += [threading.Thread(target=give, args=(f"reason {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    start.wait(90)
    for thread in threads:
        thread.join(90)
    assert sorted(calls) == [(group, number) for group in range(4) for number in range(50)]
    assert len(reasons) == 1


@each_case("attempt", range(20))
def test_adding_and_removing_from_many_threads_leaves_nothing(attempt):
    token, calls = CancelToken(), []
    start = threading.Barrier(4)

    def come_and_go():
        start.wait(90)
        for number in range(50):

            def callback(number=number):
                calls.append(number)

            token.add_callback(callback)
            token.remove_callback(callback)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    token.set()
    assert calls == []
