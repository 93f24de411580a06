"""What is said to an operator when a producer finds no connection to its database."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ssesync import EventStream
from ssesync.server import databases
from ssesync.server.databases import advice_on


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_warned", set())


def produce() -> Iterator[str]:
    """What a pool of three connections does with a fourth that is wanted."""
    # Imported by this test alone: it takes half a second.
    import sqlalchemy
    from sqlalchemy.pool import QueuePool

    engine = sqlalchemy.create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=2, pool_timeout=0.01)
    held = [engine.connect() for _ in range(3)]
    try:
        yield "one"
        engine.connect()
    finally:
        for connection in held:
            connection.close()
        engine.dispose()


def test_a_pool_that_is_used_up_is_named_once_with_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        stream = EventStream(produce, first_event_timeout=0, name="/rows")
        stream.open({})
        list(stream)
    (record,) = [each for each in caplog.records if "database" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert "/rows got no connection" in record.getMessage()
    assert "set max_producers=3, the size of SQLAlchemy's pool" in record.getMessage()


@pytest.mark.parametrize(
    "text",
    [
        "FATAL:  sorry, too many clients already",
        "FATAL: remaining connection slots are reserved for non-replication superuser connections",
        '(1040, "Too many connections")',
        "couldn't get a connection after 30.00 sec",
    ],
)
def test_a_full_database_is_recognised_also_as_the_cause_of_another_exception(text: str) -> None:
    assert advice_on(OSError(text)) is not None
    outer = LookupError("oh")
    outer.__cause__ = OSError(text)
    assert advice_on(outer) is not None


def test_an_sqlite_database_that_others_write_to_is_named_with_what_helps(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writing:
        writing.execute("CREATE TABLE rows (number)")
        writing.execute("BEGIN IMMEDIATE")

        def produce() -> Iterator[str]:
            yield "one"
            with closing(sqlite3.connect(path, timeout=0)) as connection:
                connection.execute("INSERT INTO rows VALUES (1)")

        stream = EventStream(produce, first_event_timeout=0, name="/rows")
        stream.open({})
        list(stream)
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage().startswith("the producer of the event stream /rows found its SQLite database locked")


def test_other_exceptions_are_nothing_of_that_kind() -> None:
    error = ValueError("too many cooks")
    error.__context__ = error
    assert advice_on(error) is None
