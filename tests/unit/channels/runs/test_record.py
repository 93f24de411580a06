"""The states of a run."""

from __future__ import annotations

from ssesync.channels.runs.record import TRANSITIONS, RunState

from ....cases import each_case


@each_case("state", RunState)
def test_a_run_ends_once(state: RunState) -> None:
    assert state.ended == (not TRANSITIONS[state])
    assert all(later.ended for each in TRANSITIONS[state] for later in TRANSITIONS[each] or [each])
