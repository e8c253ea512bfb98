"""The table of moves, and how a job ends."""

from __future__ import annotations

import pickle

import pytest

from remctl.jobs.states import FINAL, LIVE, MOVES, IllegalMoveError, JobState, Move, Reason, moved, outcome


def test_the_numbers_are_those_of_the_robots_interface() -> None:
    assert {state.name: state.value for state in JobState} == {
        "CREATED": 0,
        "PENDING": 1,
        "ABORTING": 2,
        "ABORTED": 3,
        "SUCCESS": 4,
        "FAILED": 5,
        "STOPPING": 6,
        "STOPPED": 7,
        "IN_PROGRESS": 8,
    }


def test_every_state_has_a_row() -> None:
    assert set(MOVES) == set(JobState)


def test_every_state_can_be_reached_and_left_but_for_success() -> None:
    reached = {state for row in MOVES.values() for state in row.values()}
    assert reached == set(JobState) - {JobState.CREATED}
    assert {state for state, row in MOVES.items() if not row} == {JobState.SUCCESS}


@pytest.mark.parametrize("state", sorted(FINAL))
def test_from_a_final_state_only_a_retry_leads_on(state: JobState) -> None:
    assert set(MOVES[state]) <= {Move.RETRY}
    assert state.final
    assert not state.live


@pytest.mark.parametrize("state", sorted(LIVE))
def test_whatever_runs_may_end_in_every_way(state: JobState) -> None:
    ends = {Move.SUCCEED, Move.FAIL, Move.STOP, Move.ABORT}
    assert set(MOVES[state]) >= ends
    assert {moved(state, end) for end in ends} == FINAL


@pytest.mark.parametrize("state", sorted(JobState))
@pytest.mark.parametrize("move", list(Move))
def test_a_move_that_is_not_in_the_table_is_refused_by_name(state: JobState, move: Move) -> None:
    if move in MOVES[state]:
        assert moved(state, move) is MOVES[state][move]
        return
    with pytest.raises(IllegalMoveError, match=f"a job that is {state.name} cannot {move.value}") as caught:
        moved(state, move)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.state, copy.move, str(copy)) == (state, move, str(caught.value))


@pytest.mark.parametrize(
    ("reason", "status", "reported", "expected"),
    [
        (Reason.EXIT, 0, None, (Move.SUCCEED, Reason.EXIT)),
        (Reason.EXIT, 0, True, (Move.SUCCEED, Reason.REPORT)),
        (Reason.EXIT, 0, False, (Move.FAIL, Reason.REPORT)),
        (Reason.EXIT, 1, None, (Move.FAIL, Reason.EXIT)),
        (Reason.EXIT, 1, True, (Move.FAIL, Reason.EXIT)),
        (Reason.EXIT, 1, False, (Move.FAIL, Reason.EXIT)),
        (Reason.SIGNAL, None, True, (Move.FAIL, Reason.SIGNAL)),
        (Reason.TIME_LIMIT, None, True, (Move.FAIL, Reason.TIME_LIMIT)),
        (Reason.LOST, None, True, (Move.FAIL, Reason.LOST)),
        (Reason.NOT_STARTED, None, None, (Move.FAIL, Reason.NOT_STARTED)),
        (Reason.STOPPED, None, True, (Move.STOP, Reason.STOPPED)),
        (Reason.ABORTED, None, False, (Move.ABORT, Reason.ABORTED)),
    ],
)
def test_what_a_script_says_and_what_it_does_both_count_and_the_worse_wins(
    reason: Reason, status: int | None, reported: bool | None, expected: tuple[Move, Reason]
) -> None:
    assert outcome(reason, status, reported) == expected
