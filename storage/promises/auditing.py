"""Promises on what auditors read: in bounded steps, all of it, whatever the size of a step."""

from __future__ import annotations

from ...model.execution import Ending, Range, State
from ...model.filters import JobFilter
from ...model.instants import MINUTE
from ...model.job import JobState
from ..protocol import Account, Mark, Standing
from ..verifying import verify_store
from .ground import T0, World, a_job, promise


@promise()
def jobs_are_walked_by_id_those_removed_too(world: World) -> None:
    """Each with the spans of its life, its horizon and cursor, and what occupies it."""
    first, second = world.put(a_job("one")), world.put(a_job("two"))
    running = world.fire(second, T0 + MINUTE)
    world.claim(running, T0 + MINUTE)
    world.store.delete_jobs(JobFilter(names="one"), T0 + 2 * MINUTE)
    third = world.put(a_job("one"), T0 + 3 * MINUTE)

    seen: list[Standing] = []
    while page := world.store.standings(seen[-1].id if seen else "", 2):
        assert len(page) <= 2
        seen += page

    assert [(each.id, each.name, each.removed) for each in seen] == sorted(
        [(first.id, "one", True), (second.id, "two", False), (third.id, "one", False)]
    )
    by_id = {each.id: each for each in seen}
    assert by_id[first.id].record is None
    assert [epoch.until for epoch in by_id[first.id].epochs] == [T0 + 2 * MINUTE]
    assert by_id[second.id].record == world.job("two")
    assert (by_id[second.id].horizon, by_id[second.id].cursor) == (T0, T0 + MINUTE)
    assert [row.id for row in by_id[second.id].occupying] == [running]


@promise()
def whoever_only_looks_at_a_store_may_give_it_commands_and_is_no_node(world: World) -> None:
    """They are there for the store's own node when the looking is over, and it was registered all the while."""
    record = world.put()
    nodes = [node.id for node in world.store.nodes()]
    visitor = world.make.again(world.store)

    with visitor.looking():
        assert [node.id for node in visitor.nodes()] == nodes
        assert len(visitor.set_job_state(JobFilter(names=record.name), JobState.PAUSED, T0)) == 1
        visitor.add_executions([manual := world.new(due_at=T0)], T0)

    assert world.job().state is JobState.PAUSED
    assert world.state(manual.id) is State.PENDING
    assert [node.id for node in world.store.nodes()] == nodes


@promise()
def a_ledger_is_read_in_stretches_that_add_up_to_the_whole(world: World) -> None:
    """Every execution in one stretch, every range in those that it touches, about as many at a time as asked for."""
    record = world.put(a_job(overlap="allow"))
    for minute in (1, 2, 5, 6, 7, 12, 13, 20):
        world.fire(record, T0 + minute * MINUTE)
    (page,) = world.store.verdicts("report", T0, T0 + 100 * MINUTE)

    for limit in (1, 2, 5, 100):
        stretches: list[Account] = []
        start: int | None = 0
        while start is not None:
            stretches.append(world.store.account(record.id, "report", start, limit))
            start = stretches[-1].end

        marks: list[Mark] = [mark for stretch in stretches for mark in stretch.page.marks]
        ranges: set[Range] = {span for stretch in stretches for span in stretch.page.ranges}
        assert marks == list(page.marks)
        assert sorted(ranges, key=lambda span: span.start) == list(page.ranges)
        assert all(stretch.page.epochs == page.epochs for stretch in stretches)
        assert all(len(stretch.page.marks) <= limit for stretch in stretches)


@promise()
def executions_are_walked_by_id_with_their_attempts(world: World) -> None:
    """Finished ones, waiting ones, of jobs and without."""
    claim = world.claim(world.enqueue())
    world.finish(claim, Ending.RETRY)
    world.fire(world.put(), T0 + MINUTE)
    rows = [world.enqueue() for _ in range(3)]
    world.run(rows[0])

    seen: list[tuple[str, int]] = []
    after: str | None = ""
    while after is not None:
        page = world.store.lives(after, 2)
        assert len(page.items) <= 2
        seen += [(life.execution.id, len(life.past)) for life in page.items]
        after = page.last

    assert seen == [(row_id, int(row_id == claim.execution_id)) for row_id in sorted(world.ids())]


@promise()
def a_sound_store_is_found_sound(world: World) -> None:
    """By the auditor of all laws."""
    record = world.put()
    world.run(world.fire(record, T0 + 3 * MINUTE), now=T0 + 3 * MINUTE)
    world.fire(record, T0 + 4 * MINUTE)
    claim = world.claim(world.enqueue())
    world.finish(claim, Ending.SNOOZED)

    report = verify_store(world.store, chunk=2)

    assert report.ok, str(report)
    assert (report.jobs, report.executions) == (1, 3)
