"""The chart of benchmarks.deploys: events received over a deploy, one panel for each way.

``python -m benchmarks.deploys_chart FIGURES.json CHART.svg`` draws it.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _LEFT, _RIGHT = 980, 76, 24
_TOP, _PANEL, _GAP = 66, 104, 46
_COLOURS = {"nothing": "#cf222e", "siblings": "#1f6feb", "keeper": "#1a7f37"}
_TITLES = {
    "nothing": "Without: each worker ends its streams, clients come back",
    "siblings": "Worker to worker: the hooks alone",
    "keeper": "Keeper: a process that holds the clients",
}
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px;fill:#1f2328}"
    ".h{font-size:16px;font-weight:600}.p{font-weight:600}.s{font-size:12px;fill:#57606a}"
)


def draw(results: dict[str, Any]) -> str:
    """An SVG image.

    :param results: ``about``, ``clients``, ``rate``, and ``deploys``: for each way ``counts``, the events received in
        each tenth of a second; ``before``, how many tenths are before the deploy begins; ``ends``, the streams ended;
        ``seconds``, from its beginning until all workers are new.
    """
    deploys = results["deploys"]
    height = _TOP + len(deploys) * (_PANEL + _GAP) + 22
    title = f"Events received by {results['clients']:,} clients while the application is deployed (HUP)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        _text(20, 30, title, "h"),
    ]
    most = max(max(each["counts"]) for each in deploys.values()) or 1
    for number, (way, deploy) in enumerate(deploys.items()):
        parts += _panel(_TOP + number * (_PANEL + _GAP), way, deploy, most)
    rate = f"{results['rate']:g} events a second are published; received in each tenth of a second."
    parts.append(_text(20, height - 12, f"{rate} {results['about']}.", "s"))
    return "\n".join([*parts, "</svg>\n"])


def _panel(top: int, way: str, deploy: dict[str, Any], most: int) -> list[str]:
    counts, before = deploy["counts"], deploy["before"]
    bottom, step = top + _PANEL, (_WIDTH - _LEFT - _RIGHT) / len(counts)

    def x(tenth: float) -> float:
        return _LEFT + tenth * step

    points = [f"{x(at):.1f},{bottom - count / most * (_PANEL - 8):.1f}" for at, count in enumerate(counts)]
    colour = _COLOURS[way]
    ends = f"{deploy['ends']:,} streams ended, none lost an event" if deploy["ends"] else "no stream ended"
    until = before + deploy["seconds"] * 10
    return [
        _text(_LEFT, top - 8, f"{_TITLES[way]}: {ends}", "p"),
        f'<rect x="{x(before):.1f}" y="{top}" width="{x(until) - x(before):.1f}" height="{_PANEL}" fill="#f6f1d5"/>',
        _text(round(x(before)) + 4, top + 12, "deploy", "s"),
        f'<polygon points="{_LEFT},{bottom} {" ".join(points)} {x(len(counts) - 1):.1f},{bottom}" fill="{colour}" '
        'fill-opacity="0.25"/>',
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
        f'<path d="M{_LEFT} {top}V{bottom}H{_WIDTH - _RIGHT}" stroke="#8c959f" fill="none"/>',
        _text(_LEFT - 8, top + 12, f"{most:,}", "s", "end"),
        _text(_LEFT - 8, bottom, "0", "s", "end"),
        *(
            _text(round(x(at)), bottom + 15, f"{(at - before) / 10:g} s", "s", "middle")
            for at in range(before % 20, len(counts), 20)
        ),
    ]


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{attributes}>{escape(words)}</text>'


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
