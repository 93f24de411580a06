"""The locks' own laws: what the check of the suite reports, and that it costs nothing where it is off."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ssesync
from ssesync.locks import (
    OF_GARBAGE,
    ORDER,
    VARIABLE,
    Once,
    Waiters,
    foreign,
    is_owned,
    make_condition,
    make_lock,
    make_rlock,
)

TIMEOUT = 90


def reports(code: str, tmp_path: Path) -> str:
    """What a process with the check reports of this code."""
    path = tmp_path / "reports"
    begin = "import logging, os, threading\nfrom ssesync.locks import *\nfrom ssesync.locks import foreign\n"
    environ = {**os.environ, VARIABLE: str(path)}
    subprocess.run([sys.executable, "-c", begin + code], check=True, timeout=TIMEOUT, env=environ)
    return path.read_text() if path.exists() else ""


OUTER, INNER = ORDER[0], ORDER[-1]


def test_without_the_variable_they_are_the_standard_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert type(make_lock(OUTER)) is type(threading.Lock())
    assert type(make_rlock(OUTER)) is type(threading.RLock())
    assert type(make_condition(OUTER)) is threading.Condition


@pytest.mark.slow
def test_without_the_variable_the_check_is_not_even_imported() -> None:
    code = "import sys, ssesync, ssesync.locks as l; l.make_lock('server.liveness'); l.foreign('')"
    code += "; sys.exit('ssesync.lock_check' in sys.modules)"
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    assert subprocess.run([sys.executable, "-c", code], timeout=TIMEOUT, env=environ).returncode == 0


@pytest.mark.slow
def test_the_right_order_is_no_violation(tmp_path: Path) -> None:
    code = f"""
outer, inner = make_rlock({OUTER!r}), make_lock({INNER!r})
for _ in range(2):
    with outer, outer, inner:
        pass
"""
    assert reports(code, tmp_path) == ""


@pytest.mark.slow
def test_the_wrong_order_is_one_and_each_place_is_reported_once(tmp_path: Path) -> None:
    code = f"""
outer, inner = make_lock({OUTER!r}), make_lock({INNER!r})
for _ in range(3):
    with inner, outer:
        pass
"""
    report = reports(code, tmp_path)
    assert report.count(f"{OUTER} is taken while {INNER} is held, against the order of the locks") == 1
    assert "with inner, outer" in report or "<module>" in report


@pytest.mark.slow
def test_two_locks_of_the_same_name_have_no_order(tmp_path: Path) -> None:
    assert "is held" in reports(f"with make_lock({OUTER!r}), make_rlock({OUTER!r}): pass", tmp_path)


@pytest.mark.slow
def test_but_where_the_wait_is_bounded(tmp_path: Path) -> None:
    assert reports(f"with make_lock({OUTER!r}): make_lock({OUTER!r}).acquire(timeout=5)", tmp_path) == ""


@pytest.mark.slow
def test_a_lock_that_is_only_tried_can_not_close_a_circle(tmp_path: Path) -> None:
    code = f"with make_lock({INNER!r}): assert make_lock({OUTER!r}).acquire(blocking=False)"
    assert reports(code, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        "foreign('on_close')",
        "logging.getLogger('ssesync').debug('never shown')",
        "logging.getLogger('another').warning('of urllib3, say')",
        "Waiters().wait(lambda: False, 0.01)",
        "c = make_condition('reactor'); c.acquire(); c.wait(0.01)",
    ],
)
def test_foreign_code_and_waits_under_a_lock_are_reported(call: str, tmp_path: Path) -> None:
    report = reports(f"with make_lock({OUTER!r}):\n    {call}", tmp_path)
    assert f"foreign code under {OUTER}" in report


@pytest.mark.slow
def test_nothing_is_held_after_a_lock_was_given_back(tmp_path: Path) -> None:
    code = f"""
lock, condition = make_lock({OUTER!r}), make_condition({INNER!r})
with lock, condition, condition:
    condition.wait_for(lambda: True)
