"""What all tests need."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ssesync import streams


@pytest.fixture(autouse=True)
def dropped_streams_end_with_their_test() -> Iterator[None]:
    """A stream that a test has dropped in a reference cycle ends whenever garbage is collected: in the middle of
    another test, which then sees its log line, or still counts it as open."""
    yield
    if streams.snapshot()["streams"]:
        gc.collect()
