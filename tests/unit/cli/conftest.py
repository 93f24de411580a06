from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssesync.testing import FakeSSEServer


@pytest.fixture
def server() -> Iterator[FakeSSEServer]:
    with FakeSSEServer() as server:
        yield server
