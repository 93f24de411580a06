"""The states of a subscriber: what each one means, and that no transition leaves an end."""

from __future__ import annotations

from ssesync.channels.subscriber_state import TRANSITIONS, State


def test_the_table_of_transitions_leads_out_of_no_end() -> None:
    for change, transitions in TRANSITIONS.items():
        for before, after in transitions.items():
            assert after.ended >= before.ended, change
            assert before is not State.ENDED, change


def test_in_each_state_it_queues_or_something_else_is_to_come_first() -> None:
    for state in State:
        assert state.queues or state.reads_log or state.ended or state in (State.DRAINING, State.COMPLETING)
        assert not (state.ended and (state.queues or state.reads_log))
