"""Rescuing: what becomes of the work of nodes that died."""

from __future__ import annotations

from ...model.execution import Ending, Kind, State
from ...model.filters import ExecutionFilter
from ...model.instants import MINUTE
from ...model.policies import Recovery
from ...model.strategies import All, NodeList
from ..protocol import Placement
from .ground import NODE, T0, World, a_job, promise

DEAD = "a-dead-node"


@promise("QU14", "OR37", "QE21", "GS8")
def by_default_the_work_of_a_dead_node_is_tried_again(world: World) -> None:
    """A new attempt of the same execution, none of its retries used; the old attempt is fenced off."""
    claim = world.claim(world.enqueue(queue="mail"), node=DEAD)

    answer = world.store.rescue([DEAD], T0 + MINUTE, world.id)

    assert (answer.retried, answer.failed, answer.kept, answer.ready) == (1, [], 0, {"mail": 1})
    row = world.get(claim.execution_id)
    assert (row.state, row.attempt, row.recoveries, row.node) == (State.PENDING, 1, 1, None)
    (past,) = world.store.list_attempts(claim.execution_id)
    assert (past.id, past.ending, past.node, past.ended_at) == (claim.attempt_id, "lost", DEAD, T0 + MINUTE)
    assert world.finish(claim, node=DEAD).stale == {claim.attempt_id}
    world.run(claim.execution_id, now=T0 + MINUTE)


@promise("QU16")
def an_execution_that_kills_its_node_each_time_ends(world: World) -> None:
    """After `recoveries` it fails with `NodeLost`; nothing loops for ever."""
    execution = world.enqueue(recoveries=2)
    for _ in range(2):
        world.claim(execution, node=DEAD)
        assert world.store.rescue([DEAD], T0, world.id).retried == 1

    world.claim(execution, node=DEAD)
    answer = world.store.rescue([DEAD], T0 + 5, world.id)

    row = world.get(execution)
    assert (row.state, row.finished_at, row.recoveries) == (State.FAILED, T0 + 5, 2)
    assert row.error is not None
    assert row.error.startswith("NodeLost")
    assert [gone.execution_id for gone in answer.failed] == [execution]


@promise("JQ15", "OR37")
def recovery_says_what_becomes_of_it(world: World) -> None:
    """`fail` fails at once, `requeue` has no limit, `keep` leaves it to look at and frees its job."""
    failing, endless, kept = (
        world.enqueue(recovery=recovery, recoveries=0) for recovery in (Recovery.FAIL, Recovery.REQUEUE, Recovery.KEEP)
    )
    for _ in range(5):
        world.start(failing, endless, kept, node=DEAD)
        world.store.rescue([DEAD], T0, world.id)

    assert (world.state(failing), world.state(endless), world.state(kept)) == (
        *(State.FAILED, State.PENDING, State.RUNNING),
    )
    assert world.get(endless).recoveries == 5
    assert (world.get(kept).occupies, world.get(kept).node) == (False, DEAD)


@promise("QU23", "JQ15")
def only_the_work_of_the_dead_is_touched_and_a_second_rescue_finds_nothing(world: World) -> None:
    """What this node runs goes on; two observers may rescue the same node."""
    mine, lost = world.claim(world.enqueue()), world.claim(world.enqueue(), node=DEAD)

    first = world.store.rescue([DEAD], T0, world.id)
    second = world.store.rescue([DEAD], T0, world.id)

    assert (first.retried, second.retried, second.ready) == (1, 0, {})
    assert world.state(mine.execution_id) is State.RUNNING
    assert world.get(lost.execution_id).recoveries == 1
    assert [node.id for node in world.store.nodes()] == [NODE.id]


@promise("OR37")
def the_work_of_a_node_that_nobody_knows_is_rescued_too(world: World) -> None:
    """Its row may be gone already: an attempt whose node is not registered is nobody's."""
    world.claim(world.enqueue(), node="long-gone")

    assert world.store.rescue([], T0, world.id).retried == 1


@promise("OR2")
def what_was_asked_to_stop_has_stopped_with_its_node(world: World) -> None:
    """It stays cancelled and frees its job."""
    record = world.put()
    claim = world.claim(world.fire(record, T0 + MINUTE), T0 + MINUTE, DEAD)
    world.store.cancel_executions(ExecutionFilter(), T0 + MINUTE)

    answer = world.store.rescue([DEAD], T0 + 2 * MINUTE, world.id)

    row = world.get(claim.execution_id)
    assert (row.state, row.occupies, row.attempt) == (State.CANCELLED, False, 1)
    assert (answer.retried, answer.ended) == (0, [(record.id, T0 + 2 * MINUTE)])
    assert list(world.store.changes(0).cancelled) == []


