"""Definitions: put, redeploy, states, removal, purge, and what each settles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ...model.execution import Cause, Ending, Kind, State
from ...model.filters import JobFilter
from ...model.instants import HOUR, MINUTE, SECOND, to_datetime
from ...model.job import JobRecord, JobState
from ...model.policies import Misfire, Overlap, Retry
from ...model.schedule import Every, Once, Reboot
from ...model.strategies import NodeList
from ..protocol import NewJob
from .ground import T0, World, a_job, promise

REPORT = JobFilter(names="report")


# ---- loading and keeping


def _loaded(world: World) -> list[JobRecord] | None:
    records = world.store.load_jobs()
    return None if records is None else list(records)


@promise("QS1", "QS9")
def a_fresh_store_has_no_jobs_and_no_last_execution_date(world: World) -> None:
    """Never written: `load_jobs` gives None, which an empty list is not."""
    assert world.store.load_jobs() is None
    assert world.store.last_execution_date() is None
    assert list(world.store.list_jobs().items) == []
    assert world.store.count_jobs() == 0


@promise("QS2")
def a_store_whose_jobs_are_deleted_has_an_empty_list(world: World) -> None:
    """Once written, an empty list is a list, after a restart too."""
    world.put()
    world.store.delete_jobs(REPORT, T0)

    assert _loaded(world) == []
    world.reopen()
    assert _loaded(world) == []


@promise("QS3")
def a_purged_store_is_as_if_never_written(world: World) -> None:
    """Jobs and the last execution date are forgotten; executions stay unless they are asked for."""
    world.put()
    world.store.set_last_execution_date(T0)
    enqueued = world.enqueue()

    world.store.purge()

    assert world.store.load_jobs() is None
    assert world.store.last_execution_date() is None
    assert world.ids() == [enqueued]
    world.store.purge(include_executions=True)
    assert world.ids() == []


@promise()
def a_purge_ends_the_waiting_work_of_its_jobs(world: World) -> None:
    """What was due for a job that is purged never starts."""
    record = world.put()
    execution = world.fire(record, T0 + MINUTE)

    world.store.purge()

    assert (world.state(execution), world.verdict(execution)) == (State.SKIPPED, Kind.REMOVED)
    assert world.store.start("node-a", T0 + MINUTE, free={"default": 5}).claims == []


@promise("QS4")
def every_field_of_a_job_comes_back_after_reopening(world: World) -> None:
    """Active and paused jobs come back equal, each field of the definition and of the record."""
    full = a_job(
        "full",
        schedule=Every(seconds=90) | Once(to_datetime(T0 + HOUR)),
        args={"user": 7, "name": "Zoë \U0001f570"},
        misfire=Misfire("all", window=60, limit=3, grace=2.5),
        overlap=Overlap.BUFFER_ONE,
        max_running=2,
        retry=Retry(5, backoff=1.5, factor=3, max_backoff=90, jitter=0.25, on=(ValueError,), give_up_on="a.B"),
        timeout=timedelta(microseconds=1_000_001),
        timeout_from="nominal",
        start_by=30,
        recovery="fail",
        recoveries=1,
        on_lease_lost="cancel",
        queue="mail",
        priority=-(2**31) + 1,
        labels={"tenant": "acme", "ünï": ""},
        jitter=0.5,
        limit=9,
        run_on=NodeList(["a", "b"]),
        immediate=True,
    )
    paused = a_job("paused", schedule=Reboot(), paused=True, priority=2**31 - 1)
    manual = a_job("manual", schedule=None)
    records = [world.put(full, declared=True), world.put(paused), world.put(manual)]

    world.reopen()

    assert _loaded(world) == records
    assert records[0].job == full
    assert records[1].state is JobState.PAUSED


@promise()
def a_new_job_that_says_so_runs_at_once_and_only_then(world: World) -> None:
    """One execution without a nominal time, added with the job; not when it is put again or resumed."""
    record = world.put(a_job(immediate=True, labels={"tenant": "acme"}, start_by=60))

    (first,) = (world.get(execution) for execution in world.ids())
    assert (first.cause, first.nominal, first.due_at) == (Cause.IMMEDIATE, None, T0)
    assert (first.job_id, first.start_by, first.work.labels) == (record.id, T0 + MINUTE, (("tenant", "acme"),))
    assert world.ready() == [first.id]

    world.store.put_jobs([NewJob(record.id, a_job(immediate=True, labels={"tenant": "acme"}, start_by=60))], T0)
    world.put(a_job(immediate=True, schedule=Every(hours=1)))
    world.store.set_job_state(REPORT, JobState.PAUSED, T0)
    world.store.set_job_state(REPORT, JobState.ACTIVE, T0)
    world.put(a_job("paused", immediate=True, paused=True))
    world.put(a_job("over", immediate=True, schedule=Once(to_datetime(T0 - HOUR))), declared=True)

    assert world.ids() == [first.id]
    world.run(first.id)
    world.check_law_1("report")
    world.store.set_job_state(REPORT, JobState.STOPPED, T0)
    again = world.put(a_job(immediate=True))
    assert world.ids() == [first.id, again.id]  # a new life begins as the first did


@promise("QE33")
def jobs_load_in_the_order_of_their_ids(world: World) -> None:
    """The order in which jobs were added is the order in which they are loaded, always."""
    for name in ("c", "a", "b"):
        world.put(a_job(name))

    assert [record.name for record in world.store.load_jobs() or []] == ["c", "a", "b"]


@promise("QS10", "QS11")
def the_last_execution_date_never_goes_back(world: World) -> None:
    """It keeps microseconds, survives a restart, and only grows."""
    world.store.set_last_execution_date(T0 + 1)
    world.store.set_last_execution_date(T0 - MINUTE)

    world.reopen()

    assert world.store.last_execution_date() == T0 + 1
    assert to_datetime(T0 + 1).tzinfo is UTC
    record = world.put()
    world.fire(record, T0 + MINUTE)
    assert world.store.last_execution_date() == T0 + MINUTE


@promise("QS11")
def times_are_kept_to_the_microsecond_from_1970_to_9998(world: World) -> None:
    """Instants are whole microseconds, at both ends of the calendar too, negative ones included."""
    last = (datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )
    rows = {world.enqueue(due_at=at): at for at in (-1, 0, 1, T0 + 1, last)}

    world.reopen()

    assert {row: world.get(row).due_at for row in rows} == rows
    assert {row: world.get(row).not_before for row in rows} == rows


# ---- put: the redeploy rules


@promise("QS5")
def an_equal_definition_is_no_change(world: World) -> None:
    """Putting what is there keeps id, generation, revision and cursor, whatever id the call brings."""
    record = world.put()

    change = world.change(a_job(), T0 + HOUR)

    assert (change.change, change.settled) == ("unchanged", 0)
    assert change.record == record
    assert world.job() == record


@promise("QS5", "QE9")
def another_definition_with_the_same_schedule_is_one_generation_more(world: World) -> None:
    """One row, one call; cursor, anchor and waiting work are kept, and what waits runs the new definition."""
    record = world.put()
    execution = world.fire(record, T0 + MINUTE)

    change = world.change(a_job(task="reports.make_better", args={"v": 2}, queue="big"), T0 + 90 * SECOND)

    assert (change.change, change.settled) == ("updated", 0)
    after = change.record
    assert (after.id, after.generation, after.schedule_generation) == (record.id, 2, 1)
    assert (after.cursor, after.anchor, after.created_at) == (T0 + MINUTE, T0, T0)
    assert after.revision > record.revision
    assert after.updated_at == T0 + 90 * SECOND
    assert world.store.count_jobs() == 1
    started = world.store.start("node-a", T0 + 2 * MINUTE, free={"big": 1}, tasks={"reports.make_better"})
    assert [(claim.execution_id, claim.work.task, claim.work.args) for claim in started.claims] == [
        (execution, "reports.make_better", '{"v":2}')
    ]
    world.check_law_1()


@promise("QS5", "QS6", "QE9")
def another_schedule_counts_from_now_and_supersedes_what_waits(world: World) -> None:
    """Times up to now are settled, unstarted work is `superseded`, and no old time fires after it."""
    record = world.put()
    execution = world.fire(record, T0 + MINUTE)
    now = T0 + 3 * MINUTE + 30 * SECOND

    change = world.change(a_job(schedule=Every(minutes=5)), now)

    assert (change.change, change.settled) == ("rescheduled", 1)
    after = change.record
    assert (after.id, after.generation, after.schedule_generation) == (record.id, 2, 2)
    assert (after.cursor, after.anchor) == (now, now)
    assert (world.state(execution), world.verdict(execution)) == (State.SKIPPED, Kind.SUPERSEDED)
    assert world.settled() == {1: "superseded", 2: "superseded", 3: "superseded"}
    assert world.start(execution, now=now).claims == []
    world.check_law_1()


@promise("QS5")
def running_work_outlives_another_schedule(world: World) -> None:
    """What had started is not superseded: its attempt goes on and its outcome counts."""
    claim = world.claim(world.fire(world.put(), T0 + MINUTE), T0 + MINUTE)

    world.put(a_job(schedule=Every(minutes=5)), T0 + 2 * MINUTE)
    answer = world.finish(claim, now=T0 + 3 * MINUTE)

    assert answer.applied == {claim.attempt_id}
    assert world.verdict(claim.execution_id) is Kind.FIRED
    world.check_law_1()


@promise("QS5")
def a_job_that_gets_a_schedule_or_loses_it_is_rescheduled(world: World) -> None:
    """From manual to scheduled and back: the times between have their verdicts."""
    world.put(a_job(schedule=None))

    world.put(a_job(), T0 + MINUTE)
    change = world.change(a_job(schedule=None), T0 + 3 * MINUTE)

    assert change.change == "rescheduled"
    assert world.settled() == {2: "superseded", 3: "superseded"}
    world.check_law_1()


@promise("QE10", "QE11")
def add_job_says_the_state_and_a_declaration_keeps_it(world: World) -> None:
    """A run-time definition pauses and resumes; what code declares leaves the stored state alone."""
    world.put()

    paused = world.change(a_job(paused=True), T0 + MINUTE)
    declared = world.change(a_job(), T0 + 2 * MINUTE, declared=True)
    kept = declared.record.state
    resumed = world.change(a_job(), T0 + 3 * MINUTE)

    assert (paused.change, paused.before, paused.record.state) == ("updated", JobState.ACTIVE, JobState.PAUSED)
    assert (declared.change, kept, declared.record.declared) == ("unchanged", JobState.PAUSED, True)
    assert (resumed.change, resumed.before, resumed.record.state) == ("updated", JobState.PAUSED, JobState.ACTIVE)
    assert resumed.record.generation == 1
    world.check_law_1()


@promise("QE10")
def replacing_an_active_job_by_a_paused_one_settles_what_waits(world: World) -> None:
    """Nothing fires and nothing starts after it."""
    record = world.put()
    execution = world.fire(record, T0 + MINUTE)

    change = world.change(a_job(paused=True, priority=3), T0 + 90 * SECOND)

    assert (change.change, change.settled, change.record.state) == ("updated", 1, JobState.PAUSED)
    assert world.verdict(execution) is Kind.PAUSED
    refused = world.fires([world.fire_of(world.job(), T0 + 2 * MINUTE)], T0 + 2 * MINUTE).refused
    assert refused[record.id].why == "inactive"


@promise("QE22")
def a_stopped_job_that_gets_another_definition_begins_a_new_life(world: World) -> None:
    """It has a new id and counts from now; the old life keeps its verdicts."""
    old = world.put()
    world.store.set_job_state(REPORT, JobState.STOPPED, T0 + MINUTE)

    change = world.change(a_job(priority=1), T0 + 10 * MINUTE)

    assert (change.change, change.before) == ("added", JobState.STOPPED)
    new = change.record
    assert new.id != old.id
    assert (new.generation, new.cursor, new.state, new.fired) == (1, T0 + 10 * MINUTE, JobState.ACTIVE, 0)
    assert world.store.count_jobs() == 1
    world.check_law_1()


@promise()
def a_definition_equal_to_a_stopped_one_leaves_it_stopped(world: World) -> None:
    """A restart does not revive what has ended."""
    world.put(declared=True)
    world.store.set_job_state(REPORT, JobState.STOPPED, T0 + MINUTE)

    change = world.change(a_job(), T0 + 2 * MINUTE, declared=True)

    assert (change.change, change.record.state) == ("unchanged", JobState.STOPPED)


@promise("QE22", "QE23")
def a_job_that_was_removed_and_added_again_owes_nothing_for_the_gap(world: World) -> None:
    """A new life, a new id, a cursor at now: no run for the time between."""
    old = world.put()
    world.store.delete_jobs(REPORT, T0 + MINUTE)

    new = world.put(now=T0 + 4 * MINUTE)

    assert new.id != old.id
    assert new.cursor == T0 + 4 * MINUTE
    assert world.settled() == {1: "removed"}
    world.check_law_1()


@promise("QE12")
def a_definition_whose_times_are_over_is_finished_when_it_is_put(world: World) -> None:
    """A date in the past is finished, not fired: nothing at a restart replays it."""
    record = world.put(a_job(schedule=Once(to_datetime(T0 - HOUR))), declared=True)

    assert (record.state, record.reason) == (JobState.STOPPED, "exhausted")
    world.check_law_1()


@promise()
def a_put_that_was_given_up_on_cannot_undo_a_later_one(world: World) -> None:
    """`if_revision` refuses as `stale` what has changed since, and changes nothing."""
    first = world.put()
    second = world.put(a_job(priority=2))

    change = world.change(a_job(priority=1), if_revision=first.revision)

    assert (change.change, change.record) == ("stale", second)
    assert world.change(a_job(priority=1), if_revision=second.revision).change == "updated"


@promise()
def create_only_refuses_a_taken_name(world: World) -> None:
    """A name that is taken is `exists`, an equal definition too; nothing changes."""
    record = world.put()

    equal = world.change(a_job(), create_only=True)
    other = world.change(a_job(priority=1), create_only=True)

    assert [(change.change, change.record) for change in (equal, other)] == [("exists", record)] * 2


@promise("QS14")
def a_put_whose_answer_was_lost_may_be_repeated(world: World) -> None:
    """The same ids give the same answer, guards included, and no second job."""
    new = NewJob(world.id(), a_job(), create_only=True, if_revision=0)
    first = world.store.put_jobs([new], T0)
    change = NewJob(world.id(), a_job(priority=1), if_revision=first[0].record.revision)
    world.store.put_jobs([change], T0)

    again = world.store.put_jobs([change], T0)

    assert first[0].change == "added"
    assert again[0].change == "unchanged"
    assert (again[0].record.generation, world.store.count_jobs()) == (2, 1)
    added = world.put(a_job("other"))
    repeat = world.store.put_jobs([NewJob(added.id, a_job("other"), create_only=True)], T0)
    assert (repeat[0].change, repeat[0].record) == ("added", added)


@promise("OR15")
def put_jobs_unless_is_all_or_nothing(world: World) -> None:
    """With `unless`, a job that matches keeps the whole batch out, and is the answer."""
    record = world.put(a_job("other", labels={"tenant": "acme"}))
    batch = [NewJob(world.id(), a_job("one")), NewJob(world.id(), a_job("two"))]

    refused = world.store.put_jobs(batch, T0, unless=JobFilter(labels={"tenant": "acme"}))
    added = world.store.put_jobs(batch, T0, unless=JobFilter(labels={"tenant": "nobody"}))

    assert [(change.change, change.record) for change in refused] == [("exists", record)]
    assert [change.change for change in added] == ["added", "added"]


@promise("QS6")
def one_batch_may_name_a_job_twice(world: World) -> None:
    """The later definition holds, as if the two had been put one after the other."""
    batch = [NewJob(world.id(), a_job(priority=1)), NewJob(world.id(), a_job(priority=2))]

    changes = world.store.put_jobs(batch, T0)

    assert [change.change for change in changes] == ["added", "updated"]
    assert (world.job().job.work.priority, world.job().generation) == (2, 2)


# ---- states


@promise("QS7", "QE8", "OR25")
def unknown_names_are_passed_over(world: World) -> None:
    """Removing or stopping what is not there is an empty answer, and others are unaffected."""
    record = world.put()
    nobody = JobFilter(names="nobody")

    assert list(world.store.delete_jobs(nobody, T0)) == []
    assert list(world.store.set_job_state(nobody, JobState.PAUSED, T0)) == []
    assert world.job() == record


@promise("QS8", "OR25")
def a_state_that_a_job_has_already_is_no_change(world: World) -> None:
    """Only what really changed is in the answer; stopped is final."""
    world.put()

    assert list(world.store.set_job_state(REPORT, JobState.ACTIVE, T0)) == []
    assert len(world.store.set_job_state(REPORT, JobState.STOPPED, T0)) == 1
    assert list(world.store.set_job_state(REPORT, JobState.STOPPED, T0)) == []
    assert list(world.store.set_job_state(REPORT, JobState.ACTIVE, T0)) == []
    assert world.job().state is JobState.STOPPED


@promise("QE47")
def a_change_of_state_tells_the_state_before_and_the_reason(world: World) -> None:
    """The record says why, and keeps generation and cursor."""
    record = world.put()

    (change,) = world.store.set_job_state(REPORT, JobState.PAUSED, T0 + MINUTE, reason="the mail server is down")

    assert (change.before, change.record.state) == (JobState.ACTIVE, JobState.PAUSED)
    assert change.record.reason == "the mail server is down"
    assert (change.record.generation, change.record.revision > record.revision) == (1, True)
    assert world.job() == change.record
    world.store.set_job_state(REPORT, JobState.ACTIVE, T0 + MINUTE)
    assert world.job().reason is None


@promise()
def a_state_change_that_was_given_up_on_cannot_undo_a_later_one(world: World) -> None:
    """`if_revision` passes over a job that has changed since; so does removal."""
    first = world.put()
    world.put(a_job(priority=2))

    changed = world.store.set_job_state(REPORT, JobState.PAUSED, T0, if_revision=first.revision)
    removed = world.store.delete_jobs(REPORT, T0, if_revision=first.revision)

    assert (list(changed), list(removed)) == ([], [])
    assert world.job().state is JobState.ACTIVE


@promise("QE11", "GS15")
def pausing_settles_unstarted_scheduled_work_and_nothing_else(world: World) -> None:
    """Running work and its retries go on, and manual runs too."""
    record = world.put(a_job(overlap="allow"))
    waiting = world.fire(record, T0 + MINUTE)
    running = world.claim(world.fire(record, T0 + 2 * MINUTE), T0 + 2 * MINUTE)
    retried = world.claim(world.fire(record, T0 + 3 * MINUTE), T0 + 3 * MINUTE)
    world.finish(retried, Ending.RETRY, T0 + 3 * MINUTE)
    manual = world.manual(record, T0 + 3 * MINUTE)

    (change,) = world.store.set_job_state(REPORT, JobState.PAUSED, T0 + 3 * MINUTE)

    assert change.settled == 1
    assert (world.state(waiting), world.verdict(waiting)) == (State.SKIPPED, Kind.PAUSED)
    assert world.state(running.execution_id) is State.RUNNING
    assert world.ready(T0 + 3 * MINUTE) == [retried.execution_id, manual]
    started = world.start(manual, retried.execution_id, now=T0 + 3 * MINUTE)
    assert [claim.execution_id for claim in started.claims] == [manual, retried.execution_id]
    world.check_law_1()


@promise("QE18")
def resuming_settles_the_times_that_passed_as_paused(world: World) -> None:
    """A job never runs for times before it was resumed."""
    world.put()
    world.store.set_job_state(REPORT, JobState.PAUSED, T0 + MINUTE)

    (change,) = world.store.set_job_state(REPORT, JobState.ACTIVE, T0 + 4 * MINUTE)

    assert change.record.cursor == T0 + 4 * MINUTE
    assert world.settled() == {1: "paused", 2: "paused", 3: "paused", 4: "paused"}
    world.check_law_1()


@promise()
def times_that_a_pause_and_an_exclusion_share_are_excluded(world: World) -> None:
    """The schedule's own exclusions stay what they are, whatever else befalls the job."""
    record = world.put(a_job(schedule=Every(minutes=1) - Once(to_datetime(T0 + 2 * MINUTE))))
    world.fire(record, T0 + MINUTE)
    world.store.set_job_state(REPORT, JobState.PAUSED, T0 + MINUTE)

    world.store.set_job_state(REPORT, JobState.ACTIVE, T0 + 3 * MINUTE)

    assert world.settled() == {1: "paused", 2: "excluded", 3: "paused"}
    world.check_law_1()


