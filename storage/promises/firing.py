"""Firing: the cursor is compared and advanced, what is passed over is settled, what runs is inserted, all at once."""

from __future__ import annotations

from attrs import evolve

from ...model.errors import StoreError
from ...model.execution import Cause, Ending, Kind, State
from ...model.filters import JobFilter
from ...model.instants import MINUTE, SECOND, to_datetime
from ...model.job import JobState
from ...model.schedule import Every, Once
from ...model.strategies import All
from ..protocol import Fire, Settle
from .ground import T0, World, a_job, promise, raises

REPORT = JobFilter(names="report")


@promise("QE1", "GS15")
def a_fire_inserts_the_execution_and_moves_the_cursor(world: World) -> None:
    """One transaction: an unsettled execution with the job's work, and a cursor at its nominal time."""
    record = world.put(a_job(priority=4, queue="mail", labels={"tenant": "acme"}, start_by=10))
    fire = world.fire_of(record, T0 + MINUTE, due_at=T0 + MINUTE + 7)

    answer = world.fires([fire], T0 + MINUTE + 3)

    assert (answer.applied, answer.refused, answer.stopped, answer.settled) == ([record.id], {}, [], [])
    row = world.get(fire.execution_id)
    assert row.work == record.job.work
    assert (row.state, row.cause, row.verdict, row.occupies) == (State.PENDING, Cause.SCHEDULE, None, False)
    assert (row.job_id, row.job_name, row.generation) == (record.id, "report", 1)
    assert (row.nominal, row.due_at, row.not_before) == (T0 + MINUTE, T0 + MINUTE + 7, T0 + MINUTE + 7)
    assert (row.created_at, row.start_by) == (T0 + MINUTE + 3, T0 + MINUTE + 7 + 10 * SECOND)
    assert (row.attempt, row.attempt_id, row.target, row.node) == (1, row.id, "", None)
    after = world.job()
    assert (after.cursor, after.fired, after.generation, after.revision) == (T0 + MINUTE, 1, 1, record.revision)
    assert world.settled() == {1: "waiting"}
    world.check_law_1()


@promise("QE20")
def a_fire_whose_answer_was_lost_may_be_repeated(world: World) -> None:
    """The same id is applied once and answered as applied again: never a second execution."""
    record = world.put()
    fire = world.fire_of(record, T0 + MINUTE)
    world.fires([fire], T0 + MINUTE)

    again = world.fires([fire], T0 + 2 * MINUTE)

    assert (again.applied, again.refused) == ([record.id], {})
    assert world.ids() == [fire.execution_id]
    assert (world.job().cursor, world.job().fired) == (T0 + MINUTE, 1)


@promise("QE20", "QE24", "JQ14")
def a_fire_from_another_cursor_is_refused_with_the_job_as_it_stands(world: World) -> None:
    """Two schedulers that fire the same time: one wins, the other learns the cursor."""
    record = world.put()
    mine, theirs = world.fire_of(record, T0 + MINUTE), world.fire_of(record, T0 + MINUTE)
    world.fires([theirs], T0 + MINUTE)

    answer = world.fires([mine], T0 + MINUTE)

    assert answer.applied == []
    refusal = answer.refused[record.id]
    assert (refusal.why, refusal.record and refusal.record.cursor) == ("moved", T0 + MINUTE)
    assert world.ids() == [theirs.execution_id]


@promise("QE20", "JQ14")
def of_several_that_fire_the_same_time_at_the_same_moment_one_does(world: World) -> None:
    """The others learn the cursor."""
    record = world.put()
    fires = [world.fire_of(record, T0 + MINUTE) for _ in range(8)]

    answers = world.at_once(lambda store, number: store.fire([fires[number]], T0 + MINUTE))

    assert sorted(len(answer.applied) for answer in answers) == [0] * 7 + [1]
    assert {refusal.why for answer in answers for refusal in answer.refused.values()} == {"moved"}
    assert len(world.ids()) == 1
    assert world.job().cursor == T0 + MINUTE
    world.check_law_1()


@promise("QE9", "GS15")
def a_fire_of_an_old_generation_is_refused(world: World) -> None:
    """After a redeploy is acknowledged nothing of the old definition fires."""
    record = world.put()
    fire = world.fire_of(record, T0 + MINUTE)
    world.put(a_job(priority=1))

    refusal = world.fires([fire], T0 + MINUTE).refused[record.id]

    assert (refusal.why, refusal.record and refusal.record.generation) == ("moved", 2)
    assert world.ids() == []


@promise("QE7", "QE10", "OR16", "GS15")
def a_fire_of_a_job_that_is_gone_paused_or_stopped_is_refused(world: World) -> None:
    """Whatever was on its way: `gone` without a record, `inactive` with it, and nothing is inserted."""
    names = ("removed", "paused", "stopped")
    records = [world.put(a_job(name)) for name in names]
    fires = [world.fire_of(record, T0 + MINUTE) for record in records]
    world.store.delete_jobs(JobFilter(names="removed"), T0)
    world.store.set_job_state(JobFilter(names="paused"), JobState.PAUSED, T0)
    world.store.set_job_state(JobFilter(names="stopped"), JobState.STOPPED, T0)

    refused = world.fires(fires, T0 + MINUTE).refused

    assert [refused[record.id].why for record in records] == ["gone", "inactive", "inactive"]
    assert refused[records[0].id].record is None
    assert world.ids() == []


