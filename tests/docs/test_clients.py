"""The page of clients has what ``make sdk`` has recorded, of the clients and releases that the tests run."""

from __future__ import annotations

from tests.sdk import page, results
from tests.sdk.clients import CLIENTS


def test_the_page_has_the_recorded_results() -> None:
    """``python -m tests.sdk.page`` makes it anew."""
    assert page.written(page.PAGE.read_text("utf-8")) == page.made()


def test_the_results_are_of_the_clients_and_releases_that_are_tried() -> None:
    """``make sdk`` records them anew."""
    recorded = results.load()
    assert {name: each["version"] for name, each in recorded.items()} == {
        client.name: client.version() for client in CLIENTS
    }
    for client in CLIENTS:
        assert set(recorded[client.name]["scenarios"]) == set(client.scenarios)


def test_each_fault_is_one_that_the_tests_expect() -> None:
    recorded = results.load()
    for client in CLIENTS:
        found = {name: faults for name, faults in recorded[client.name]["scenarios"].items() if faults}
        assert found == client.faults, client.name
