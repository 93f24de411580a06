"""The order of the files of tests, and which of them go to one process, for runs with several.

Folder by folder, six browsers would be at work at the same time, and at the end files that do nothing but compute.
Files that use the same servers are one unit: with one process for each file, each of four processes started every
server, and stopped it when the run was over.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: These take longest, the first of them a minute and the last of them fifteen seconds. A process that began with one
#: of them near the end would be the last at work.
FIRST = (
    "live/siblings/test_siblings.py",
    "live/frameworks/test_gevent_patched.py",
    "live/streams/test_stopping.py",
    "live/keeper/test_worker.py",
    "live/keeper/test_upgrade.py",
    "live/relay/test_chain.py",
    "unit/channels/test_reentry.py",
    "load/test_endings_signalled.py",
    "live/overload/test_crowds.py",
    "browser/test_django_board.py",
    "live/detached/test_finishing.py",
    "test_clone.py",
    "docs/test_examples.py",
    "sdk/test_clients.py",
    "live/keeper/test_moving.py",
    "live/keeper/test_series.py",
    "load/test_endings_aborted.py",
    "unit/benchmarks/test_runs.py",
    "unit/server/test_shutdown.py",
    "load/test_slow_readers.py",
    "live/streams/test_nginx.py",
    "examples/test_demo.py",
    "unit/benchmarks/test_answers.py",
    "load/test_quiet_streams.py",
    "browser/test_examples.py",
    "live/streams/test_churn.py",
    "examples/test_django_board.py",
    "examples/test_llm_gateway.py",
    "unit/channels/test_election.py",
    "unit/client/test_reuse.py",
    "unit/client/test_transport.py",
    "unit/channels/test_gevent.py",
    "browser/test_module.py",
)
#: The files of a folder that use its ``fleet`` of servers, which last until the last of them is done.
SHARING = {
    "live/answers": {"test_contexts.py", "test_django_contexts.py", "test_same.py", "test_wrappers.py"},
    "live/channels": {"test_crashes.py", "test_delivery.py", "test_restarts.py"},
    "live/detached": {
        "test_crowds.py",
        "test_gunicorn.py",
        "test_limits.py",
        "test_middlewares.py",
        "test_requests.py",
        "test_tiers.py",
        "test_views.py",
    },
    "live/frameworks": {
        "test_clients.py",
        "test_concurrency.py",
        "test_django.py",
        "test_django_asgi.py",
        "test_flask.py",
        "test_streams.py",
        "test_wsgi_rules.py",
    },
    "proxies": {"test_doctor.py", "test_streams.py"},
    "live/streams": {"test_incomplete.py", "test_limits.py", "test_sensing.py"},
}


def unit_of(file: str) -> str:
    """What goes to one process: the folder of files that share servers, or a file.

    :param file: a file of tests, relative to the folder of all.
    """
    folder, _, name = file.rpartition("/")
    return folder if name in SHARING.get(folder, ()) else file


def spread(items: list[pytest.Item]) -> None:
    """Spread the units of each folder evenly over the run. Tests of a unit keep their order."""
    paths = dict.fromkeys(item.path for item in items)
    units = {path: unit_of(path.relative_to(TESTS).as_posix()) for path in paths}
    in_order = list(dict.fromkeys(units.values()))
    sizes = Counter(unit.rpartition("/")[0] for unit in in_order)
    seen: Counter[str] = Counter()
    places: dict[str, float] = {}
    for unit in in_order:
        folder = unit.rpartition("/")[0]
        # The units of several files are the largest.
        places[unit] = 0.0 if unit in SHARING else (seen[folder] + 0.5) / sizes[folder]
        seen[folder] += 1
    places.update({unit: place - len(FIRST) for place, unit in enumerate(FIRST)})
    items.sort(key=lambda item: (places[units[item.path]], units[item.path] if units[item.path] in SHARING else ""))
