"""The results of the clients, in a file from which the page is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .clients import CLIENTS, Client

FILE = Path(__file__).parent / "results.json"


def load() -> dict[str, Any]:
    """Return the recorded results: for each client its version, and for each scenario what differed, by case."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return found


def record(scenario: str, outcomes: Mapping[Client, Mapping[str, str]]) -> None:
    """Write down what came of a scenario, where ``make sdk`` runs."""
    if not os.environ.get("SDK_RECORD"):
        return
    found = {name: entry for name, entry in load().items() if name in {client.name for client in CLIENTS}}
    for client, outcome in outcomes.items():
        entry = found.setdefault(client.name, {"version": "", "scenarios": {}})
        entry["version"] = client.version()
        entry["scenarios"][scenario] = dict(outcome)
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
