"""Cancelling, trying again, deleting: what people do to executions."""

from __future__ import annotations

from ...model.execution import Ending, Kind, State
from ...model.filters import ExecutionFilter, JobFilter
from ...model.instants import MINUTE
from ...model.job import JobState
from ...model.schedule import Every
from ...model.strategies import All, Random
from ..protocol import Placement
from .ground import NODE, OTHER, T0, World, a_job, promise


@promise("OR11", "OR2")
def cancelling_is_final_at_once_and_asks_what_runs_to_stop(world: World) -> None:
    """One answer a row; a running one says which attempt on which node has to stop."""
    waiting, running = world.enqueue(), world.claim(world.enqueue())

    cancelled = world.store.cancel_executions(ExecutionFilter(), T0 + 5)

    assert {(gone.execution_id, gone.attempt_id, gone.node) for gone in cancelled} == {
        (waiting, None, None),
        (running.execution_id, running.attempt_id, NODE.id),
    }
    for execution in (waiting, running.execution_id):
        row = world.get(execution)
        assert (row.state, row.finished_at) == (State.CANCELLED, T0 + 5)
    assert world.ready(T0 + 5) == []
    assert list(world.store.cancel_executions(ExecutionFilter(), T0 + 6)) == []


@promise("OR13", "OR14")
def what_is_finished_is_never_cancelled(world: World) -> None:
    """A filter that names only finished states cancels nothing; one row for an execution with several attempts."""
    done, retried = world.enqueue(), world.claim(world.enqueue())
    world.run(done)
    world.finish(retried, Ending.RETRY)
    world.claim(retried.execution_id)

    assert list(world.store.cancel_executions(ExecutionFilter(states=State.SUCCEEDED), T0)) == []
    assert [gone.execution_id for gone in world.store.cancel_executions(ExecutionFilter(), T0)] == [
        retried.execution_id
    ]
    assert world.state(done) is State.SUCCEEDED


@promise()
def a_cancelled_time_has_the_verdict_of_what_came_first(world: World) -> None:
    """`cancelled` if it had not started, `fired` if it had."""
    record = world.put(a_job(overlap="allow"))
    waiting, started, retried = (world.fire(record, T0 + (index + 1) * MINUTE) for index in range(3))
    world.claim(started, T0 + 3 * MINUTE)
    world.finish(world.claim(retried, T0 + 3 * MINUTE), Ending.RETRY, T0 + 3 * MINUTE)

    world.store.cancel_executions(ExecutionFilter(jobs="report"), T0 + 4 * MINUTE)

    assert [world.verdict(row) for row in (waiting, started, retried)] == [Kind.CANCELLED, Kind.FIRED, Kind.FIRED]
    assert [world.get(row).occupies for row in (waiting, started, retried)] == [False, True, False]
    world.check_law_1()


@promise()
def what_failed_can_be_tried_again_now(world: World) -> None:
    """Failed, cancelled and expired ones get a new attempt; succeeded and unfinished ones are left alone."""
    rows = [world.enqueue() for _ in range(4)]
    world.run(rows[0], Ending.FAILED)
    world.run(rows[1])
    world.store.cancel_executions(ExecutionFilter(ids=rows[2]), T0)
    expired = world.enqueue(start_by=T0)
    world.start(expired, now=T0 + 1)

    again = world.store.retry_executions(ExecutionFilter(), T0 + MINUTE, world.id)

    assert sorted(again) == [rows[0], rows[2], expired]
    row = world.get(rows[0])
    assert (row.state, row.attempt, row.not_before, row.finished_at) == (State.PENDING, 2, T0 + MINUTE, None)
    assert row.attempt_id != rows[0]
    assert [(past.id, past.ending) for past in world.store.list_attempts(rows[0])] == [(rows[0], "failed")]
    started = world.start(*again, now=T0 + MINUTE)
    assert len(started.claims) == 3
    assert world.state(rows[1]) is State.SUCCEEDED


@promise()
def what_still_runs_is_not_tried_again(world: World) -> None:
    """A cancelled task that has not stopped yet would run twice at once."""
    claim = world.claim(world.enqueue())
    world.store.cancel_executions(ExecutionFilter(), T0)

    assert list(world.store.retry_executions(ExecutionFilter(), T0, world.id)) == []
    world.finish(claim, Ending.CANCELLED)
    assert list(world.store.retry_executions(ExecutionFilter(), T0, world.id)) == [claim.execution_id]


@promise()
def a_new_try_of_what_was_asked_to_stop_is_not_asked_to_stop(world: World) -> None:
    """The old cancel request does not reach the new attempt."""
    claim = world.claim(world.fire(world.put(), T0 + MINUTE), T0 + MINUTE)
    before = world.store.changes(-1).revision
    world.store.cancel_executions(ExecutionFilter(), T0 + MINUTE)
    world.finish(claim, Ending.CANCELLED, T0 + MINUTE)

    world.store.retry_executions(ExecutionFilter(), T0 + MINUTE, world.id)
    world.claim(claim.execution_id, T0 + MINUTE)

    assert list(world.store.changes(before).cancelled) == []


@promise()
def a_new_try_on_request_is_not_begun_beside_another_run_of_its_job(world: World) -> None:
    """It had left its place: the overlap policy decides once more."""
    record = world.put(a_job(overlap="buffer_all"))
    failed = world.fire(record, T0 + MINUTE)
    world.run(failed, Ending.FAILED, T0 + MINUTE)
    running = world.claim(world.fire(record, T0 + 2 * MINUTE), T0 + 2 * MINUTE)

    world.store.retry_executions(ExecutionFilter(), T0 + 2 * MINUTE, world.id)

    assert world.start(failed, now=T0 + 2 * MINUTE).held == [failed]
    world.finish(running, now=T0 + 3 * MINUTE)
    world.run(failed, now=T0 + 3 * MINUTE)
    world.check_law_1()


@promise()
def a_new_try_on_request_is_judged_by_the_overlap_policy_like_any_start(world: World) -> None:
    """It does not occupy its job before it starts: what comes first runs, and under `skip` the other does not."""
    for name, retry_first in (("first", True), ("second", False)):
        record = world.put(a_job(name, overlap="skip"))
        failed = world.fire(record, T0 + MINUTE)
        world.run(failed, Ending.FAILED, T0 + MINUTE)
        other = world.fire(record, T0 + 2 * MINUTE)
        world.store.retry_executions(ExecutionFilter(ids=failed), T0 + 2 * MINUTE, world.id)
        runs, comes_too_late = (failed, other) if retry_first else (other, failed)

        running = world.claim(runs, T0 + 2 * MINUTE)
        answer = world.start(comes_too_late, now=T0 + 2 * MINUTE)

        assert answer.claims == []
        assert [gone.execution_id for gone in answer.settled] == [comes_too_late]
        assert world.state(comes_too_late) is (State.SKIPPED if retry_first else State.CANCELLED)
        assert world.verdict(failed) is Kind.FIRED
        world.finish(running, now=T0 + 3 * MINUTE)
        world.check_law_1(name)


@promise()
def a_time_that_was_cancelled_and_is_tried_again_is_not_settled(world: World) -> None:
    """It waits again: its verdict comes when it starts."""
    execution = world.fire(world.put(), T0 + MINUTE)
    world.store.cancel_executions(ExecutionFilter(), T0 + MINUTE)

    world.store.retry_executions(ExecutionFilter(), T0 + 2 * MINUTE, world.id)

    assert world.verdict(execution) is None
    world.check_law_1()
    world.run(execution, now=T0 + 2 * MINUTE)
    assert world.verdict(execution) is Kind.FIRED
    world.check_law_1()


@promise()
def what_is_tried_again_must_not_take_a_key_that_is_taken(world: World) -> None:
    """A key stays unique among unfinished executions, among those tried again in one call too."""
    first = world.enqueue(key="k")
    world.run(first, Ending.FAILED)
    second = world.enqueue(key="k")
    world.run(second, Ending.FAILED)
    third = world.enqueue(key="k")

    assert list(world.store.retry_executions(ExecutionFilter(), T0, world.id)) == []
    world.run(third, Ending.FAILED)
    assert list(world.store.retry_executions(ExecutionFilter(), T0, world.id)) == [first]


@promise("QU5", "QU6")
def finished_executions_can_be_deleted_and_unfinished_ones_only_by_force(world: World) -> None:
    """With their attempts; deleting again is no error; what has not stopped yet counts as unfinished."""
    done, waiting, stopping = world.enqueue(), world.enqueue(), world.claim(world.enqueue())
    world.finish(world.claim(done), Ending.RETRY)
    world.run(done)
    world.store.cancel_executions(ExecutionFilter(ids=stopping.execution_id), T0)

    assert world.store.delete_executions(ExecutionFilter()) == 1
    assert world.store.delete_executions(ExecutionFilter()) == 0
    assert world.ids() == [waiting, stopping.execution_id]
    assert list(world.store.list_attempts(done)) == []
    assert world.store.delete_executions(ExecutionFilter(), force=True) == 2
    assert world.ids() == []
    assert world.finish(stopping).stale == {stopping.attempt_id}


@promise()
def a_deleted_execution_leaves_its_verdict(world: World) -> None:
    """Also under a schedule that the job no longer has, after its removal, and for one that waited."""
    record = world.put(a_job(overlap="allow"))
    rows = [world.fire(record, T0 + (index + 1) * MINUTE) for index in range(4)]
    world.run(rows[0], now=T0 + 4 * MINUTE)
    world.start(rows[1], now=T0 + 4 * MINUTE)
    world.put(a_job(overlap="allow", schedule=Every(minutes=7)), T0 + 4 * MINUTE)

    world.store.delete_executions(ExecutionFilter(ids=rows[:2]), force=True)
    world.check_law_1()
    world.store.delete_jobs(JobFilter(), T0 + 5 * MINUTE)
    world.store.delete_executions(ExecutionFilter(), force=True)

    assert world.ids() == []
    assert world.settled() == {1: "fired", 2: "fired", 3: "superseded", 4: "superseded"}
    world.check_law_1()


@promise()
def deleting_one_of_several_targets_leaves_the_time_accounted_for_once(world: World) -> None:
    """While another target's execution is there it stands for the time; the last one leaves a range."""
    record = world.put(a_job(run_on=All(), overlap="allow"))
    first = world.fire(record, T0 + MINUTE)
    second = world.id()
    world.store.place([Placement(first, [(NODE.id, first), (OTHER.id, second)])], T0 + MINUTE)
    world.run(first, now=T0 + MINUTE)

    world.store.delete_executions(ExecutionFilter(ids=first))
    world.check_law_1()
    world.store.delete_executions(ExecutionFilter(ids=second), force=True)

    assert list(world.settled()) == [1]
    world.check_law_1()
    placed = world.put(a_job("placed", run_on=Random()))
    only = world.fire(placed, T0 + MINUTE)
    world.store.place([Placement(only, [(NODE.id, only)])], T0 + MINUTE)
    world.run(only, now=T0 + MINUTE)
    world.store.delete_executions(ExecutionFilter(ids=only))
    assert world.settled("placed") == {1: "fired"}
    world.check_law_1("placed")


@promise("GS15")
def cancelling_by_job_holds_for_what_it_names_only(world: World) -> None:
    """The filter decides, and a job's state is not touched."""
    mine, other = world.put(a_job("mine")), world.put(a_job("other"))
    gone, kept = world.fire(mine, T0 + MINUTE), world.fire(other, T0 + MINUTE)

    world.store.cancel_executions(ExecutionFilter(jobs="mine"), T0 + MINUTE)

    assert (world.state(gone), world.state(kept)) == (State.CANCELLED, State.PENDING)
    assert world.job("mine").state is JobState.ACTIVE