@promise("QE19", "QE33")
def each_fire_of_a_batch_stands_for_itself(world: World) -> None:
    """One that is refused does not hold up the others; executions keep the order of the batch."""
    records = [world.put(a_job(name)) for name in ("a", "b", "c")]
    fires = [world.fire_of(record, T0 + MINUTE) for record in records]
    fires[1].cursor -= 1

    answer = world.fires(fires, T0 + MINUTE)

    assert answer.applied == [records[0].id, records[2].id]
    assert list(answer.refused) == [records[1].id]
    assert world.ready(T0 + MINUTE) == [fires[0].execution_id, fires[2].execution_id]


@promise("QE17", "OR31")
def several_fires_of_one_job_are_applied_in_their_order_and_repeated_as_one(world: World) -> None:
    """A batch may fire one time of a job after another; its repeat gives the same answer."""
    record = world.put(a_job(overlap="allow"))
    first = world.fire_of(record, T0 + MINUTE)
    second = world.fire_of(evolve(record, cursor=T0 + MINUTE), T0 + 2 * MINUTE)

    answers = [world.fires([first, second], T0 + 2 * MINUTE) for _ in range(2)]

    assert [(answer.applied, answer.refused) for answer in answers] == [([record.id] * 2, {})] * 2
    assert world.ids() == [first.execution_id, second.execution_id]
    assert (world.job().cursor, world.job().fired) == (T0 + 2 * MINUTE, 2)
    world.check_law_1()


@promise("QE18", "QE19")
def a_fire_settles_what_it_passes_over(world: World) -> None:
    """Times that do not run get their verdict with the fire, or with a fire that runs nothing at all."""
    record = world.put()
    missed = Settle(Kind.MISSED, T0 + 1, T0 + 3 * MINUTE, "later than its window")
    nothing = Fire(record.id, 1, T0, T0 + 2 * MINUTE + 1, settled=[evolve(missed, end=T0 + 2 * MINUTE + 1)])

    answer = world.fires([nothing], T0 + 5 * MINUTE)
    execution = world.fire(record, T0 + 5 * MINUTE)

    assert answer.applied == [record.id]
    assert world.ids() == [execution]
    assert world.job().fired == 1
    assert world.settled() == {1: "missed", 2: "missed", 3: "coalesced", 4: "coalesced", 5: "waiting"}
    (page,) = world.store.verdicts("report", T0, T0 + 10 * MINUTE)
    assert page.ranges[0].reason == "later than its window"
    world.check_law_1()


@promise()
def excluded_times_are_settled_as_such(world: World) -> None:
    """An `excluded` range counts for the excluded times only, and another range for the others."""
    record = world.put(a_job(schedule=Every(minutes=1) - Once(to_datetime(T0 + 2 * MINUTE))))

    world.fire(record, T0 + 4 * MINUTE)

    assert world.settled() == {1: "coalesced", 2: "excluded", 3: "coalesced", 4: "waiting"}
    world.check_law_1()


@promise("QE19")
def a_fire_may_coalesce_executions_that_still_wait(world: World) -> None:
    """Unstarted scheduled executions of earlier times are `coalesced`; what has started, or is manual, is not."""
    record = world.put(a_job(overlap="allow"))
    waiting = world.fire(record, T0 + MINUTE)
    retried = world.claim(world.fire(record, T0 + 2 * MINUTE), T0 + 2 * MINUTE)
    world.finish(retried, Ending.RETRY, T0 + 2 * MINUTE)
    manual = world.manual(record, T0 + 2 * MINUTE)
    fire = world.fire_of(world.job(), T0 + 3 * MINUTE, coalesce_before=T0 + 3 * MINUTE)

    answer = world.fires([fire], T0 + 3 * MINUTE)

    assert [(gone.execution_id, gone.kind, gone.nominal) for gone in answer.settled] == [
        (waiting, Kind.COALESCED, T0 + MINUTE)
    ]
    assert (world.state(waiting), world.verdict(waiting)) == (State.SKIPPED, Kind.COALESCED)
    assert world.get(waiting).finished_at == T0 + 3 * MINUTE
    assert set(world.ready(T0 + 3 * MINUTE)) == {manual, retried.execution_id, fire.execution_id}
    world.check_law_1()