with condition, condition:
    condition.wait(0.01)
    assert condition._is_owned()
lock.acquire()
thread = threading.Thread(target=lock.release)
thread.start(); thread.join()
foreign('on_close')
"""
    assert reports(code, tmp_path) == ""


@pytest.mark.slow
def test_a_forked_child_holds_nothing_of_its_parents(tmp_path: Path) -> None:
    code = f"""
with make_lock({OUTER!r}):
    if not (child := os.fork()):
        foreign('a callback')
        os._exit(0)
    os.waitpid(child, 0)
"""
    assert reports(code, tmp_path) == ""


COLLECTED = """
import gc
class Dropped:
    def __init__(self): self.itself, self.lock = self, make_rlock(NAME)
    def __del__(self):
        with self.lock: pass
gc.disable()
Dropped()
with make_lock("reactor"):
    gc.collect()
"""


@pytest.mark.slow
def test_garbage_may_take_its_own_locks_anywhere_and_no_others(tmp_path: Path) -> None:
    assert reports(COLLECTED.replace("NAME", "'client.body'"), tmp_path) == ""
    assert "server.streams is taken" in reports(COLLECTED.replace("NAME", "'server.streams'"), tmp_path)


def test_a_lock_without_a_place_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "reports"))
    with pytest.raises(ValueError, match="'nowhere' is not in"):
        make_lock("nowhere")


def test_no_name_stands_twice() -> None:
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) >= OF_GARBAGE


def test_the_table_of_the_documentation_has_them_all_in_their_order() -> None:
    text = (Path(__file__).parents[3] / "docs" / "design.md").read_text()
    table = text[text.index("| lock | where |") :].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z_.]+)` \| `([a-z_/]+\.py)`", table, re.M) != []
    assert tuple(re.findall(r"^\| `([a-z_.]+)` \|", table, re.M)) == ORDER


RAW = re.compile(r"threading\.(Lock|RLock|Condition)\(")
MADE = re.compile(r'make_(?:lock|rlock|condition)\("([a-z_.]+)"\)')
# A read in progress; the mark of a thread that is in a broker.
NO_LOCKS = {"locks.py", "client/body.py", "channels/reentry.py"}


def test_all_locks_are_made_in_one_place_and_every_name_is_one_of_them() -> None:
    root = Path(ssesync.__file__).parent
    texts = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.py")}
    assert {name for name, text in texts.items() if RAW.search(text)} - NO_LOCKS == set()
    assert set(MADE.findall("".join(texts.values()))) == set(ORDER)


def test_waiters_are_woken() -> None:
    waiters, ready = Waiters(), list[None]()
    seen: list[bool] = []
    threads = [
        threading.Thread(target=lambda: seen.append(waiters.wait(lambda: bool(ready), TIMEOUT))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    waiters.wake()  # for nothing
    ready.append(None)
    waiters.wake()
    for thread in threads:
        thread.join(TIMEOUT)
    assert seen == [True] * 3


def test_waiters_give_up_in_time() -> None:
    began = time.monotonic()
    assert not Waiters().wait(lambda: False, 0.05)
    assert time.monotonic() - began >= 0.05
    assert not Waiters().wait(lambda: False, 0)
    assert Waiters().wait(lambda: True, 0)


def test_once_is_true_for_one_of_many() -> None:
    once = Once()
    assert not once.done
    calls: list[bool] = []
    threads = [threading.Thread(target=lambda: calls.append(once())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == [False] * 7 + [True]
    assert once.done


def test_an_owner_is_known() -> None:
    lock = make_rlock(OUTER)
    assert not is_owned(lock)
    with lock:
        assert is_owned(lock)
        others: list[bool] = []
        thread = threading.Thread(target=lambda: others.append(is_owned(lock)))
        thread.start()
        thread.join()
        assert others == [False]
    foreign("nothing is held")
    logging.getLogger("ssesync").debug("nor here")