@promise("OR25", "OR26")
def stopping_settles_the_past_and_cancels_what_waits(world: World) -> None:
    """What runs goes on; nothing unstarted starts after it."""
    record = world.put(a_job(overlap="allow"))
    running = world.claim(world.fire(record, T0 + MINUTE), T0 + MINUTE)
    waiting = world.fire(record, T0 + 2 * MINUTE)

    (change,) = world.store.set_job_state(REPORT, JobState.STOPPED, T0 + 4 * MINUTE)

    assert (change.settled, change.record.cursor) == (1, T0 + 4 * MINUTE)
    assert world.verdict(waiting) is Kind.CANCELLED
    assert world.state(running.execution_id) is State.RUNNING
    assert world.settled() == {1: "fired", 2: "cancelled", 3: "cancelled", 4: "cancelled"}
    world.check_law_1()


@promise()
def a_paused_job_that_is_stopped_or_rescheduled_was_paused_until_then(world: World) -> None:
    """The verdict of the times that passed is the pause, not what ended it."""
    for name, end in (("stopped", 0), ("rescheduled", 1), ("removed", 2)):
        world.put(a_job(name, paused=True))
        if end == 0:
            world.store.set_job_state(JobFilter(names=name), JobState.STOPPED, T0 + 2 * MINUTE)
        elif end == 1:
            world.put(a_job(name, schedule=Every(minutes=7), paused=True), T0 + 2 * MINUTE)
        else:
            world.store.delete_jobs(JobFilter(names=name), T0 + 2 * MINUTE)
        assert world.settled(name) == {1: "paused", 2: "paused"}, name
    world.check_law_1("stopped", "rescheduled", "removed")


