"""The log lines and waits of a retry loop. What an ``EventSource`` makes of a back-off is in ``tests/unit/source``."""

from __future__ import annotations

import logging

import pytest

from ssesync import BrokerUnavailable, ConnectionLost
from ssesync.retry import FailureLog


def test_only_the_first_failure_of_a_series_is_logged_and_the_recovery(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog("the feed", 0.5, 30.0)
    with caplog.at_level(logging.WARNING, "ssesync"):
        log.succeeded()
        for _ in range(3):
            log.failed(ConnectionLost("http://user:secret@host/ has gone"))
        log.succeeded()
        log.failed(BrokerUnavailable("the disk is full"), then="later")
    assert [record.getMessage() for record in caplog.records] == [
        "the feed failed (ConnectionLost); trying again until it works",
        "the feed: it works again",
        "the feed failed (the disk is full); later",
    ]


def test_an_error_that_is_not_this_library_s_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    FailureLog("the feed", 0.5, 30.0).failed(ZeroDivisionError())
    assert [(record.levelname, bool(record.exc_info)) for record in caplog.records] == [("ERROR", True)]


def test_waits_double_from_the_first_to_the_longest_and_lose_up_to_a_half() -> None:
    log = FailureLog("the feed", 0.5, 4.0)
    for longest in (0.5, 1, 2, 4, 4, 4):
        assert longest / 2 <= log.failed(None) <= longest
    log.succeeded()
    assert 0.25 <= log.failed(None) <= 0.5
