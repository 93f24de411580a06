"""The table of workers that a gunicorn master shares with its workers."""

from __future__ import annotations

import os
import types
from collections.abc import Callable

from ssesync.keeper import worker_table as module
from ssesync.keeper.worker_table import WorkerTable, note_fork, worker_table


def in_child(call: Callable[[], object]) -> None:
    if not (child := os.fork()):
        try:
            call()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_worker_that_was_forked_is_starting_until_it_is_ready() -> None:
    table = WorkerTable()
    assert table.newest == 0
    for age in (1, 2, 3):
        table.forks(age)
    assert table.starting(1) == [2, 3]
    in_child(lambda: table.is_ready(2))
    assert table.starting(1) == [3]
    assert table.starting(3) == []
    in_child(lambda: table.is_ready(3))
    assert table.starting(1) == []
    assert table.newest == 3


def test_it_knows_the_newest_workers_whatever_their_number() -> None:
    table = WorkerTable()
    for age in range(1, table.SIZE + 10):
        table.forks(age)
        table.is_ready(age)
    assert table.starting(1) == []
    table.forks(table.SIZE + 10)
    assert table.starting(1) == [table.SIZE + 10]


def test_a_fork_is_written_to_the_table_that_children_have() -> None:
    module._table.clear()
    try:
        assert worker_table() is None
        note_fork(types.SimpleNamespace(age=7))
        table = worker_table()
        assert table is not None
        in_child(lambda: table.is_ready(7))
        assert table.starting(0) == [*range(1, 7)]
    finally:
        module._table.clear()
