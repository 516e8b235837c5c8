"""What filters make of what they are given."""

from __future__ import annotations

from attrs import evolve

from clepsydra import ExecutionFilter, State
from clepsydra.model.execution import FINISHED, UNFINISHED, UNSTARTED
from clepsydra.model.payload import CORRELATION, GROUP


def test_sets_of_states_have_names() -> None:
    assert ExecutionFilter(states="completed").states == frozenset((State.SUCCEEDED,))
    assert ExecutionFilter(states="incomplete").states == UNFINISHED
    assert ExecutionFilter(states="finished").states == FINISHED
    assert ExecutionFilter(states=["unstarted", State.FAILED]).states == UNSTARTED | {State.FAILED}
    assert ExecutionFilter(states=()).states == frozenset()


def test_a_correlation_is_looked_for_among_the_labels() -> None:
    where = ExecutionFilter(labels={"tenant": None}, group="orders", correlation="7")

    assert where.labels == ((CORRELATION, "7"), (GROUP, "orders"), ("tenant", None))
    assert evolve(where, states="failed").labels == where.labels
