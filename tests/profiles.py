"""How many examples hypothesis tries: ``quick``, ``local`` or ``thorough``.

``--hypothesis-profile`` chooses one. Without it, a run that leaves out the slow tests is quick, and any other is local,
with a third of the thorough one's examples: all of them took a tenth of the suite's time, and each run has others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from .marks import is_quick

EXAMPLES = {"quick": 10, "local": 33, "thorough": 100}

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
    """A decorator: try so many times the profile's examples."""
    return settings(max_examples=examples(factor))


def examples(factor: int = 1) -> int:
    """So many times the profile's number of examples, for loops over random input."""
    return settings().max_examples * factor
