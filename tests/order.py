"""The order of the files of tests, for runs with several processes.

Folder by folder, six browsers would be at work at the same time, and at the end files that do nothing but compute.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: These take longest. A process that began with one of them near the end would be the last at work.
FIRST = ("live/frameworks/test_gevent_patched.py", "live/relay/test_chain.py", "test_clone.py")


def spread(items: list[pytest.Item]) -> None:
    """Spread the files of each folder evenly over the run. Tests of a file keep their order."""
    files = list(dict.fromkeys(item.path for item in items))
    sizes = Counter(path.parent for path in files)
    seen: Counter[Path] = Counter()
    places: dict[Path, float] = {}
    for path in files:
        places[path] = (seen[path.parent] + 0.5) / sizes[path.parent]
        seen[path.parent] += 1
    places.update({TESTS / name: -1.0 for name in FIRST})
    items.sort(key=lambda item: places[item.path])
