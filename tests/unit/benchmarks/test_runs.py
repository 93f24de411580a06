"""The benchmark of runs counts rightly, and runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fanout_tools
from benchmarks.runs import best, line
from benchmarks.runs_producer import Generators
from benchmarks.runs_servers import cost_of

from .test_inputs import ROOT


def row(**others: Any) -> dict[str, Any]:
    return {"name": "a broker", "faults": "", "late": False, "events": 1000.0, "produce": 30.0, **others}


def test_a_row_with_faults_has_no_figures() -> None:
    assert line(row(faults="1 skipped")).split() == ["a", "broker", "1", "skipped"]
    assert line(row(over=12.34)).split() == ["a", "broker", "1,000", "30.0", "12.3"]
    assert line(row(late=True)).endswith("LATE")


def test_the_round_that_counts_has_all_events_and_the_least_processor_time() -> None:
    rows = [row(events=900.0, produce=10.0), row(produce=40.0), row(produce=30.0), row(faults="1 ended", produce=1.0)]
    assert best(rows, 1000.0) is rows[2]
    assert best(rows, 2000.0)["events"] == 1000.0
    assert best(rows[3:], 1000.0) is rows[3]


def test_processor_time_is_that_of_an_event() -> None:
    before, after = {"events": 100, "cpu": 1.0}, {"events": 200, "cpu": 1.5}
    assert cost_of(before, after) == pytest.approx(5000.0)
    assert cost_of(before, before) == 0.0


def test_a_generator_notes_when_it_was_closed_and_ends_when_all_are_to_end() -> None:
    generators = Generators(2, 1_000_000.0)
    generators.begun.set()
    events = generators.events(0)
    assert [next(events).split()[0] for _ in range(3)] == ["0", "1", "2"]
    events.close()  # type: ignore[attr-defined]
    assert list(generators.stopped) == [0]
    generators.over.set()
    assert len(list(generators.events(1))) == 1
    assert list(generators.stopped) == [0]


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["SQLite", pytest.param("Redis", marks=pytest.mark.matrix)])
def test_the_benchmark_runs_and_prints_its_table(tmp_path: Path, broker: str) -> None:
    if reason := fanout_tools.compiled("answers_client")[1]:
        if os.environ.get("CI") == "true":
            pytest.fail(f"there must be {reason}")
        pytest.skip(f"there is no {reason} (Debian: gcc)")
    if broker == "Redis" and not shutil.which("redis-server"):
        pytest.skip("there is no redis-server")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.runs", "--runs", "3", "--rate", "10", "--seconds", "0.5"]
    command += ["--stops", "2", "--json", str(figures), "--brokers", broker]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads(figures.read_text())["rows"]
    kinds = [f"{broker}, {kind}" for kind in ("runs", "one by one")]
    assert [each["name"] for each in rows] == ["generators alone", *kinds]
    assert all(each["events"] > 0 and not each["faults"] for each in rows)
    assert all(each["stop_p50"] > 0 for each in rows if each["name"].endswith("runs"))
