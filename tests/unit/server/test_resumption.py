"""Which requests' streams may end as complete ones before their own end."""

from __future__ import annotations

from typing import Any

import pytest

from ssesync import CloseReason, Settings
from ssesync.server.resumption import resumption_of

PAGE = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/event-stream"}
FETCH = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "*/*"}
POST = {"REQUEST_METHOD": "POST", "HTTP_ACCEPT": "text/event-stream"}


@pytest.mark.parametrize(
    ("environ", "has_ids", "failed", "orderly"),
    [
        (PAGE, False, False, True),
        (PAGE, False, True, False),
        (PAGE, True, True, True),
        (FETCH, False, False, False),
        (FETCH, True, False, True),
        (FETCH, True, True, True),
        (POST, True, False, False),
        ({}, True, False, True),
        ({}, False, False, False),
    ],
)
def test_a_get_with_ids_can_be_resumed_and_an_event_source_comes_back(
    environ: dict[str, Any], has_ids: bool, failed: bool, orderly: bool
) -> None:
    reason = CloseReason.ERROR if failed else CloseReason.SHUTDOWN
    assert resumption_of(Settings(), environ).is_orderly(has_ids, reason) is orderly
    for setting in (True, False):
        assert resumption_of(Settings(resumable=setting), environ).is_orderly(has_ids, reason) is setting
