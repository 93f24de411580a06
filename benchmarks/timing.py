"""Interleaved rounds and the tables they end in.

Every contestant runs once a round, the first of one round being the second of the next, so that a busy moment of the
machine falls on all of them. Each keeps its best round; a ratio is that of the bests, and there is also the median of
the ratios round by round: where the two differ much, the machine was busy and the figure is to be measured again.
A run is short and the rounds are many: that finds a quiet moment sooner than one long run. Where all the work is
done by this process, the clock is its processor time, which other programs' turns do not count in.
The garbage collector runs as it does in any program, after a collection before each run; what was loaded before the
race is kept out of its sight, as the peers' own modules would otherwise be gone through again and again.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from statistics import median
from time import perf_counter

#: A contestant's one run, and what it must return: the number of events that it gave.
Run = Callable[[], int]


def race(
    runs: Mapping[str, Run], expected: Mapping[str, int], rounds: int, clock: Callable[[], float] = perf_counter
) -> dict[str, list[float]]:
    """Seconds of each contestant, round by round."""
    gc.collect()
    gc.freeze()
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            start = clock()
            count = runs[name]()
            seconds[name].append(clock() - start)
            if count != expected[name]:
                raise AssertionError(f"{name} gave {count} instead of {expected[name]} in round {number + 1}")
    gc.unfreeze()
    return seconds


def table(title: str, seconds: Mapping[str, list[float]], ours: str, events: int, size: int) -> str:
    """One line a contestant, the fastest first: ns an event, MB/s, and its time in units of ours."""
    width = max(len(name) for name in seconds)
    lines = [title, f"  {'':{width}}  {'ns/event':>10}  {'MB/s':>8}  {'x ours':>7}  {'median':>7}"]
    for name, times in sorted(seconds.items(), key=lambda item: min(item[1])):
        best = min(times)
        ratio = best / min(seconds[ours])
        typical = median(time / own for time, own in zip(times, seconds[ours], strict=True))
        lines.append(
            f"  {name:{width}}  {best / events * 1e9:10,.0f}  {size / best / 1e6:8,.0f}  {ratio:7.2f}  {typical:7.2f}"
        )
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The line that figures are worth nothing without."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{model}, {os.cpu_count()} cores"
    )


def versions(distributions: list[str]) -> str:
    """The peers with their versions, and which are missing."""
    installed = {name: _version(name) for name in distributions}
    found = [f"{name} {version}" for name, version in installed.items() if version]
    missing = [name for name, version in installed.items() if not version]
    text = "beside: " + (", ".join(found) or "none")
    return text + (f"\nnot installed: {', '.join(missing)}" if missing else "")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
