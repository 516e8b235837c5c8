"""Overlap: what becomes of an execution whose job is busy. It is decided inside `start`, and holds across processes."""

from __future__ import annotations

from typing import Any

from ...model.execution import Ending, Kind, State
from ...model.filters import ExecutionFilter, JobFilter
from ...model.instants import MINUTE
from ...model.job import JobState
from ...model.policies import Overlap
from .ground import NODE, OTHER, T0, World, a_job, promise

LATER = T0 + 9 * MINUTE


def fired(world: World, overlap: Overlap | str, count: int = 4, **options: Any) -> list[str]:
    """A job with this policy, and so many of its times fired."""
    record = world.put(a_job(overlap=overlap, **options))
    return [world.fire(record, T0 + (index + 1) * MINUTE) for index in range(count)]


@promise("QE34")
def skip_settles_what_comes_while_the_job_runs(world: World) -> None:
    """Verdict `overlap_skipped`; after the end the next one runs."""
    first, second, third, _ = fired(world, Overlap.SKIP)
    claim = world.claim(first, LATER)

    answer = world.start(second, now=LATER, node=OTHER.id)
    world.finish(claim, now=LATER)
    world.claim(third, LATER)

    assert [(gone.execution_id, gone.kind) for gone in answer.settled] == [(second, Kind.OVERLAP_SKIPPED)]
    assert (world.state(second), world.verdict(second)) == (State.SKIPPED, Kind.OVERLAP_SKIPPED)
    world.check_law_1()


@promise("QE34")
def within_one_batch_the_first_runs_and_the_others_overlap(world: World) -> None:
    """A batch is decided as if its executions had come one after another."""
    rows = fired(world, Overlap.SKIP)

    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert [claim.execution_id for claim in answer.claims] == rows[:1]
    assert [gone.execution_id for gone in answer.settled] == rows[1:]
    world.check_law_1()


@promise("QE35", "OR8")
def every_kind_of_end_frees_the_job(world: World) -> None:
    """Success, failure, cancellation: the next one runs. A job waiting for a retry or after a snooze is not free."""
    rows = fired(world, Overlap.SKIP, 5)
    for row, ending in zip(rows[:3], (Ending.SUCCEEDED, Ending.FAILED, Ending.CANCELLED), strict=True):
        world.run(row, ending, LATER)

    claim = world.claim(rows[3], LATER)
    world.finish(claim, Ending.SNOOZED, LATER, not_before=LATER + MINUTE)

    assert [gone.execution_id for gone in world.start(rows[4], now=LATER).settled] == [rows[4]]
    world.check_law_1()


@promise("QE35")
def an_execution_never_stands_in_the_way_of_its_own_retry(world: World) -> None:
    """The retry of what occupies the job starts."""
    (first,) = fired(world, Overlap.SKIP, 1)
    world.finish(world.claim(first, LATER), Ending.RETRY, LATER)

    assert world.claim(first, LATER).attempt == 2


@promise("QE35")
def what_was_asked_to_stop_occupies_its_job_until_it_has_stopped(world: World) -> None:
    """A cancelled execution is final at once, but its task may still run."""
    first, second, third, _ = fired(world, Overlap.SKIP)
    claim = world.claim(first, LATER)
    world.store.cancel_executions(ExecutionFilter(ids=first), LATER)

    assert [gone.execution_id for gone in world.start(second, now=LATER).settled] == [second]
    world.finish(claim, Ending.CANCELLED, LATER)
    world.claim(third, LATER)


@promise("QE36")
def allow_runs_them_beside_each_other(world: World) -> None:
    """As many as there are."""
    rows = fired(world, Overlap.ALLOW)

    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert [claim.execution_id for claim in answer.claims] == rows


@promise("QE36")
def max_running_is_how_many_run_before_overlap_decides(world: World) -> None:
    """Two of four at once; a manual run counts like any other."""
    rows = fired(world, Overlap.SKIP, 3, max_running=2)
    manual = world.manual(world.job(), LATER)

    answer = world.start(manual, *rows, now=LATER)

    assert [claim.execution_id for claim in answer.claims] == [manual, rows[0]]
    assert [gone.execution_id for gone in answer.settled] == rows[1:]


