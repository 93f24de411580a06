"""Figures of the pages are those of the code."""

from __future__ import annotations

import re

import pytest

from ssesync import Settings
from ssesync.server import body, leaving, producers, starts

from .blocks import ROOT

GUIDE = ROOT / "docs" / "guide"
SETTINGS = Settings()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("answers", f"| stays served | {starts.USUAL} s |"),
        ("answers", f"| will be detached | {starts._SHORT} s |"),
        ("answers", f"the default, is {producers._MOST:,}, or three quarters of the threads"),
        ("answers", f"`max_request_body` bytes ({SETTINGS.max_request_body >> 20} MB)"),
        ("answers", f"no more than {leaving._REST >> 10} kB wait"),
        ("answers", f"if more than {body._IN_KERNEL >> 10} kB of the body have not arrived"),
        ("answers", f"for up to {SETTINGS.drain_timeout:.0f} seconds"),
        ("detached", f"`max_producers`, {producers._MOST:,} by default"),
        ("sizing", f"`max_producers`, {producers._MOST:,} |"),
        ("serving", f'`"auto"` is {starts.USUAL}, or {starts._SHORT} for a stream that will be detached'),
    ],
)
def test_a_figure_of_a_page_is_that_of_the_code(page: str, text: str) -> None:
    flowing = " ".join((GUIDE / f"{page}.md").read_text("utf-8").split())
    assert text in flowing


def test_other_figures_of_the_page_on_answers() -> None:
    assert (producers._PART, body._WAIT, body._IN_MEMORY) == (0.75, 1.0, 1024 * 1024)
    assert SETTINGS.first_event_timeout == SETTINGS.max_producers == SETTINGS.detach == "auto"


def test_the_chart_of_a_deploy_is_that_of_its_table() -> None:
    chart = (GUIDE.parent / "deploys.svg").read_text("utf-8")
    text = (GUIDE.parent / "benchmarks.md").read_text("utf-8")
    [clients] = re.findall(r"^\| HUP, ([\d,]+) clients \|", text, re.MULTILINE)
    assert f"received by {clients} clients while" in chart
    ends = re.findall(r"^\| (?:without|worker to worker|keeper) \| ([\d,]+) \|", text, re.MULTILINE)
    assert len(ends) == 3
    assert [f": {each} streams ended" in chart for each in ends] == [each != "0" for each in ends]
    assert chart.count("no stream ended") == ends.count("0")