# ---- removal


@promise("QE7", "QE45")
def removing_settles_what_waits_and_ends_manual_runs_and_retries(world: World) -> None:
    """After the acknowledgement nothing of the job starts; what runs goes on and its outcome counts."""
    record = world.put(a_job(overlap="allow"))
    waiting = world.fire(record, T0 + MINUTE)
    running = world.claim(world.fire(record, T0 + 2 * MINUTE), T0 + 2 * MINUTE)
    retried = world.claim(world.fire(record, T0 + 3 * MINUTE), T0 + 3 * MINUTE)
    world.finish(retried, Ending.RETRY, T0 + 3 * MINUTE)
    manual = world.manual(record, T0 + 3 * MINUTE)

    (removed,) = world.store.delete_jobs(REPORT, T0 + 5 * MINUTE)

    assert removed.id == record.id
    assert world.store.count_jobs() == 0
    assert (world.state(waiting), world.verdict(waiting)) == (State.SKIPPED, Kind.REMOVED)
    assert (world.state(retried.execution_id), world.verdict(retried.execution_id)) == (State.CANCELLED, Kind.FIRED)
    assert world.state(manual) is State.CANCELLED
    assert world.ready(T0 + 5 * MINUTE) == []
    assert world.finish(running, now=T0 + 6 * MINUTE).applied == {running.attempt_id}
    assert world.settled() == {1: "removed", 2: "fired", 3: "fired", 4: "removed", 5: "removed"}
    world.check_law_1()


@promise("QE7", "GS15")
def a_retry_of_what_ran_while_its_job_was_removed_does_not_start(world: World) -> None:
    """The attempt that ran goes on to its end; another one is not begun."""
    claim = world.claim(world.fire(world.put(), T0 + MINUTE), T0 + MINUTE)
    world.store.delete_jobs(REPORT, T0 + 2 * MINUTE)
    world.finish(claim, Ending.RETRY, T0 + 3 * MINUTE)

    answer = world.store.start("node-a", T0 + 3 * MINUTE, free={"default": 5})

    assert answer.claims == []
    row = world.get(claim.execution_id)
    assert (row.state, row.verdict, row.reason) == (State.CANCELLED, Kind.FIRED, "the job was removed")
