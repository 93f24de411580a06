"""Links between files lead to files, and to headings that are there."""

from __future__ import annotations

import re
from pathlib import Path

from .blocks import ROOT

LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def texts() -> list[Path]:
    """The texts that are read as files, not only as built pages."""
    return [*ROOT.glob("*.md"), *ROOT.glob("example_projects/*/README.md"), *ROOT.glob("docs/**/*.md")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them, and its own labels."""
    text = FENCED.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return made | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def labels() -> set[str]:
    """The labels of all pages, to which MyST's links without a file may lead."""
    return {
        label for page in texts() for label in re.findall(r"^\(([\w-]+)\)=$", page.read_text("utf-8"), re.MULTILINE)
    }


def test_links_between_files_lead_somewhere() -> None:
    broken = []
    known = labels()
    for page in texts():
        for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", target):
                continue
            if not target and anchor in known:
                continue
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken
