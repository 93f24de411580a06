"""The unit tests pass again where gevent has replaced threads, locks and sockets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT

#: Folders of tests that start no servers. Not wire: it is pure (tests/test_import_law.py), there is nothing to patch.
#: Not detached: where threads are greenlets nothing is detached.
#: Those of one run stand together: a process of its own for each folder took 25 s of processor time more.
RUNS = (("client",), ("core", "server"), ("client/source", "flask_skin", "django_skin"))

GUNICORN = "it tests the sockets of gunicorn's sync and gthread workers, which gevent never patches"
ASYNCIO = "asyncio has one running loop for a system thread, so a producer's greenlet is taken for a part of the view's"
OWN = "it starts an interpreter, which has no gevent"
PURE = "it starts no thread, takes no lock and opens no socket"
DETACHED = "nothing is detached under gevent, so no tap is read there"
NO_LIMIT = "producers are greenlets, which are not counted"
NO_LOCK = "gevent's queues, which urllib3's pools use then, have no lock that the test could hold"

BODY = "tests/unit/client/test_body.py"
SIGNALS = "tests/unit/client/test_signals.py"
PRODUCERS = "tests/unit/server/test_producers.py"
TRANSPORT = "tests/unit/client/test_transport.py"

#: Tests that do nothing but start an interpreter with a script: it runs the same script without gevent, or patches
#: itself. They took a fifth of the processor time of these runs.
SCRIPTS = {
    "core/test_executor.py": ("an_interpreter_that_exits_waits_for_no_call",),
    "core/test_locks.py": (
        "without_the_variable_the_check_is_not_even_imported",
        "the_right_order_is_no_violation",
        "the_wrong_order_is_one_and_each_place_is_reported_once",
        "two_locks_of_the_same_name_have_no_order",
        "but_where_the_wait_is_bounded",
        "a_lock_that_is_only_tried_can_not_close_a_circle",
        "foreign_code_and_waits_under_a_lock_are_reported",
        "nothing_is_held_after_a_lock_was_given_back",
        "a_forked_child_holds_nothing_of_its_parents",
        "garbage_may_take_its_own_locks_anywhere_and_no_others",
    ),
    "core/test_reactor.py": (
        "a_forked_child_has_a_reactor_of_its_own_and_leaves_the_parents_alone",
        "a_child_that_is_forked_before_there_is_one_makes_its_own",
        "under_gevent_a_greenlet_is_notified_and_the_hub_is_not_blocked",
        "require_thread_raises_without_a_thread_and_succeeds_later",
        "threads_that_need_the_reactor_at_once_get_one",
        "under_gevent_a_forked_child_has_a_greenlet_of_its_own",
    ),
    "server/test_shutdown.py": (
        "a_process_without_streams_is_terminated_by_the_signal_at_once",
        "the_interrupt_is_a_keyboard_interrupt_as_ever",
        "a_signal_that_is_ignored_goes_on_being_ignored",
        "a_process_with_streams_is_terminated_by_the_signal_after_their_end",
    ),
}
#: Files and tests that are not run under gevent, and the reason.
LEFT_OUT = {
    **{f"tests/unit/{file}::test_{name}": OWN for file, names in SCRIPTS.items() for name in names},
    "tests/unit/core/test_signals.py": OWN,
    "tests/unit/server/test_descriptors.py": OWN,
    **{f"tests/unit/core/test_{name}.py": PURE for name in ("errors", "event", "settings", "text", "validation")},
    "tests/unit/server/test_accepting.py": GUNICORN,
    "tests/unit/server/test_incomplete.py": GUNICORN,
    f"{PRODUCERS}::test_by_itself_the_limit_is_1200_or_a_part_of_what_the_system_allows": NO_LIMIT,
    **{
        f"{BODY}::test_{name}": PURE
        for name in (
            "a_chunked_body_is_the_same_at_every_cut",
            "a_malformed_chunk_is_refused_at_every_cut",
            "a_body_that_ends_before_its_last_chunk_is_a_lost_connection_at_every_place",
        )
    },
    "tests/unit/client/test_tap.py": DETACHED,
    f"{TRANSPORT}::test_with_urllib3_future_in_urllib3s_place_all_is_as_with_urllib3": OWN,
    "tests/unit/django_skin/test_async.py": ASYNCIO,
    f"{SIGNALS}::test_a_reader_is_closed_while_the_interrupted_thread_holds_its_pools_lock": NO_LOCK,
    f"{SIGNALS}::test_a_source_that_is_closed_from_within_gives_its_session_up_as_it_ends": NO_LOCK,
}


def left_out(folder: str) -> list[str]:
    """The options of pytest that leave out what is not run under gevent."""
    chosen = [name for name in LEFT_OUT if name.startswith(f"tests/unit/{folder}/")]
    # What is inside has a run of its own.
    chosen += [f"tests/unit/{other}" for run in RUNS for other in run if other.startswith(f"{folder}/")]
    return [f"--deselect={name}" if "::" in name else f"--ignore={ROOT / name}" for name in chosen]


def test_what_is_left_out_exists() -> None:
    for name in LEFT_OUT:
        file, _, test = name.partition("::")
        assert f"def {test}" in (ROOT / file).read_text(), f"{name} is gone: take it out of LEFT_OUT"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    """All at once: their tests mostly wait, and one after the other they took longer than all other files."""
    logs = tmp_path_factory.mktemp("runs")
    started: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
    try:
        for folders in RUNS:
            name = " and ".join(folders)
            command = [sys.executable, "-m", "tests.live.frameworks.under_gevent", "-q", "-p", "no:cacheprovider"]
            command += ["--hypothesis-profile", "quick"]  # random input to decoders, which is no matter of gevent
            command += ["--basetemp", str(logs / f"files of {len(started)}")]
            for folder in folders:
                command += [*left_out(folder), str(ROOT / "tests" / "unit" / folder)]
            log = logs / str(len(started))
            with log.open("wb") as output:
                process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            started[name] = process, log
        yield started
    finally:
        for process, _ in started.values():
            process.kill()
            process.wait()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [" and ".join(folders) for folders in RUNS])
def test_unit_tests_pass_after_monkey_patching(
    name: str, runs: dict[str, tuple[subprocess.Popen[bytes], Path]]
) -> None:
    process, log = runs[name]
    assert process.wait(880) == 0, log.read_text(errors="replace")[-25_000:]