@promise("OR31")
def buffer_all_holds_them_and_lets_one_go_at_each_end(world: World) -> None:
    """In their order, in the transaction of the finish that makes room; never two at once."""
    rows = fired(world, Overlap.BUFFER_ALL)

    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert (answer.held, [world.state(row) for row in rows[1:]]) == (rows[1:], [State.HELD] * 3)
    assert world.ready(LATER) == []
    claim = answer.claims[0]
    for row in rows[1:]:
        finished = world.finish(claim, now=LATER)
        assert finished.ready == {"default": 1}
        assert world.ready(LATER) == [row]
        claim = world.claim(row, LATER)
    assert world.finish(claim, now=LATER).ready == {}
    assert {world.verdict(row) for row in rows} == {Kind.FIRED}
    world.check_law_1()


@promise("OR31")
def a_newcomer_does_not_overtake_what_is_held(world: World) -> None:
    """With room but others held before it, it waits behind them."""
    rows = fired(world, Overlap.BUFFER_ALL, 3)
    claim = world.claim(rows[0], LATER)
    world.start(rows[1], now=LATER)
    world.finish(claim, now=LATER)

    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert [claim.execution_id for claim in answer.claims] == [rows[1]]
    assert answer.held == [rows[2]]


@promise()
def buffer_one_keeps_the_first_that_waits(world: World) -> None:
    """Later ones are skipped while one is held."""
    rows = fired(world, Overlap.BUFFER_ONE)

    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert answer.held == [rows[1]]
    assert [gone.execution_id for gone in answer.settled] == rows[2:]
    world.finish(answer.claims[0], now=LATER)
    assert world.ready(LATER) == [rows[1]]
    world.check_law_1()


@promise()
def cancel_running_stops_what_runs_and_starts_when_it_has_stopped(world: World) -> None:
    """The running attempt is asked to stop, at its node too; the newcomer is held until it has."""
    first, second, _, _ = fired(world, Overlap.CANCEL_RUNNING)
    claim = world.claim(first, LATER)
    seen = world.store.changes(-1).revision

    answer = world.start(second, now=LATER, node=OTHER.id)

    assert (answer.cancelled, answer.held) == ([(first, first)], [second])
    assert list(world.store.changes(seen).cancelled) == [(first, first)]
    assert (world.state(first), world.verdict(first)) == (State.CANCELLED, Kind.FIRED)
    assert world.finish(claim, Ending.CANCELLED, LATER).ready == {"default": 1}
    world.claim(second, LATER, OTHER.id)
    world.check_law_1()


@promise()
def with_cancel_running_the_newest_takes_the_place_of_what_waits(world: World) -> None:
    """What was held is skipped for it, and what runs is asked to stop once."""
    first, second, third, _ = fired(world, Overlap.CANCEL_RUNNING)
    world.claim(first, LATER)
    world.start(second, now=LATER)

    answer = world.start(third, now=LATER)

    assert (answer.cancelled, answer.held) == ([], [third])
    assert [(gone.execution_id, gone.kind) for gone in answer.settled] == [(second, Kind.OVERLAP_SKIPPED)]
    assert world.state(second) is State.SKIPPED
    world.check_law_1()


@promise()
def cancel_running_in_one_batch_starts_the_first_and_holds_the_last(world: World) -> None:
    """What has been started a line before has not begun: it is first in line and is not cancelled."""
    rows = fired(world, Overlap.CANCEL_RUNNING)

    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert [claim.execution_id for claim in answer.claims] == rows[:1]
    assert (answer.held, answer.cancelled) == (rows[-1:], [])
    assert [gone.execution_id for gone in answer.settled] == rows[1:3]
    assert [world.state(row) for row in rows] == [State.RUNNING, State.SKIPPED, State.SKIPPED, State.HELD]
    world.check_law_1()


@promise()
def cancel_running_ends_a_waiting_retry_even_if_it_stands_in_the_same_batch(world: World) -> None:
    """What a batch has cancelled it does not start a line later."""
    first, second, _, _ = fired(world, Overlap.CANCEL_RUNNING)
    world.finish(world.claim(first, LATER), Ending.RETRY, LATER)

    answer = world.start(second, first, now=LATER)

    assert [claim.execution_id for claim in answer.claims] == [second]
    assert answer.refused == {first: "cancelled"}
    assert (world.state(first), world.get(first).occupies) == (State.CANCELLED, False)
    world.check_law_1()


