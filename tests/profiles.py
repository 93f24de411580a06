"""How many examples hypothesis tries: ``quick``, ``local`` or ``thorough``.

``--hypothesis-profile`` chooses one. Without it, a run that leaves out the slow tests is quick, and any other is local,
with an eighth of the thorough one's examples: all of them took a tenth of the suite's time. ``make matrix`` tries all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

# Hypothesis imports the plugins of all packages that are installed: trio's takes a third of a second.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")

from hypothesis import HealthCheck, settings

from .marks import is_quick

EXAMPLES = {"quick": 10, "local": 12, "thorough": 100}

#: How long an example takes depends on the machine; some inputs are large because streams are.
UNCHECKED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

for _name, _count in EXAMPLES.items():
    settings.register_profile(_name, deadline=None, suppress_health_check=UNCHECKED, max_examples=_count)


def load_profile(config: pytest.Config) -> None:
    """Load the profile of this run, before the tests are imported."""
    name = config.getoption("--hypothesis-profile", default=None)
    if not name:
        quick = is_quick(config.getoption("markexpr", default=""))
        name = "quick" if quick else "local"
    settings.load_profile(name)


def times(factor: int) -> Callable[[Any], Any]:
    """A decorator: try so many times the profile's examples, or once as many in a quick run."""
    return settings(max_examples=examples(factor))


def examples(factor: int = 1) -> int:
    """How many examples :func:`times` tries, for loops over random input."""
    count = settings().max_examples
    return count if count == EXAMPLES["quick"] else count * factor