@promise("QE21")
def a_rescued_time_stays_fired_and_occupies_its_job(world: World) -> None:
    """At least once: another attempt, never another execution, and no other run beside it."""
    record = world.put()
    first = world.fire(record, T0 + MINUTE)
    world.claim(first, T0 + MINUTE, DEAD)
    world.store.rescue([DEAD], T0 + MINUTE, world.id)

    second = world.fire(record, T0 + 2 * MINUTE)
    answer = world.start(second, first, now=T0 + 2 * MINUTE)

    assert [claim.execution_id for claim in answer.claims] == [first]
    assert world.verdict(second) is Kind.OVERLAP_SKIPPED
    world.check_law_1()


@promise("QE48")
def what_waited_for_a_dead_node_is_placed_anew(world: World) -> None:
    """Chosen once, chosen again: unstarted and rescued executions both go back to the node selector."""
    record = world.put(a_job(run_on=NodeList(["a", "b"]), overlap="allow"))
    waiting, running = world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE)
    world.store.place([Placement(row, [(DEAD, row)]) for row in (waiting, running)], T0 + 2 * MINUTE)
    world.claim(running, T0 + 2 * MINUTE, DEAD)

    answer = world.store.rescue([DEAD], T0 + 2 * MINUTE, world.id)

    assert (answer.failed, answer.ready) == ([], {})
    assert [row.id for row in world.store.unplaced(T0 + 2 * MINUTE, 9)] == [waiting, running]
    world.store.place([Placement(row, [(NODE.id, row)]) for row in (waiting, running)], T0 + 2 * MINUTE)
    assert len(world.start(waiting, running, now=T0 + 2 * MINUTE).claims) == 2
    world.check_law_1()


@promise("QE48")
def what_waited_for_a_node_that_has_left_is_placed_anew(world: World) -> None:
    """A node that closed and forgot itself left it behind; nobody has to name that node."""
    record = world.put(a_job(run_on=NodeList(["a", "b"]), overlap="allow"))
    orphan, mine = world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE)
    world.store.place([Placement(orphan, [("gone", orphan)]), Placement(mine, [(NODE.id, mine)])], T0 + 2 * MINUTE)

    world.store.rescue([], T0 + 2 * MINUTE, world.id)

    assert [row.id for row in world.store.unplaced(T0 + 2 * MINUTE, 9)] == [orphan]
    assert world.state(mine) is State.PENDING
    world.check_law_1()


@promise("QE48")
def nobody_takes_the_place_of_a_dead_node_where_each_has_its_own(world: World) -> None:
    """`All`: the rows of two dead nodes end, unstarted as `no_node` and started as lost; the live one's stays."""
    record = world.put(a_job(run_on=All(), overlap="allow"))
    rows = [world.fire(record, T0 + MINUTE), world.id(), world.id(), world.id()]
    nodes = [DEAD, "dead-too", "dead-as-well", NODE.id]
    world.store.place([Placement(rows[0], list(zip(nodes, rows, strict=True)))], T0 + MINUTE)
    world.claim(rows[0], T0 + MINUTE, DEAD)
    world.claim(rows[1], T0 + MINUTE, "dead-too")

    answer = world.store.rescue(nodes[:3], T0 + MINUTE, world.id)

    assert {gone.execution_id for gone in answer.failed} == set(rows[:3])
    assert [world.state(row) for row in rows] == [State.FAILED, State.FAILED, State.SKIPPED, State.PENDING]
    assert [world.verdict(row) for row in rows] == [Kind.FIRED, Kind.FIRED, Kind.NO_NODE, None]
    world.check_law_1()


@promise()
def a_rescued_execution_may_still_be_retried_as_often_as_it_says(world: World) -> None:
    """A crash uses no attempt of `Retry`: the numbers of attempts go on where they were."""
    claim = world.claim(world.enqueue())
    world.finish(claim, Ending.RETRY)
    second = world.claim(claim.execution_id, node=DEAD)
    assert second.attempt == 2

    world.store.rescue([DEAD], T0, world.id)

    assert world.claim(claim.execution_id).attempt == 2