@promise("GS15")
def what_is_held_ends_with_its_job(world: World) -> None:
    """Pausing, stopping and removing settle what overlap holds like all that waits."""
    for name, kind in (("paused", Kind.PAUSED), ("stopped", Kind.CANCELLED), ("removed", Kind.REMOVED)):
        record = world.put(a_job(name, overlap="buffer_all"))
        first, second = world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE)
        claim = world.claim(first, LATER)
        world.start(second, now=LATER)

        if name == "removed":
            world.store.delete_jobs(JobFilter(names=name), LATER)
        else:
            world.store.set_job_state(JobFilter(names=name), JobState(name), LATER)

        assert world.verdict(second) is kind
        assert world.finish(claim, now=LATER).ready == {}
        world.check_law_1(name)


@promise()
def what_is_held_is_let_go_when_what_ran_is_cancelled_deleted_or_lost(world: World) -> None:
    """Whatever makes room frees what waits for it, in the same transaction."""

    def held(name: str, node: str = NODE.id) -> tuple[str, str]:
        record = world.put(a_job(name, overlap="buffer_one", recovery="fail"))
        first, second = world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE)
        world.claim(first, LATER, node)
        world.start(second, now=LATER)
        assert world.state(second) is State.HELD
        return first, second

    retried, after_retry = held("retried")
    world.store.finish([world.outcome(world.claim(retried, LATER), Ending.RETRY, LATER)], LATER)
    assert world.state(after_retry) is State.HELD
    world.store.cancel_executions(ExecutionFilter(ids=retried), LATER)
    assert world.state(after_retry) is State.PENDING

    deleted, after_delete = held("deleted")
    world.store.delete_executions(ExecutionFilter(ids=deleted), force=True)
    assert world.state(after_delete) is State.PENDING

    _, after_loss = held("lost", "a-dead-node")
    assert world.store.rescue(["a-dead-node"], LATER, world.id).ready == {"default": 1}
    assert world.state(after_loss) is State.PENDING
    world.check_law_1("retried", "deleted", "lost")


@promise("QE9")
def what_is_held_is_judged_anew_when_its_jobs_policy_changes(world: World) -> None:
    """A redeploy to another policy leaves nothing held for ever."""
    rows = fired(world, Overlap.BUFFER_ALL, 3)
    claim = world.claim(rows[0], LATER)
    world.start(*rows[1:], now=LATER)

    world.put(a_job(overlap="allow"), LATER)
    answer = world.store.start(NODE.id, LATER, free={"default": 9})

    assert [started.execution_id for started in answer.claims] == rows[1:]
    world.finish(claim, now=LATER)
    world.check_law_1()


@promise()
def what_is_held_is_let_go_when_what_was_let_go_before_it_ends_without_starting(world: World) -> None:
    """Coalesced, missed, cancelled, deleted or paused on its way to a slot: the next in line takes its turn."""

    def let_go(name: str) -> tuple[str, str]:
        record = world.put(a_job(name, overlap="buffer_all", start_by=3600))
        rows = [world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE), world.manual(record, T0)]
        claim = world.claim(rows[0], LATER)
        world.start(*rows[1:], now=LATER)
        world.finish(claim, now=LATER)
        assert [world.state(row) for row in rows[1:]] == [State.PENDING, State.HELD], name
        return rows[1], rows[2]

    cancelled = let_go("cancelled")
    world.store.cancel_executions(ExecutionFilter(ids=cancelled[0]), LATER)
    assert world.state(cancelled[1]) is State.PENDING
    deleted = let_go("deleted")
    world.store.delete_executions(ExecutionFilter(ids=deleted[0]), force=True)
    assert world.state(deleted[1]) is State.PENDING
    expired = let_go("expired")
    assert len(world.start(expired[0], now=LATER + 100 * MINUTE).settled) == 1
    assert world.state(expired[1]) is State.PENDING
    coalesced = let_go("coalesced")
    world.fire(world.job("coalesced"), T0 + 3 * MINUTE, coalesce_before=T0 + 3 * MINUTE)
    assert world.state(coalesced[1]) is State.PENDING
    paused = let_go("paused")
    world.store.set_job_state(JobFilter(names="paused"), JobState.PAUSED, LATER)
    assert world.state(paused[1]) is State.PENDING
