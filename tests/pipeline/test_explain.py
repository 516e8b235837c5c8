"""`explain`: why something ran, ran late or did not run; and of what is to come, whether it will."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from clepsydra import (
    All,
    Cron,
    Every,
    ExecutionNotFound,
    Explanation,
    Hindrance,
    InvalidArgument,
    Job,
    JobNotFound,
    Kind,
    MemoryStorage,
    Misfire,
    NodeList,
    Once,
    Overlap,
    Phase,
    Random,
    Retry,
    Snooze,
    SQLiteStorage,
    State,
    Storage,
    Task,
    Vessel,
    current_execution,
)
from clepsydra.model.instants import MINUTE
from clepsydra.model.strategies import Node
from clepsydra.storage.protocol import Fire, NewJob

from .support import World, slots

pytestmark = pytest.mark.anyio

ZURICH = ZoneInfo("Europe/Zurich")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return MemoryStorage()
    return SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL")


def waited(answer: Explanation) -> dict[Vessel, float]:
    """How long, by vessel, in seconds."""
    found: dict[Vessel, float] = {}
    for wait in answer.waits:
        found[wait.vessel] = found.get(wait.vessel, 0) + wait.length.total_seconds()
    return found


def kinds_of(answer: Explanation, *, certain: bool | None = None) -> set[Hindrance]:
    """What stops it, or could."""
    return {each.kind for each in answer.obstacles if certain in (None, each.certain)}


def adds_up(answer: Explanation) -> bool:
    """Waits and attempts follow one another without a gap, from the nominal time to the end."""
    spans = [(wait.since, wait.until) for wait in answer.waits]
    spans += [(one.started, one.ended) for one in answer.tries if one.started is not None]
    spans = sorted(span for span in spans if span[0] != span[1])
    ends = [span[1] for span in spans[:-1]]
    return ends == [span[0] for span in spans[1:]] and spans[-1][1] in (answer.ended, None)


# ---- what ran


async def test_what_ran_on_time_has_waited_nowhere(store: Storage) -> None:
    world = World(storage=store)
    async with world.running_with(job := world.job("job", Every(60))) as scheduler:
        await world.pass_time(61)
        answer = await scheduler.explain("job", world.at(60))

        assert answer == await scheduler.explain(job, world.at(60))
    assert (answer.phase, answer.kind, answer.state) == (Phase.SETTLED, Kind.FIRED, State.SUCCEEDED)
    assert (answer.nominal, answer.due, answer.started) == (world.at(60),) * 3
    assert (answer.late_by, waited(answer), answer.will_run) == (timedelta(), {}, None)
    assert [(one.number, one.ending, one.node) for one in answer.tries] == [(1, "succeeded", answer.node)]
    assert answer.queue == "default"
    assert answer.slots == 64
    assert "It ran, and succeeded." in answer.sentences
    assert "started on time" in str(answer)


async def test_between_two_times_the_earlier_is_explained_and_said_so() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(60))) as scheduler:
        await world.pass_time(150)

        answer = await scheduler.explain("job", world.at(119))

    assert (answer.nominal, answer.asked) == (world.at(60), world.at(119))
    assert answer.sentences[0] == (
        "Job 'job', nominal time 2026-01-01 00:01:00+00:00, the last one up to 2026-01-01 00:01:59+00:00."
    )


async def test_late_for_want_of_a_slot(store: Storage) -> None:
    world = World(storage=store, stages=slots(1))
    long = world.job("long", Every(50), "work", args={"seconds": 30})
    async with world.running_with(long, world.job("job", Every(60))) as scheduler:
        await world.pass_time(81)

        answer = await scheduler.explain("job", world.at(60))

    assert (answer.kind, answer.late_by, answer.fired) == (Kind.FIRED, timedelta(seconds=20), world.at(80))
    assert waited(answer) == {Vessel.TIMELINE: 20}
    assert answer.waits[0].why == "another execution of queue 'default' was running when it was due"
    assert answer.slots == 1
    assert adds_up(answer)


async def test_late_because_nobody_ran(store: Storage) -> None:
    world = World(storage=store)
    async with world.running_with(
        world.job("latest", Every(60)),
        world.job("all", Every(60), misfire=Misfire("all")),
        world.job("fresh", Every(60), misfire=Misfire("all", window=100)),
        world.job("none", Every(60), misfire=Misfire("none")),
    ):
        pass
    world.clock.step(timedelta(seconds=200))
    async with world.scheduler() as scheduler:
        await world.clock.settle()

        latest, every = [await scheduler.explain(name, world.at(180)) for name in ("latest", "all")]
        for answer in (latest, every):
            assert answer.kind is Kind.FIRED
            assert timedelta(seconds=20) <= (answer.late_by or timedelta()) <= timedelta(seconds=21)
            assert "of the nodes that are known none ran then; here was started at" in (answer.waits[0].why or "")

        earlier = await scheduler.explain("latest", world.at(60))
        assert (earlier.kind, earlier.phase, earlier.execution_id) == (Kind.COALESCED, Phase.SETTLED, None)
        assert "The run of 2026-01-01 00:03:00+00:00 stood for it." in earlier.sentences
        assert "all coalesced times from 2026-01-01 00:01:00+00:00 to 2026-01-01 00:02:00+00:00" in str(earlier)

        too_old = await scheduler.explain("fresh", world.at(60))
        assert (too_old.kind, too_old.reason) == (Kind.MISSED, "it was later than the misfire window")
        not_late = await scheduler.explain("none", world.at(60))
        assert (not_late.kind, not_late.reason) == (Kind.MISSED, "it was overdue")


async def test_retried_with_its_backoffs(store: Storage) -> None:
    world = World(storage=store)
    retry = Retry(attempts=3, backoff=5, jitter=0)
    async with world.running_with(world.job("job", Every(60), "fail", retry=retry)) as scheduler:
        await world.pass_time(62)
        waiting = await scheduler.explain("job", world.at(60))
        await world.pass_time(20)
        answer = await scheduler.explain("job", world.at(60))

    assert (waiting.phase, waiting.ready, waiting.will_run) == (Phase.WAITING, world.at(65), True)
    assert (waiting.waits[-1].until, waiting.waits[-1].length) == (None, timedelta(seconds=2))
    assert (answer.kind, answer.state) == (Kind.FIRED, State.FAILED)
    assert waited(answer) == {Vessel.RETRY: 5 + 10}
    assert [(one.number, one.ending) for one in answer.tries] == [(1, "retry"), (2, "retry"), (3, "failed")]
    assert "ValueError: on purpose" in answer.sentences[-1]
    assert adds_up(answer)


async def test_snoozed_waits_as_its_task_asked() -> None:
    world = World()

    async def later() -> Any:
        run = current_execution()
        return Snooze(7) if run.attempt_id == run.id else None

    task = Task(later, "later")
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.add_job(Job("job", task, Every(60)))
        await world.pass_time(70)
        answer = await scheduler.explain("job", world.at(60))

    assert waited(answer) == {Vessel.SNOOZE: 7}
    assert [one.ending for one in answer.tries] == ["snoozed", "succeeded"]
    assert adds_up(answer)


async def test_held_by_overlap(store: Storage) -> None:
    world = World(storage=store)
    job = world.job("job", Every(60), "work", args={"seconds": 90}, overlap=Overlap.BUFFER_ALL)
    async with world.running_with(job) as scheduler:
        await world.pass_time(130)
        holding = await scheduler.explain("job", world.at(120))
        await world.pass_time(120)
        answer = await scheduler.explain("job", world.at(120))

    assert (holding.state, holding.phase, waited(holding)) == (State.HELD, Phase.WAITING, {Vessel.HELD: 10})
    assert Hindrance.OVERLAP in kinds_of(holding)
    assert (answer.kind, waited(answer), answer.late_by) == (Kind.FIRED, {Vessel.HELD: 30}, timedelta(seconds=30))
    assert adds_up(answer)


async def test_jitter_is_no_lateness() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(600), jitter=300)) as scheduler:
        await world.pass_time(1000)
        answer = await scheduler.explain("job", world.at(600))

    assert answer.due is not None
    assert answer.due > world.at(600)
    assert answer.late_by is not None
    assert answer.late_by < timedelta(milliseconds=1)
    assert waited(answer)[Vessel.JITTER] == (answer.due - world.at(600)).total_seconds()


async def test_recovered_from_a_node_that_was_lost(store: Storage) -> None:
    world = World(storage=store)
    async with world.scheduler() as scheduler:
        waiting = await scheduler.enqueue(world.tasks["work"].call(seconds=20), after=30)
    store.open(Node("lost", "lost", world.clock.now(), 0), world.clock.now())
    world.clock.step(timedelta(seconds=30))
    assert len(store.start("lost", world.clock.now(), items=[waiting.id]).claims) == 1
    store.close()
    world.clock.step(timedelta(seconds=10))
    async with world.scheduler() as scheduler:
        await world.pass_time(30)
        answer = await scheduler.explain_execution(waiting.id)

    assert [one.ending for one in answer.tries] == ["lost", "succeeded"]
    assert answer.tries[0].node == "lost"
    assert "Attempt 1 on node lost ran 10 seconds and was lost with its node: NodeLost" in str(answer)
    assert adds_up(answer)


# ---- what did not run


async def test_times_of_a_pause_an_exclusion_and_a_removed_job() -> None:
    world = World()
    async with world.running_with(
        world.job("paused", Every(60)),
        world.job("excluded", Every(60) - Cron("2 * * * *")),
        world.job("removed", Every(60)),
        world.job("moved", Every(60)),
    ) as scheduler:
        await world.pass_time(61)
        await scheduler.pause_job("paused")
        await world.pass_time(120)
        overdue = await scheduler.explain("paused", world.at(120))
        await scheduler.resume_job("paused")
        await scheduler.remove_job("removed")
        await scheduler.add_job(world.job("moved", Every(70)))

        assert (overdue.phase, overdue.kind, overdue.will_run) == (Phase.OVERDUE, None, False)
        assert overdue.late_by == timedelta(seconds=61)
        assert kinds_of(overdue, certain=True) >= {Hindrance.PAUSED}
        for name, kind in (("paused", Kind.PAUSED), ("excluded", Kind.EXCLUDED), ("removed", Kind.FIRED)):
            answer = await scheduler.explain(name, world.at(120))
            assert (answer.phase, answer.kind) == (Phase.SETTLED, kind), name
        gone = await scheduler.explain("removed", world.at(600))
        assert (gone.nominal, gone.will_run, kinds_of(gone)) == (world.at(180), False, {Hindrance.REMOVED})
        again = await scheduler.explain("moved", world.at(260))
        assert (again.nominal, again.phase) == (world.at(181 + 70), Phase.TO_COME)
        before = await scheduler.explain("moved", world.at(181))
        assert (before.nominal, before.kind) == (world.at(180), Kind.FIRED)


async def test_no_node() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(60), run_on=NodeList(["other"]))) as scheduler:
        await world.pass_time(61)
        answer = await scheduler.explain("job", world.at(60))

    assert (answer.kind, answer.state, answer.phase) == (Kind.NO_NODE, State.SKIPPED, Phase.SETTLED)
    assert (answer.started, answer.late_by) == (None, None)
    assert (
        "It did not run: there was no node to run it (no node is alive that its strategy allows)." in answer.sentences
    )


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        ("redefine", Kind.SUPERSEDED),
        ("remove", Kind.REMOVED),
        ("pause", Kind.PAUSED),
        ("stop", Kind.CANCELLED),
        ("cancel", Kind.CANCELLED),
    ],
)
async def test_what_was_held_and_then_settled(act: str, kind: Kind) -> None:
    world = World()
    job = world.job("job", Every(60), "work", args={"seconds": 100}, overlap=Overlap.BUFFER_ALL)
    async with world.running_with(job) as scheduler:
        await world.pass_time(130)
        match act:
            case "redefine":
                await scheduler.add_job(world.job("job", Every(70)))
            case "remove":
                await scheduler.remove_job("job")
            case "pause":
                await scheduler.pause_job("job")
            case "stop":
                await scheduler.stop_job("job")
            case _:
                held = await scheduler.explain("job", world.at(120))
                await scheduler.cancel_executions(ids=[held.execution_id or ""])

        answer = await scheduler.explain("job", world.at(120))

    assert (answer.kind, answer.phase, answer.started) == (kind, Phase.SETTLED, None)
    assert answer.ended == world.at(130)
    assert answer.sentences[2].startswith("It did not run: ")


async def test_overlap_skipped_and_expired(store: Storage) -> None:
    world = World(storage=store, stages=slots(1))
    job = world.job("job", Every(60), "work", args={"seconds": 90})
    async with world.running_with(job) as scheduler:
        await world.pass_time(59)
        scheduler.tune(concurrency=2)
        await world.pass_time(70)
        skipped = await scheduler.explain("job", world.at(120))
        call = world.tasks["note"].call()
        scheduler.tune(concurrency=1)
        handle = await scheduler.enqueue(call, start_by=5)
        await world.pass_time(40)
        expired = await handle.explain()

    assert (skipped.kind, skipped.reason) == (Kind.OVERLAP_SKIPPED, "an earlier run is not finished")
    assert (expired.state, expired.kind, expired.started) == (State.EXPIRED, None, None)
    assert "It did not run: its start_by had passed." in expired.sentences
    assert waited(expired) == {Vessel.QUEUE: 21}


async def test_before_the_job_and_beyond_retention_nothing_is_known() -> None:
    world = World(storage=MemoryStorage(keep=3))
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        await world.pass_time(2000)
        early = await scheduler.explain("job", world.at(-10))
        forgotten = await scheduler.explain("job", world.at(5))

    assert (early.phase, early.nominal, early.will_run) == (Phase.OUTSIDE, None, None)
    assert "owes nothing for times before" in str(early)
    assert (forgotten.phase, forgotten.nominal) == (Phase.OUTSIDE, world.at(5))
    assert "retention" in str(forgotten)


async def test_what_waited_and_was_coalesced_names_the_run_that_stood_for_it(store: Storage) -> None:
    world = World(storage=store)
    start = world.clock.now()
    store.open(Node("node", "node", start, 0), start)
    (added,) = store.put_jobs([NewJob("job-id", world.job("job", Every(60)))], start)
    first, second = start + MINUTE, start + 2 * MINUTE
    store.fire([Fire("job-id", 1, start, first, "1", first, first)], first)
    store.fire([Fire("job-id", 1, first, second, "2", second, second, coalesce_before=second)], second)
    store.close()
    assert added.change == "added"

    async with world.scheduler() as scheduler:
        answer = await scheduler.explain("job", world.at(60))

    assert (answer.kind, answer.state, answer.execution_id) == (Kind.COALESCED, State.SKIPPED, "1")
    assert "The run of 2026-01-01 00:02:00+00:00 stood for it." in answer.sentences


# ---- enqueued work


async def test_an_enqueued_call_waits_its_delay_and_for_a_slot(store: Storage) -> None:
    world = World(storage=store, stages=slots(1))
    async with world.scheduler() as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=60))
        await world.pass_time(1)
        handle = await scheduler.enqueue(world.tasks["note"].call(), after=10)
        await world.pass_time(5)
        delayed = await handle.explain()
        await world.pass_time(15)
        waiting = await handle.explain()
        await world.pass_time(60)
        answer = await scheduler.explain_execution(handle.id)

    assert (delayed.phase, delayed.late_by, delayed.ready) == (Phase.WAITING, None, world.at(11))
    assert waited(delayed) == {Vessel.DELAY: 5}
    assert (waiting.late_by, waiting.ready) == (timedelta(seconds=10), None)
    assert kinds_of(waiting) == {Hindrance.QUEUE_FULL}
    assert waiting.will_run
    assert (answer.state, answer.late_by) == (State.SUCCEEDED, timedelta(seconds=49))
    assert waited(answer) == {Vessel.DELAY: 10, Vessel.QUEUE: 49}
    assert answer.waits[-1].why == "another execution of queue 'default' was running when it was due"
    assert adds_up(answer)


async def test_what_was_cancelled_before_it_was_due_waited_no_longer() -> None:
    world = World()
    async with world.scheduler() as scheduler:
        handle = await scheduler.enqueue(world.tasks["note"].call(), after=60)
        await world.pass_time(5)
        await handle.cancel()
        cancelled = await handle.explain()
        await scheduler.retry_executions(ids=[handle.id])
        await world.pass_time(5)
        answer = await handle.explain()

    assert (cancelled.state, waited(cancelled)) == (State.CANCELLED, {Vessel.DELAY: 5})
    assert "It was cancelled: cancelled on request." in cancelled.sentences
    assert waited(answer) == {Vessel.DELAY: 5}
    assert adds_up(answer)


async def test_what_had_ended_and_was_given_another_try() -> None:
    world = World()
    async with world.scheduler() as scheduler:
        handle = await scheduler.enqueue(world.tasks["fail"].call())
        await world.pass_time(10)
        await scheduler.retry_executions(ids=[handle.id])
        await world.pass_time(1)
        answer = await handle.explain()

    assert waited(answer) == {Vessel.ENDED: 10}
    assert adds_up(answer)


async def test_work_without_code_here_waits_and_says_so() -> None:
    world = World()
    async with world.scheduler() as scheduler:
        handle = await scheduler.enqueue(world.tasks["note"].call(), after=60)
    del world.tasks["note"]
    async with world.scheduler() as scheduler:
        await world.pass_time(100)
        answer = await scheduler.explain_execution(handle.id)

    assert (answer.phase, answer.will_run) == (Phase.WAITING, False)
    assert kinds_of(answer, certain=True) == {Hindrance.NO_TASK}


# ---- what is to come


async def prospect(world: World, job: Job, at: datetime, **options: Any) -> Explanation:
    """What is said of a job that has just been added."""
    async with world.running_with(job, **options) as scheduler:
        return await scheduler.explain(job, at)


async def test_what_will_run() -> None:
    world = World()
    answer = await prospect(world, world.job("job", Every(60)), world.at(60))

    assert (answer.phase, answer.will_run, answer.obstacles) == (Phase.TO_COME, True, [])
    assert (answer.due, answer.late_by, answer.kind) == (world.at(60), None, None)
    assert list(answer.sentences[1:]) == [
        "It is due at 2026-01-01 00:01:00+00:00, in 1 minute.",
        "As things stand it will run.",
    ]


@pytest.mark.parametrize(
    ("job", "certain"),
    [
        ({"paused": True}, {Hindrance.PAUSED}),
        ({"schedule": Every(60) - Cron("1 * * * *")}, {Hindrance.EXCLUDED}),
        ({"schedule": Every(20), "limit": 2}, {Hindrance.LIMIT}),
        ({"schedule": Every(20), "limit": 3}, set[Hindrance]()),
        ({"run_on": NodeList(["there"])}, {Hindrance.NO_NODE}),
        ({"run_on": Random(["there"])}, {Hindrance.NO_NODE}),
        ({"run_on": All(["there"])}, {Hindrance.NO_NODE}),
        ({"run_on": "of my own"}, {Hindrance.NO_NODE}),
        ({"run_on": Random()}, set[Hindrance]()),
    ],
    ids=str,
)
async def test_what_stops_a_time_to_come(job: dict[str, Any], certain: Collection[Hindrance]) -> None:
    world = World()
    options: dict[str, Any] = {"schedule": Every(60), **job}
    answer = await prospect(world, world.job("job", options.pop("schedule"), **options), world.at(60))

    assert (answer.phase, answer.nominal) == (Phase.TO_COME, world.at(60))
    assert kinds_of(answer, certain=True) == certain
    assert answer.will_run is not bool(certain)


@pytest.mark.parametrize(
    ("job", "possible"),
    [
        ({"misfire": Misfire(window=30)}, {Hindrance.MISFIRE}),
        ({"misfire": Misfire("none")}, {Hindrance.MISFIRE}),
        ({"start_by": 30}, {Hindrance.START_BY}),
        ({"run_on": All(["here", "there"])}, {Hindrance.NO_NODE}),
    ],
    ids=str,
)
async def test_what_could_stop_a_time_to_come(job: dict[str, Any], possible: Collection[Hindrance]) -> None:
    world = World()
    answer = await prospect(world, world.job("job", Every(60), **job), world.at(60))

    assert kinds_of(answer, certain=False) == possible
    assert answer.will_run
    assert "What could stop or delay it: " in str(answer)


async def test_what_runs_now_may_be_in_the_way_and_a_full_queue_too() -> None:
    world = World(stages=slots(1))
    async with world.running_with(world.job("job", Every(60), "wait")) as scheduler:
        await world.pass_time(61)
        answer = await scheduler.explain("job", world.at(120))
        world.open_gate()

    assert kinds_of(answer) == {Hindrance.OVERLAP, Hindrance.QUEUE_FULL}
    assert "if it still runs then, this one is skipped" in str(answer)
    assert answer.will_run


async def test_a_task_that_is_full_and_a_scheduler_that_drains() -> None:
    world = World()
    world.tasks["wait"] = Task(world.wait, "wait", concurrency=1)
    async with world.running_with(world.job("job", Every(60), "wait", overlap=Overlap.ALLOW)) as scheduler:
        await world.pass_time(61)
        full = await scheduler.explain("job", world.at(120))
        world.open_gate()
        await scheduler.drain()
        draining = await scheduler.explain("job", world.at(120))

    assert kinds_of(full) == {Hindrance.TASK_FULL}
    assert kinds_of(draining) == {Hindrance.HEALTH}
    assert "it is draining" in str(draining)


async def test_a_job_that_is_over_a_task_that_is_gone_and_code_that_forgot_the_job() -> None:
    world = World()
    declared = world.job("declared", Every(60))
    async with world.scheduler(declared) as scheduler:
        await scheduler.add_jobs(
            [world.job("stopped", Every(60)), world.job("job", Every(60), "say", args={"text": ""})]
        )
        await scheduler.stop_job("stopped")
        stopped = await scheduler.explain("stopped", world.at(60))
    del world.tasks["say"]
    async with world.scheduler() as scheduler:
        no_task = await scheduler.explain("job", world.at(60))
        forgotten = await scheduler.explain("declared", world.at(60))

    assert (stopped.will_run, kinds_of(stopped)) == (False, {Hindrance.STOPPED})
    assert (no_task.will_run, kinds_of(no_task)) == (False, {Hindrance.NO_TASK})
    assert (forgotten.will_run, kinds_of(forgotten)) == (False, {Hindrance.UNDECLARED})


async def test_a_time_that_the_schedule_does_not_name() -> None:
    world = World()
    bounded = Every(60).between(end=world.at(100))
    async with world.running_with(
        world.job("hourly", Every(3600)), world.job("bounded", bounded), world.job("once", Once(world.at(90)))
    ) as scheduler:
        await world.pass_time(80)
        between = await scheduler.explain("hourly", world.at(100))
        beyond = await scheduler.explain("bounded", world.at(500))
        once = await scheduler.explain("once", world.at(500))

    assert (between.nominal, between.will_run, kinds_of(between)) == (None, False, {Hindrance.NOT_SCHEDULED})
    assert "the next one is 2026-01-01 01:00:00+00:00" in str(between)
    assert (beyond.nominal, beyond.kind, beyond.will_run) == (world.at(60), Kind.FIRED, False)
    assert kinds_of(beyond) == {Hindrance.BOUNDS}
    assert (once.nominal, once.phase, once.will_run) == (world.at(90), Phase.TO_COME, True)


async def test_a_time_that_a_change_of_the_clocks_moves_repeats_or_drops() -> None:
    world = World(start=datetime(2027, 3, 1, tzinfo=UTC))
    async with world.running_with(
        world.job("fixed", Cron("30 2 * * *", tz="Europe/Zurich")),
        world.job("dropped", Cron("30 2 * * *", tz="Europe/Zurich", gap="skip")),
        world.job("other", Cron("30 4 * * *", tz="Europe/Zurich")),
    ) as scheduler:
        in_the_gap = datetime(2027, 3, 28, 2, 30, tzinfo=ZURICH)
        moved = await scheduler.explain("fixed", in_the_gap)
        dropped = await scheduler.explain("dropped", in_the_gap)
        untouched = await scheduler.explain("other", in_the_gap)
        twice = await scheduler.explain("fixed", datetime(2027, 10, 31, 2, 30, tzinfo=ZURICH))

    assert (moved.nominal, moved.will_run) == (datetime(2027, 3, 28, 1, tzinfo=UTC), True)
    assert moved.sentences[0].startswith("Job 'fixed', nominal time 2027-03-28 03:00:00+02:00, the last one up to")
    assert moved.sentences[-1].endswith("02:30 does not exist on 2027-03-28; runs at 03:00.")
    assert kinds_of(moved) == {Hindrance.CLOCK_CHANGE}
    assert (dropped.nominal, kinds_of(dropped)) == (datetime(2027, 3, 27, 1, 30, tzinfo=UTC), {Hindrance.CLOCK_CHANGE})
    assert dropped.sentences[-1].endswith("02:30 does not exist on 2027-03-28; left out.")
    assert kinds_of(untouched) == set()
    assert "02:30 comes twice on 2027-10-31; runs the first time." in str(twice)


async def test_jobs_that_no_calendar_drives() -> None:
    world = World()
    async with world.running_with(
        world.job("after", Every(60, after_completion=True)), world.job("by hand")
    ) as scheduler:
        coming = await scheduler.explain("after", world.at(60))
        by_hand = await scheduler.explain("by hand", world.at(60))
        await world.pass_time(130)
        past = await scheduler.explain("after", world.at(125))
        beyond = await scheduler.explain("after", world.at(500))

    assert (coming.nominal, coming.will_run, kinds_of(coming)) == (None, None, {Hindrance.NO_SCHEDULE})
    assert (by_hand.nominal, by_hand.will_run, kinds_of(by_hand)) == (None, False, {Hindrance.NO_SCHEDULE})
    assert (past.nominal, past.kind) == (world.at(120), Kind.FIRED)
    assert (beyond.nominal, beyond.will_run, kinds_of(beyond)) == (world.at(120), None, {Hindrance.NO_SCHEDULE})


# ---- several targets, and what cannot be explained


async def test_each_target_of_one_time_is_told_of(tmp_path: Path) -> None:
    world = World(storage=SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))
    async with world.running_with(world.job("job", Every(60), run_on=All(["here", "there"]))) as scheduler:
        await world.pass_time(61)
        answer = await scheduler.explain("job", world.at(60))

    answers = [answer, *answer.others]
    assert {each.kind for each in answers} == {Kind.FIRED, Kind.NO_NODE}
    assert len({each.target for each in answers}) == 2
    assert str(answer).count("It is for node ") == 2


async def test_a_time_that_two_jobs_of_the_name_have_had_is_told_of_both() -> None:
    world = World()
    async with world.running_with(world.job("job", Cron("* * * * *"))) as scheduler:
        await world.pass_time(121)
        await scheduler.pause_job("job")
        await world.pass_time(60)
        await scheduler.remove_job("job")
        world.clock.step(timedelta(seconds=-100))
        await scheduler.add_job(world.job("job", Cron("* * * * *")))
        await world.pass_time(100)
        answer = await scheduler.explain("job", world.at(180))

    assert [each.kind for each in (answer, *answer.others)] == [Kind.FIRED, Kind.PAUSED]
    assert str(answer).count("Job 'job', nominal time 2026-01-01 00:03:00+00:00.") == 2


async def test_what_cannot_be_explained_is_refused() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(60))) as scheduler:
        with pytest.raises(JobNotFound, match="'nobody'; known jobs: 'job'"):
            await scheduler.explain("nobody", world.at(60))
        with pytest.raises(InvalidArgument, match="aware datetime"):
            await scheduler.explain("job", datetime(2026, 1, 1))
        with pytest.raises(ExecutionNotFound):
            await scheduler.explain_execution("nothing")
