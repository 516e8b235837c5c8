"""Stories of a scheduler's life: commands, redeploys, drains and shutdowns, two at once, threads, health, events."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from clepsydra import (
    Cron,
    Every,
    ExecutionHandle,
    Kind,
    MemoryStorage,
    Node,
    Once,
    Operator,
    Reboot,
    SchedulerFailed,
    SchedulerNotRunning,
    SQLiteStorage,
    Stages,
    State,
    StoreError,
    Task,
    current_execution,
    to_instant,
)
from clepsydra.model.events import (
    ExecutionFailed,
    ExecutionsMissed,
    ExecutionStarted,
    ExecutionStopped,
    FailureKind,
    JobAdded,
    JobRemoved,
    JobUpdated,
    StageRestarted,
)
from clepsydra.model.filters import EVERY_EXECUTION
from clepsydra.storage.protocol import DeletedHistory, Started

from .support import FaultyStorage, Heard, World, chain_of, executions_of, kinds, slots, states, violations

pytestmark = pytest.mark.anyio


# What commands settle.


@pytest.mark.parametrize(
    ("command", "verdict"),
    [("pause_job", Kind.PAUSED), ("stop_job", Kind.CANCELLED), ("remove_job", Kind.REMOVED)],
)
async def test_a_command_settles_what_has_not_started_and_lets_run_what_has(command: str, verdict: Kind) -> None:
    world = World()
    job = world.job("job", Every(2), "work", args={"seconds": 5}, overlap="buffer_all")
    async with world.running_with(job) as scheduler:
        await world.pass_time(5)  # one runs, the next one is held
        await getattr(scheduler, command)("job")
        await world.pass_time(10)
        assert (await kinds(scheduler, "job"))[:2] == [Kind.FIRED, verdict]
        assert await violations(scheduler, "job") == []

    assert world.times("job") == [2]
    assert world.ended == ["job"]


async def test_a_resumed_job_fires_from_then_on_and_the_pause_is_on_record() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        await world.pass_time(2)
        await scheduler.pause_job("job")
        await world.pass_time(3)
        await scheduler.resume_job("job")
        await world.pass_time(2)
        assert await kinds(scheduler, "job") == [Kind.FIRED] * 2 + [Kind.PAUSED] * 3 + [Kind.FIRED] * 2

    assert world.times("job") == [1, 2, 6, 7]


async def test_a_manual_run_leaves_the_cadence_alone() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(4))) as scheduler:
        await world.pass_time(5)
        await scheduler.run_job("job")
        await world.pass_time(4)

    assert world.times("job") == [4, 5, 8]


async def test_removing_a_job_ends_its_waiting_manual_runs() -> None:
    world = World(stages=slots(1))
    async with world.running_with(world.job("job")) as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=5))
        await world.clock.settle()
        await scheduler.run_job("job")
        await scheduler.remove_job("job")
        await world.pass_time(10)

    assert world.names() == ["work"]


async def test_a_one_off_job_is_finished_after_its_time() -> None:
    world = World()
    async with world.running_with(world.job("once", Once(world.at(3)))) as scheduler:
        await world.pass_time(10)
        assert (scheduler.get_job("once").state, scheduler.get_job("once").reason) == ("stopped", "exhausted")

    assert world.times("once") == [3]


# Redeploys.


@pytest.mark.parametrize("with_its_enqueue", [True, False])
async def test_a_shutdown_gives_back_what_the_store_has_started_and_not_said_yet(
    tmp_path: Path, with_its_enqueue: bool
) -> None:
    world = World(storage=SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))
    started, told = threading.Event(), threading.Event()
    start = world.storage.start

    def slowly(*args: Any, **options: Any) -> Started:
        answer = start(*args, **options)
        if answer.claims:
            started.set()
            told.wait(10)
        return answer

    world.storage.start = slowly  # type: ignore[method-assign]
    handles: list[ExecutionHandle] = []

    async def enqueue() -> None:
        handles.append(await scheduler.enqueue(world.tasks["note"].call()))

    async with anyio.create_task_group() as group, world.scheduler() as scheduler:
        chain = chain_of(scheduler)
        chain.demand.overdue = set() if with_its_enqueue else {"default"}
        stop = chain.stop_claiming

        def stop_and_tell() -> None:
            stop()
            told.set()

        chain.stop_claiming = stop_and_tell  # type: ignore[method-assign]
        group.start_soon(enqueue)
        with anyio.fail_after(30):
            while not started.is_set():
                await checkpoint()

    with Operator(SQLiteStorage(tmp_path / "jobs.db"), clock=world.clock) as operator:
        row = operator.get_execution(handles[0].id)
        assert (row.state, row.node, row.recoveries) == (State.PENDING, None, 0)
    assert world.ran == []


async def test_jobs_that_are_declared_again_while_the_chain_is_still_told_of_them_are_fired() -> None:
    world = World(stages=slots(100))
    names = [f"job{index}" for index in range(2500)]
    for order in (names, names[::-1]):
        async with world.scheduler(*(world.job(name, Every(4)) for name in order)) as scheduler:
            await world.clock.settle()
            assert len(chain_of(scheduler).soonest(5000)) == len(names)


async def test_an_equal_declaration_changes_nothing() -> None:
    world = World()
    generations = set[tuple[str, int]]()
    for _ in range(3):
        async with world.scheduler(world.job("job", Every(4))) as scheduler:
            await world.pass_time(3)
            generations.add((scheduler.get_job("job").id, scheduler.get_job("job").generation))

    assert len(generations) == 1
    assert world.times("job") == [4, 8]  # a restart does not shift the anchor


async def test_another_field_keeps_cadence_and_waiting_work() -> None:
    world = World()
    async with world.scheduler(world.job("job", Every(4))):
        await world.pass_time(3)
    async with world.scheduler(world.job("job", Every(4), priority=5)) as scheduler:
        await world.pass_time(3)
        assert scheduler.get_job("job").generation == 2

    assert world.times("job") == [4]


async def test_another_schedule_counts_from_now_and_supersedes_what_waits() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("wall", Once(world.at(1)), "work", args={"seconds": 9}), world.job("job", Every(2))
    ) as scheduler:
        await world.pass_time(5)
        await scheduler.add_job(world.job("job", Every(3)))
        await world.pass_time(10)
        assert Kind.SUPERSEDED in await kinds(scheduler, "job")
        assert await violations(scheduler) == []

    assert world.nominals("job") == [8, 11, 14]


async def test_a_job_that_code_no_longer_declares_is_shown_and_not_fired_until_it_is_removed() -> None:
    world = World()
    async with world.scheduler(world.job("old", Every(1)), world.job("kept", Every(1))):
        await world.pass_time(2)
    async with world.scheduler(world.job("kept", Every(1))) as scheduler:
        await world.pass_time(2)
        assert scheduler.health().undeclared_jobs == ["old"]
        await scheduler.remove_job("old")
        assert scheduler.health().undeclared_jobs == []

    assert world.times("old") == [1, 2]
    assert world.times("kept") == [1, 2, 3, 4]


async def test_the_store_keeps_the_state_of_what_code_declares() -> None:
    world = World()
    async with world.scheduler(world.job("job", Every(1))) as scheduler:
        await scheduler.pause_job("job")
    async with world.scheduler(world.job("job", Every(1), priority=3)) as scheduler:
        await world.pass_time(3)
        assert scheduler.get_job("job").state == "paused"

    assert world.ran == []


async def test_a_reboot_job_added_while_it_runs_runs_once() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await world.pass_time(5)
        await scheduler.add_job(world.job("boot", Reboot()))
        await world.pass_time(5)

    assert world.times("boot") == pytest.approx([5], abs=0.01)


# The end.


async def test_a_drain_refuses_new_work_from_outside_but_not_from_a_running_task() -> None:
    world = World()

    async def last_words() -> None:
        await current_sleep(5)
        await scheduler.enqueue(world.tasks["note"].call())

    task: Task[[], Any] = Task(last_words, "last_words")
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        await scheduler.enqueue(task.call())
        await world.pass_time(1)
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await scheduler.drain(grace=20))

        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            await world.pass_time(1)
            with pytest.raises(SchedulerNotRunning, match="draining"):
                await scheduler.enqueue(world.tasks["note"].call())
            await world.pass_time(10)
        assert drained == [True]
        assert "it is draining" in scheduler.health().reasons
        assert (await scheduler.stats())[State.PENDING] == 1
    async with world.scheduler():
        await world.pass_time(1)

    assert world.names() == ["note"]


async def current_sleep(seconds: float) -> None:
    await current_execution().sleep(seconds)


async def test_jq22_a_drain_that_takes_too_long_says_so() -> None:
    """Decided differently: it answers, and what runs goes on until the scheduler is left."""
    world = World()
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=50))
        await world.pass_time(1)
        assert await world.clock_moves(scheduler.drain(grace=3)) is False
        assert world.running == 1
        scheduler.stop(hard=True)

    assert world.cut == ["work"]


async def test_jq22_what_is_cut_off_at_the_end_of_the_grace_runs_again_and_has_used_no_attempt() -> None:
    world = World(stages=Stages(grace=2, loop_blocked=None))
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["work"].call(seconds=10))
        await world.pass_time(1)
    assert world.cut == ["work"]
    async with world.scheduler() as scheduler:
        await world.pass_time(15)
        execution = await scheduler.get_execution(handle.id)

    assert (execution.state, execution.attempt) == (State.SUCCEEDED, 1)
    assert world.times("work") == [0, 3]


async def test_cancelling_the_task_that_runs_it_drains() -> None:
    world = World()
    scheduler = world.scheduler(world.job("slow", Once(world.at(1)), "work", args={"seconds": 5}))
    async with anyio.create_task_group() as group:
        await group.start(scheduler.run)
        await world.pass_time(2)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await world.pass_time(10)

    assert world.ended == ["slow"]
    assert scheduler.health().status == "stopped"


async def test_asyncio_cancelling_the_task_itself_drains_as_well(anyio_backend: str) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("trio has no such cancellation")
    world = World()
    scheduler = world.scheduler(world.job("slow", Once(world.at(1)), "work", args={"seconds": 5}))
    host = asyncio.create_task(scheduler.run())
    await world.pass_time(2)

    for _ in range(2):
        host.cancel()
        await world.pass_time(2)
        assert not host.done()
    await world.pass_time(2)
    with pytest.raises(asyncio.CancelledError):
        await host

    assert world.ended == ["slow"]
    assert world.storage.stats(EVERY_EXECUTION)[State.SUCCEEDED] == 1


async def test_cancelled_by_asyncio_again_while_it_ends_it_hurries_and_records_what_it_cuts_off(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("trio has no such cancellation")
    world = World()
    entered, tasks_before = anyio.Event(), asyncio.all_tasks()

    async def host() -> None:
        async with world.running_with(world.job("hung", Once(world.at(1)), "wait")):
            entered.set()
            await anyio.sleep_forever()

    hosting = asyncio.create_task(host())
    await entered.wait()
    await world.pass_time(2)

    monkeypatch.setattr(world.clock, "pass_until", anyio.Event.wait)  # this test moves it
    hosting.cancel()
    await world.pass_time(1)
    assert not hosting.done()
    hosting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hosting

    assert world.cut == ["hung"]
    assert world.storage.stats(EVERY_EXECUTION)[State.PENDING] == 1
    assert asyncio.all_tasks() == tasks_before


async def test_jq23_a_scheduler_can_be_entered_again() -> None:
    world = World()
    scheduler = world.scheduler(world.job("tick", Every(1)))
    for _ in range(3):
        async with scheduler:
            await world.pass_time(2)
        with pytest.raises(SchedulerNotRunning):
            await scheduler.remove_job("tick")

    assert world.times("tick") == [1, 2, 3, 4, 5, 6]


async def test_it_cannot_be_entered_twice_at_once() -> None:
    world = World()
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        with pytest.raises(SchedulerNotRunning, match="already"):
            await scheduler.run()
        with pytest.raises(SchedulerNotRunning, match="already"):
            async with scheduler:
                pass
        await world.pass_time(1)

    assert world.times("tick") == [1]


async def test_two_schedulers_live_side_by_side_in_one_process() -> None:
    world = World()
    async with (
        world.running_with(world.job("a", Every(1)), storage=MemoryStorage()),
        world.running_with(world.job("b", Every(2)), storage=MemoryStorage()),
    ):
        await world.pass_time(4)
        assert (world.times("a"), world.times("b")) == ([1, 2, 3, 4], [2, 4])


async def test_two_schedulers_share_a_file_and_each_time_runs_once(tmp_path: object) -> None:
    path = f"{tmp_path}/jobs.db"
    world = World()
    jobs = [world.job(f"job{index}", Every(2)) for index in range(5)]
    async with (
        world.scheduler(*jobs, storage=SQLiteStorage(path, synchronous="NORMAL"), name="one") as one,
        world.scheduler(*jobs, storage=SQLiteStorage(path, synchronous="NORMAL"), name="two"),
    ):
        await world.pass_time(20)
        assert await violations(one) == []
        # While one of them shuts down the other goes on, and the clock with it: looked at before that.
        for index in range(5):
            nominals = world.nominals(f"job{index}")
            assert sorted(nominals) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


async def test_a_job_removed_by_one_process_does_not_fire_in_the_other(tmp_path: object) -> None:
    path = f"{tmp_path}/jobs.db"
    world = World()
    async with (
        world.running_with(world.job("job", Every(1)), storage=SQLiteStorage(path, synchronous="NORMAL")) as one,
        world.scheduler(storage=SQLiteStorage(path, synchronous="NORMAL"), name="two") as two,
    ):
        await world.pass_time(2.5)
        assert two.find_job("job") is not None
        await one.remove_job("job")
        ran = len(world.ran)
        await world.pass_time(3)
        assert two.find_job("job") is None

    assert len(world.ran) == ran == 2


async def test_a_plain_thread_may_use_it() -> None:
    world = World()
    async with world.running_with() as scheduler:

        def in_thread() -> Any:
            scheduler.from_thread.add_job(world.job("job", Every(1)))
            handle = scheduler.from_thread.enqueue(world.tasks["say"].call("hello"))
            return scheduler.from_thread.result(handle)

        assert await anyio.to_thread.run_sync(in_thread) == "hello"
        await world.pass_time(1)

    assert world.names() == ["hello", "job"]


async def test_an_async_with_body_is_not_cancelled_by_a_scheduler_that_fails_and_gets_one_error() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    reached = False

    async def body() -> None:
        nonlocal reached
        async with world.running_with(world.job("tick", Every(1))) as scheduler:
            store.fail("fire", RuntimeError, times=100)
            await world.pass_time(30)
            assert scheduler.health().status == "failed"
            reached = True

    with pytest.raises(SchedulerFailed):
        await body()

    assert reached


async def test_qu08_a_store_that_cannot_be_opened_raises_from_the_entry() -> None:
    class Closed(MemoryStorage):
        def open(self, node: object, now: object) -> None:
            raise StoreError("no such disk")

    world = World(storage=Closed())
    with pytest.raises(StoreError, match="no such disk"):
        async with world.scheduler():
            pytest.fail("it was entered")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_keyboard_interrupt_of_a_task_is_recorded_and_raised_again(backend: str) -> None:
    """In a loop of its own: the interrupt ends it."""
    worlds: list[World] = []
    ids: list[str] = []

    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def body() -> None:
        world = World()
        worlds.append(world)
        task: Task[[], Any] = Task(interrupted, "interrupted")
        async with world.scheduler(tasks=[task]) as scheduler:
            ids.append((await scheduler.enqueue(task.call())).id)
            await world.pass_time(30)

    with pytest.raises(BaseException) as raised:  # noqa: PT011 - bare, or in the group of the body
        anyio.run(body, backend=backend)

    assert is_interrupt(raised.value)
    (row,) = worlds[0].storage.get_executions(ids).values()
    assert row.state is State.FAILED


def is_interrupt(error: BaseException) -> bool:
    members: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return isinstance(error, KeyboardInterrupt) or any(is_interrupt(each) for each in members)


# What can be seen.


async def test_health_tells_what_runs_and_how_full_the_vessels_are() -> None:
    world = World(stages=slots(2))
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        await scheduler.enqueue([world.tasks["work"].call(seconds=5) for _ in range(5)])
        await world.clock.settle()
        health = scheduler.health()
        assert (health.status, health.jobs) == ("ok", 1)
        assert health.pool is not None
        assert health.pool.running == 2
        assert [fill.name for fill in health.vessels] == ["execution_broadcaster", "node_selector", "executor"]
        assert health.stages is not None
        stages = next(child for child in health.stages.children if child.name == "stages")
        assert [child.name for child in stages.children] == [
            "job_broadcaster",
            "execution_broadcaster",
            "node_selector",
            "executor",
        ]
        assert health.as_dict()["status"] == "ok"
        scheduler.stop(hard=True)

    assert scheduler.health().status == "stopped"


async def test_events_tell_the_life_of_a_job() -> None:
    world = World()
    async with world.running_with() as scheduler:
        heard = Heard(scheduler)
        await scheduler.add_job(world.job("job", Every(1)))
        await world.pass_time(2)
        await scheduler.pause_job("job")
        await scheduler.remove_job("job")

    kinds_told = [type(event) for event in heard.events]
    assert kinds_told == [
        JobAdded,
        *[ExecutionStarted, ExecutionStopped] * 2,
        JobUpdated,
        JobRemoved,
    ]


async def test_what_was_missed_is_told() -> None:
    world = World()
    job = world.job("job", Cron("0 * * * *"))
    async with world.running_with(job) as scheduler:
        heard = Heard(scheduler)
        world.clock.suspend(3600 * 5)
        await world.pass_time(60)

    (event,) = heard.of(ExecutionsMissed)
    assert (event.kind, event.first_time, event.last_time, event.count) == (
        Kind.COALESCED,
        world.at(3600),
        world.at(5 * 3600 - 0.000001),
        4,
    )


async def test_what_was_missed_is_counted_where_that_is_quick_and_told_only_where_there_is_some() -> None:
    world = World()
    jobs = [
        world.job("often", Every(1)),
        world.job("seldom", Every(60) - Every(120)),
        world.job("never", Every(60) - Once(world.at(10**8))),
    ]
    async with world.running_with(*jobs) as scheduler:
        heard = Heard(scheduler)
        world.clock.suspend(180.5)
        await world.pass_time(30)

    told = {(event.job, event.kind.value, event.count) for event in heard.of(ExecutionsMissed)}
    assert told == {
        ("often", "coalesced", None),
        ("seldom", "excluded", 1),
        ("seldom", "coalesced", 1),
        ("never", "coalesced", 2),
    }


async def test_an_execution_that_died_with_its_node_and_is_not_tried_again_is_told() -> None:
    world = World()
    dead = Node("dead", "there", to_instant(world.start), 0)
    call = world.tasks["note"].call()
    async with world.scheduler() as scheduler:
        lost, kept = [(await scheduler.enqueue(call, after=60, recovery=recovery)).id for recovery in ("fail", "retry")]
    world.storage.open(dead, to_instant(world.start))
    assert len(world.storage.start(dead.id, to_instant(world.at(60)), items=[lost, kept]).claims) == 2
    world.storage.close()

    scheduler = world.scheduler()
    heard = Heard(scheduler)
    async with scheduler:
        await world.pass_time(61)
        assert (await scheduler.get_execution(kept)).state is State.SUCCEEDED

    (failed,) = heard.of(ExecutionFailed)
    assert (failed.execution_id, failed.kind, failed.task, failed.will_retry) == (
        *(lost, FailureKind.NODE_LOST, "note", False),
    )
    assert failed.error == "NodeLost: node dead died while it ran"


async def test_a_subscriber_hears_the_events_in_order_and_a_slow_one_loses_the_oldest() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        with scheduler.events(buffer=3, events=[ExecutionStarted]) as happenings:
            await world.pass_time(5)
            times = [(await anext(happenings)).happened_at for _ in range(3)]

    assert happenings.dropped == 2
    assert times == [world.at(3), world.at(4), world.at(5)]


async def test_a_handler_that_raises_harms_nobody() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        scheduler.attach(lambda event: 1 / 0)
        await world.pass_time(3)
        assert scheduler.health().ok
        assert await states(scheduler, "job") == [State.SUCCEEDED] * 3


async def test_history_beyond_the_retention_goes_and_law_1_holds_for_the_rest(tmp_path: object) -> None:
    world = World(storage=SQLiteStorage(f"{tmp_path}/jobs.db", synchronous="NORMAL"))
    world.stages = Stages(retention=60, sweep=10, loop_blocked=None, heartbeat=30, lease=90)
    async with world.running_with(world.job("job", Every(10))) as scheduler:
        await world.pass_time(200)
        assert len(await executions_of(scheduler, "job")) < 10
        assert await violations(scheduler) == []
        assert chain_of(scheduler).lane.state == "ok"

    assert len(world.times("job")) == 20


async def test_the_sweeper_deletes_in_batches_what_has_ended_and_is_restarted_when_it_crashes(tmp_path: object) -> None:
    store = FaultyStorage(SQLiteStorage(f"{tmp_path}/jobs.db", synchronous="NORMAL"))
    limits: list[int] = []
    swept = store.inner.delete_history

    def delete_history(before: int, limit: int) -> DeletedHistory:
        limits.append(limit)
        return swept(before, limit)

    store.inner.delete_history = delete_history  # type: ignore[method-assign]
    world = World(storage=store.storage)
    world.stages = Stages(retention=60, sweep=10, loop_blocked=None, heartbeat=30, lease=90)
    async with world.running_with() as scheduler:
        heard = Heard(scheduler)
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(1200)])
        waits = await scheduler.enqueue(world.tasks["note"].call(), after=3600)
        runs = await scheduler.enqueue(world.tasks["wait"].call())
        await world.pass_time(55)
        assert (await scheduler.stats())[State.SUCCEEDED] == 1200
        store.fail("delete_history", RuntimeError, times=2)  # a call that fails is tried alone first
        limits.clear()
        await world.pass_time(20)
        assert (await scheduler.stats())[State.SUCCEEDED] == 0
        assert (await waits.state(), await runs.state()) == (State.PENDING, State.RUNNING)
        world.open_gate()

    assert limits[:3] == [500, 500, 500]
    assert [event.stage for event in heard.of(StageRestarted)] == ["sweeper"]
