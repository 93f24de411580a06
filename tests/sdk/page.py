"""Makes docs/guide/clients.md's tables of the recorded results: ``python -m tests.sdk.page``."""

from __future__ import annotations

import re
from typing import Any

from tests.servers import ROOT

from .clients import CLIENTS, Client
from .odd import OURS
from .results import load

PAGE = ROOT / "docs" / "guide" / "clients.md"
#: What is between these two is made.
BEGIN, END = "<!-- made by make sdk -->\n", "<!-- end -->\n"
SENT = {case.name for case in OURS}


def cell(client: Client, results: dict[str, Any], scenario: str) -> str:
    """What came of a scenario, in a word or two."""
    if scenario not in results["scenarios"]:
        return "–"
    found = results["scenarios"][scenario]
    if scenario == "odd":
        sent, foreign = len(found.keys() & SENT), len(found.keys() - SENT)
        parts = [f"{sent} of ours" if sent else "", f"{foreign} of others" if foreign else ""]
        return " and ".join(filter(None, parts)) or "none"
    if found:
        return "; ".join(f"**{name}**" for name in found)
    if scenario == "whole":
        return "whole"
    if client.resumes and scenario in ("term", "kill"):
        return "resumes"
    return {"error": "final event" if client.resumes else "error", "term": "finished, or error", "kill": "error"}[
        scenario
    ]


def table(results: dict[str, Any]) -> str:
    lines = [
        "| client | of | release | an answer | the producer raises | SIGTERM | SIGKILL | odd data |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for client in CLIENTS:
        if client.name in results:
            found = results[client.name]
            cells = [cell(client, found, name) for name in ("whole", "error", "term", "kill", "odd")]
            lines.append(f"| {client.name} | {client.where} | {found['version']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def differences(results: dict[str, Any]) -> str:
    """What each client gives otherwise than the standard says."""
    lines = [
        f"| {client.name} | {name} | {sender} | {spelled(found[name])} |"
        for client in CLIENTS
        for found in [results.get(client.name, {"scenarios": {}})["scenarios"].get("odd", {})]
        for sender, cases in (("ours", found.keys() & SENT), ("others", found.keys() - SENT))
        for name in sorted(cases)
    ]
    if not lines:
        return ""
    head = ["| client | data | of | the client |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *lines]) + "\n"


def spelled(text: str) -> str:
    return re.sub(r"('[^']*')", r"`\1`", text).replace("|", "\\|")


def notes() -> str:
    return "".join(f"- {client.name}: {client.notes}\n" for client in CLIENTS if client.notes)


def made() -> list[str]:
    """The parts of the page that are made."""
    results = load()
    return [table(results), differences(results), notes()]


def written(text: str) -> list[str]:
    """The parts that a page has."""
    return re.findall(re.escape(BEGIN) + "(.*?)" + re.escape(END), text, re.DOTALL)


def main() -> None:
    parts = iter(made())
    text = PAGE.read_text("utf-8")
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    PAGE.write_text(re.sub(pattern, lambda _: BEGIN + next(parts) + END, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
