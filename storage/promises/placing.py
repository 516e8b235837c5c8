"""Placing: targets for what has a run strategy, and `no_node` where there is none."""

from __future__ import annotations

from ...model.execution import Kind, State
from ...model.filters import JobFilter
from ...model.instants import MINUTE
from ...model.job import JobState
from ...model.strategies import All, Random
from ..protocol import Placement
from .ground import NODE, OTHER, T0, World, a_job, promise


@promise("QE48", "QE50")
def an_execution_without_a_node_is_settled(world: World) -> None:
    """No target at all: `no_node`, with the reason given."""
    execution = world.fire(world.put(a_job(run_on=Random())), T0 + MINUTE)

    answer = world.store.place([Placement(execution, reason="nobody is called gpu")], T0 + MINUTE)

    assert [(gone.execution_id, gone.kind) for gone in answer.settled] == [(execution, Kind.NO_NODE)]
    row = world.get(execution)
    assert (row.state, row.verdict, row.reason) == (State.SKIPPED, Kind.NO_NODE, "nobody is called gpu")
    assert world.settled() == {1: "no_node"}
    world.check_law_1()


@promise("QE49")
def one_execution_for_each_target_and_each_starts_on_its_own_node_only(world: World) -> None:
    """`All`: the first target has the execution itself, the others rows of their own, alike in all else."""
    first = world.fire(world.put(a_job(run_on=All(), start_by=60)), T0 + MINUTE)
    second = world.id()

    answer = world.store.place([Placement(first, [(NODE.id, first), (OTHER.id, second)])], T0 + MINUTE)

    assert answer.executions == [(first, NODE.id), (second, OTHER.id)]
    one, two = world.get(first), world.get(second)
    assert (one.target, two.target, one.state, two.state) == (NODE.id, OTHER.id, State.PENDING, State.PENDING)
    assert (two.nominal, two.due_at, two.job_id, two.generation, two.work, two.start_by) == (
        *(one.nominal, one.due_at, one.job_id, one.generation, one.work, one.start_by),
    )
    assert two.attempt_id == second
    assert world.start(second, now=T0 + MINUTE).refused == {second: "for another node"}
    mine = world.store.start(NODE.id, T0 + MINUTE, free={"default": 5})
    theirs = world.store.start(OTHER.id, T0 + MINUTE, free={"default": 5})
    assert [claim.execution_id for claim in (*mine.claims, *theirs.claims)] == [first]
    world.check_law_1()


@promise("QE49")
def with_overlap_allowed_all_targets_run_at_once(world: World) -> None:
    """Overlap counts executions of the job, on whatever node."""
    first = world.fire(world.put(a_job(run_on=All(), overlap="allow")), T0 + MINUTE)
    second = world.id()
    world.store.place([Placement(first, [(NODE.id, first), (OTHER.id, second)])], T0 + MINUTE)

    world.claim(first, T0 + MINUTE, NODE.id)
    world.claim(second, T0 + MINUTE, OTHER.id)

    assert [row.id for row in world.store.running()] == [first, second]
    world.check_law_1()


@promise("QE48")
def a_place_that_is_not_alive_is_recorded_and_the_others_run(world: World) -> None:
    """A named node that is dead: `no_node` for its row, in whatever position; the rest waits for its nodes."""
    for dead in (NODE.id, OTHER.id):
        name = f"report-{dead}"
        first = world.fire(world.put(a_job(name, run_on=All(["a", "b"]))), T0 + MINUTE)
        second = world.id()
        targets = [(NODE.id, first), (OTHER.id, second)]

        answer = world.store.place([Placement(first, targets, dead=[dead])], T0 + MINUTE)

        lost, kept = (first, second) if dead == NODE.id else (second, first)
        assert [gone.execution_id for gone in answer.settled] == [lost]
        assert (world.state(lost), world.verdict(lost), world.get(lost).target) == (State.SKIPPED, Kind.NO_NODE, dead)
        assert (world.state(kept), world.verdict(kept)) == (State.PENDING, None)
        world.check_law_1(name)


@promise()
def placing_may_be_repeated(world: World) -> None:
    """A repeat, or a second selector, changes nothing and is told where the execution waits."""
    execution = world.fire(world.put(a_job(run_on=All())), T0 + MINUTE)
    placement = Placement(execution, [(NODE.id, execution), (OTHER.id, world.id())])
    first = world.store.place([placement], T0 + MINUTE)

    again = world.store.place([placement], T0 + MINUTE)
    other = world.store.place([Placement(execution, [(OTHER.id, execution)])], T0 + MINUTE)

    assert again.executions == first.executions
    assert (other.executions, other.settled) == ([], [])
    assert world.get(execution).target == NODE.id
    assert len(world.ids()) == 2


@promise("QE7", "QE10")
def what_was_settled_meanwhile_is_not_placed(world: World) -> None:
    """The job was paused, removed or unknown before the selector answered."""
    record = world.put(a_job(run_on=All()))
    execution = world.fire(record, T0 + MINUTE)
    world.store.set_job_state(JobFilter(), JobState.PAUSED, T0 + MINUTE)

    answer = world.store.place(
        [Placement(execution, [(NODE.id, execution)]), Placement(world.id(), [(NODE.id, world.id())])], T0 + MINUTE
    )

    assert (answer.executions, answer.settled) == ([], [])
    assert world.verdict(execution) is Kind.PAUSED