@promise("OR17", "OR31")
def a_fire_alone_is_refused_while_its_job_is_busy(world: World) -> None:
    """`alone`: one unfinished execution, waiting, running, or asked to stop, is `busy`; afterwards it is applied."""
    record = world.put()
    first = world.fire(record, T0 + MINUTE)

    def why() -> str:
        answer = world.fires([world.fire_of(world.job(), T0 + 2 * MINUTE, alone=True)], T0 + 2 * MINUTE)
        return answer.refused[record.id].why if answer.refused else "applied"

    assert why() == "busy"
    claim = world.claim(first, T0 + 2 * MINUTE)
    assert why() == "busy"
    world.finish(claim, Ending.RETRY, T0 + 2 * MINUTE)
    assert why() == "busy"
    world.run(first, now=T0 + 2 * MINUTE)
    assert why() == "applied"


@promise()
def a_job_that_has_fired_as_often_as_its_limit_is_stopped_by_the_fire(world: World) -> None:
    """State, reason and revision change in the fire's transaction; what it fired still runs."""
    record = world.put(a_job(limit=2))
    world.fire(record, T0 + MINUTE)
    assert world.job().state is JobState.ACTIVE
    world.run(world.ids()[0], now=T0 + MINUTE)
    fire = world.fire_of(world.job(), T0 + 2 * MINUTE)
    seen = world.store.changes(-1).revision

    answer = world.fires([fire], T0 + 2 * MINUTE)

    assert answer.stopped == [record.id]
    after = world.job()
    assert (after.state, after.reason, after.fired) == (JobState.STOPPED, "limit", 2)
    assert [job.id for job in world.store.changes(seen).jobs] == [record.id]
    assert world.fires([fire], T0 + 2 * MINUTE).stopped == [record.id]
    world.run(fire.execution_id, now=T0 + 2 * MINUTE)
    world.check_law_1()


@promise("OR32")
def a_fire_that_finishes_the_schedule_stops_the_job_as_exhausted(world: World) -> None:
    """The last time of a schedule still runs; the job is finished."""
    record = world.put(a_job(schedule=Once(to_datetime(T0 + MINUTE))))

    execution = world.fire(record, T0 + MINUTE, finishes=True)

    assert (world.job().state, world.job().reason) == (JobState.STOPPED, "exhausted")
    world.run(execution, now=T0 + MINUTE)
    assert world.settled() == {1: "fired"}
    assert [epoch.until for epoch in world.store.verdicts("report", T0, T0 + MINUTE)[0].epochs] == [T0 + MINUTE]
    world.check_law_1()


@promise("QE20")
def one_nominal_time_of_a_job_has_one_execution_for_a_target(world: World) -> None:
    """A second one is refused by the store itself, whatever the cursor says, and nothing of the call is kept."""
    record, other = world.put(), world.put(a_job("other"))
    world.fire(record, T0 + MINUTE)
    wrong = world.fire_of(world.job(), T0 + MINUTE, settled=(), to=T0 + 2 * MINUTE)

    with raises(StoreError):
        world.fires([world.fire_of(other, T0 + MINUTE), wrong], T0 + 2 * MINUTE)

    assert len(world.ids()) == 1
    assert world.job().cursor == T0 + MINUTE
    assert world.job("other").cursor == T0


@promise("OR7", "OR8")
def a_job_that_fires_alone_waits_for_the_end_of_its_execution(world: World) -> None:
    """It is due no more at what has fired, is refused as busy at the next, and free again however that one ends."""
    record = world.put()

    for minute, ending in enumerate((Ending.SUCCEEDED, Ending.FAILED, Ending.CANCELLED), start=1):
        nominal = T0 + minute * MINUTE
        execution = world.fire(record, nominal, alone=True)
        too_early = world.fires([world.fire_of(world.job(), nominal + MINUTE, alone=True)], nominal + MINUTE)
        assert too_early.refused[record.id].why == "busy"
        assert world.job().cursor == nominal
        world.run(execution, ending, nominal + MINUTE)

    assert world.settled() == {1: "fired", 2: "fired", 3: "fired"}
    assert world.fire(record, T0 + 4 * MINUTE, alone=True)


@promise("QE17")
def the_last_execution_date_is_the_latest_time_that_fired(world: World) -> None:
    """Over all jobs; settling alone does not move it."""
    first, second = world.put(a_job("a")), world.put(a_job("b"))
    world.fire(first, T0 + 5 * MINUTE)
    world.fire(second, T0 + MINUTE)
    world.fires([Fire(second.id, 1, T0 + MINUTE, T0 + 9 * MINUTE)], T0 + 9 * MINUTE)

    assert world.store.last_execution_date() == T0 + 5 * MINUTE


@promise("QE49")
def a_fire_of_a_job_with_a_run_strategy_waits_for_the_node_selector(world: World) -> None:
    """It is `placing`: not ready, not startable, listed as unplaced when it is due."""
    record = world.put(a_job(run_on=All()))

    execution = world.fire(record, T0 + MINUTE)

    assert world.state(execution) is State.PLACING
    assert world.ready(T0 + MINUTE) == []
    assert world.start(execution, now=T0 + MINUTE).refused == {execution: "placing"}
    assert [row.id for row in world.store.unplaced(T0 + MINUTE, 10)] == [execution]
    assert list(world.store.unplaced(T0 + MINUTE - 1, 10)) == []
