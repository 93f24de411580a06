"""The charts of benchmarks.fanout and benchmarks.answers, one bar a figure.

``python -m benchmarks.fanout_chart FIGURES.json CHART.svg`` draws that of the first.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from .fanout_apps import SIZE

_WIDTH, _LEFT, _PANEL, _GAP = 980, 284, 206, 24
_TOP, _LINE, _BAR = 92, 28, 16
# What a value next to its bar may take.
_VALUE = 58
_OURS, _FLOOR, _OTHERS = "#1f6feb", "#57606a", "#b6bdc6"
_PANELS = [
    ("one event", "published to last receipt, ms", "one_late", 1.0),
    ("burst of {burst}", "published to last receipt, s", "burst_late", 1e-3),
    ("memory", "server's processes, RSS, MB", "full_rss", 1.0),
]
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px;fill:#1f2328}"
    ".h{font-size:16px;font-weight:600}.p{font-weight:600}.s{font-size:12px;fill:#57606a}.o{font-weight:600}"
)


def draw(results: dict[str, Any]) -> str:
    """An SVG image of the rows with the most clients."""
    most = max(row["clients"] for row in results["rows"])
    rows = [row for row in results["rows"] if row["clients"] == most and not row["faults"]]
    title = f"One {SIZE}-byte event, and a burst of {results['burst']}, to {most:,} clients of one process"
    panels = [
        (name.format(**results), unit, [row[figure] * factor for row in rows]) for name, unit, figure, factor in _PANELS
    ]
    return chart(title, results["about"][0], [row["name"] for row in rows], panels)


def chart(title: str, about: str, names: list[str], panels: list[tuple[str, str, list[float]]]) -> str:
    """An SVG image.

    :param about: the machine.
    :param names: of the rows.
    :param panels: up to three, each with its name, its unit, and the value of each row.
    """
    bottom = _TOP + _LINE * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 38}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{bottom + 38}" rx="8" fill="#ffffff"/>',
        _text(20, 30, title, "h"),
    ]
    for at, name in enumerate(names):
        parts.append(_text(_LEFT - 12, _TOP + _LINE * at + 13, name, "o" if _colour(name) == _OURS else "", "end"))
    for number, (name, unit, values) in enumerate(panels):
        left = _LEFT + number * (_PANEL + _GAP)
        parts.append(_text(left, 60, name, "p"))
        parts.append(_text(left, 77, unit, "s"))
        parts += _bars(left, list(zip(names, values, strict=True)))
        line = f'<path d="M{left} {_TOP - 6}V{bottom - 4}" stroke="#d0d7de" fill="none"/>'
        parts.append(line)
    parts.append(_text(20, bottom + 22, f"Shorter is better. {about}.", "s"))
    return "\n".join([*parts, "</svg>\n"])


def _bars(left: int, values: list[tuple[str, float]]) -> list[str]:
    longest = max(value for _, value in values) or 1
    found = []
    for at, (name, value) in enumerate(values):
        length = max(1.0, value / longest * (_PANEL - _VALUE))
        top = _TOP + _LINE * at
        found.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{_colour(name)}"/>')
        found.append(_text(round(left + length + 6), top + 13, _number(value), "o" if _colour(name) == _OURS else ""))
    return found


def _colour(name: str) -> str:
    if name.startswith("ssesync"):
        return _OURS
    return _FLOOR if name.startswith("send loop") else _OTHERS


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{attributes}>{escape(words)}</text>'


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
