"""Clients of others go through the scenarios of tests/sdk/scenarios.py, all side by side.

``make test`` runs one scenario, the one that has most in it; ``make sdk`` runs all, and records what came of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from . import results
from .clients import CLIENTS, Client
from .nodes import need_node, node_missing
from .scenarios import SCENARIOS, Outcome, go_through

#: The scenario that each client goes through in every run of the tests.
FIRST = "kill"
CASES = [
    pytest.param(scenario, client, id=f"{scenario}-{client}", marks=[] if scenario == FIRST else [pytest.mark.sdk])
    for scenario in SCENARIOS
    for client in CLIENTS
    if scenario in client.scenarios
]


@pytest.fixture(scope="module")
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Client], Outcome]:
    """What came of a scenario for a client. All clients of this run go through it when the first is asked for."""
    chosen = {
        (item.callspec.params["scenario"], item.callspec.params["client"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_a_client
    }
    found: dict[str, dict[Client, Outcome]] = {}

    def of(scenario: str, client: Client) -> Outcome:
        if scenario not in found:
            found[scenario] = {}
            clients = [each for each in CLIENTS if each.where == "Python" or not node_missing()]
            clients = [each for each in clients if (scenario, each) in chosen]
            found[scenario] = go_through(scenario, clients, tmp_path_factory.mktemp(scenario))
            results.record(scenario, found[scenario])
        assert client in found[scenario], "the scenario failed for all clients, as the first of these tests reports"
        return found[scenario][client]

    return of


@pytest.mark.parametrize(("scenario", "client"), CASES)
def test_a_client(outcome: Callable[[str, Client], Outcome], scenario: str, client: Client) -> None:
    """It does what it must, but for its own faults, which it still has."""
    if client.where != "Python":
        need_node()
    assert outcome(scenario, client) == client.faults.get(scenario, {})
