"""The cases GS1 to GS14 of `contracts.md`: demand, back-pressure, crashes and the end of the chain.

GS15, the random interleaving, is a property test of its own.
"""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from clepsydra import (
    Every,
    ExecutionFilter,
    ExecutorSettings,
    Once,
    Overlap,
    RestartLimitReached,
    SchedulerFailed,
    SQLiteStorage,
    Stages,
    State,
    Task,
)
from clepsydra.model.events import StageRestarted
from clepsydra.stages.channel import Channel

from .support import FaultyStorage, Heard, World, chain_of, runtime_of, slots, violations

pytestmark = pytest.mark.anyio


async def test_gs01_never_more_than_the_slots_run_at_once() -> None:
    world = World(stages=slots(5))
    async with world.running_with() as scheduler:
        await scheduler.enqueue([world.tasks["work"].call(seconds=1 + index % 3) for index in range(50)])
        await world.pass_time(30)

    assert world.most_running == 5
    assert len(world.ended) == 50


async def test_gs02_ten_thousand_due_fires_wait_in_the_store_and_none_is_lost() -> None:
    world = World(stages=slots(10))
    jobs = [world.job(f"job{index}", Once(world.at(5)), "work", args={"seconds": 0}) for index in range(10_000)]
    async with world.running_with(world.job("wall", Every(1), "wait", overlap=Overlap.ALLOW)) as scheduler:
        await world.pass_time(4.5)
        await scheduler.add_jobs(jobs)
        await world.pass_time(20)
        chain = chain_of(scheduler)
        # Memory: what waits in the chain is bounded by the slots, not by what is due.
        assert world.most_running == 10
        assert sum(fill.waiting for fill in chain.fills()) == 0
        assert len(chain.pool.running()) == 10
        await scheduler.remove_job("wall")
        world.open_gate()
        await world.pass_time(5)
        assert (await scheduler.stats(ExecutionFilter(tasks=["work"])))[State.SUCCEEDED] == 10_000


async def test_gs03_a_command_is_answered_at_once_while_all_slots_are_busy() -> None:
    world = World(stages=slots(2))
    async with world.running_with(*(world.job(f"job{index}", Every(1), "wait") for index in range(10))) as scheduler:
        await world.pass_time(5)
        before = world.clock.monotonic()
        await scheduler.remove_job("job7")
        await scheduler.pause_job("job8")
        await scheduler.stop_job("job9")
        assert world.clock.monotonic() == before
        world.open_gate()


async def test_gs04_a_freed_slot_is_taken_at_once() -> None:
    """Quantum asks in steps of half its slots: 26 hanging jobs of 50 stop it."""
    world = World(stages=slots(50))
    async with world.running_with() as scheduler:
        hung = await scheduler.enqueue([world.tasks["wait"].call() for _ in range(50)])
        waiting = await scheduler.enqueue([world.tasks["note"].call() for _ in range(3)])
        await world.pass_time(1)
        await hung[0].cancel()
        await world.clock.settle()
        assert [await handle.state() for handle in waiting] == [State.SUCCEEDED] * 3
        world.open_gate()


async def test_gs05_the_first_events_reach_a_reader_that_attends_late() -> None:
    world = World()
    told: list[str] = []
    channel = Channel[str]("late", 2, world.clock, on_room=lambda: told.append("room"))

    assert not channel.send_nowait("nobody attends")
    with channel.attended():
        assert told == ["room"]
        assert channel.send_nowait("first")
        assert await channel.receive() == "first"


async def test_gs05_jobs_declared_before_the_chain_stands_fire_from_the_first_instant_on() -> None:
    world = World()
    async with world.scheduler(*(world.job(f"job{index}", Every(1)) for index in range(200))):
        await world.pass_time(1)

    assert len(world.ran) == 200


async def test_gs06_a_command_is_answered_when_its_effect_is_in_the_store() -> None:
    world = World()
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        await scheduler.pause_job("tick")
        (record,) = list(world.storage.load_jobs() or ())
        assert record.state == scheduler.get_job("tick").state == "paused"


async def test_gs07_a_stop_with_grace_lets_the_running_end_and_leaves_the_queued_pending() -> None:
    world = World(stages=slots(5))
    scheduler = world.scheduler()
    async with scheduler:
        await scheduler.enqueue([world.tasks["work"].call(seconds=3) for _ in range(10)])
        await world.pass_time(1)
    rows = world.storage.list_executions().items

    assert [row.state for row in rows] == [State.SUCCEEDED] * 5 + [State.PENDING] * 5
    assert len(world.ended) == 5
    assert not scheduler.health().ok


async def test_gs08_a_stop_is_bounded_though_a_job_ignores_its_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    world = World(stages=Stages(grace=2, loop_blocked=None))
    release = anyio.Event()
    ids: list[str] = []

    async with anyio.create_task_group() as group:

        async def stubborn() -> None:
            with anyio.CancelScope(shield=True), world.clock.resting():
                await release.wait()

        stubborn_task = Task(stubborn, "stubborn")
        async with world.scheduler(tasks=[stubborn_task]) as scheduler:
            ids.append((await scheduler.enqueue(stubborn_task.call())).id)
            await world.pass_time(1)
            group.start_soon(release_when, world, 9, release)
        assert world.clock.monotonic() < 20
    (row,) = world.storage.get_executions(ids).values()

    assert row.state in (State.RUNNING, State.PENDING, State.SUCCEEDED)
    assert "still running after the grace" in caplog.text


async def release_when(world: World, at: float, event: anyio.Event) -> None:
    await world.clock.sleep(at)
    event.set()


async def test_gs09_nothing_is_claimed_after_a_drain_during_catching_up() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        *(world.job(f"job{index}", Every(1), "work", args={"seconds": 0.5}) for index in range(20))
    ) as scheduler:
        await world.pass_time(3)
        claimed = len(world.ran)
        assert await world.clock_moves(scheduler.drain())
        await world.pass_time(10)

        assert len(world.ran) == claimed
        assert world.running == 0


async def test_gs10_an_outcome_that_is_being_written_survives_a_cancellation_from_outside(tmp_path: Path) -> None:
    world = World(storage=SQLiteStorage(tmp_path / "jobs.db"))
    ids: list[str] = []
    async with anyio.create_task_group() as group:
        scheduler = world.scheduler()
        await group.start(scheduler.run)
        ids.append((await scheduler.enqueue(world.tasks["work"].call(seconds=5))).id)
        await world.pass_time(1)
        ended = runtime_of(scheduler).ended
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await world.clock.pass_until(ended)
    async with world.scheduler() as again:
        assert (await again.get_execution(ids[0])).state is State.SUCCEEDED

    assert world.ended == ["work"]


async def test_gs11_a_hanging_call_to_the_store_leaves_the_others_responsive_and_shows_in_health(
    tmp_path: Path,
) -> None:
    """Ten seconds in the contract; here as long as the test holds it."""
    store = FaultyStorage(SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))
    world = World(storage=store.storage)
    hangs, release = threading.Event(), threading.Event()
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        await world.pass_time(1)
        handle = await scheduler.enqueue(world.tasks["wait"].call())
        await world.clock.settle()

        def hang(operation: str) -> None:
            if operation == "heartbeat_node":
                hangs.set()
                release.wait(timeout=10)

        store.before = hang
        async with anyio.create_task_group() as group:
            group.start_soon(world.pass_time, 6)
            try:
                await anyio.to_thread.run_sync(hangs.wait, 10)
                # The writer hangs. What needs no store is there, and reading too; a running task can be stopped.
                assert scheduler.find_job("tick") is not None
                statistics = scheduler.health().store
                assert statistics is not None
                assert statistics.in_flight >= 1
                assert (await scheduler.get_execution(handle.id)).state is State.RUNNING
                assert chain_of(scheduler).pool.cancel(handle.id, "stopped by hand")
                with anyio.fail_after(5):
                    await wait_until_cut(world)
            finally:
                store.before = None
                release.set()
        await world.pass_time(2)

    assert world.cut == ["wait"]
    assert len(world.times("tick")) == len(set(world.nominals("tick"))) >= 8


async def wait_until_cut(world: World) -> None:
    while not world.cut:
        await anyio.lowlevel.checkpoint()


async def test_gs12_a_stage_that_crashes_four_times_in_five_seconds_fails_the_scheduler_loudly() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)

    async def body() -> None:
        async with world.running_with(world.job("tick", Every(1))) as scheduler:
            store.fail("fire", lambda: RuntimeError("a bug of ours"), times=100)
            await world.pass_time(20)
            assert scheduler.health().status == "failed"
            with pytest.raises(SchedulerFailed):
                await scheduler.add_job(world.job("other", Every(1)))

    with pytest.raises(SchedulerFailed, match="execution_broadcaster crashed 4 times within 5 s") as failed:
        await body()

    cause = failed.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert not isinstance(cause, RestartLimitReached)


async def test_gs12_three_crashes_are_borne() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        store.fail("fire", RuntimeError, times=3)
        await world.pass_time(4)
        assert await violations(scheduler) == []

    assert world.nominals("tick") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("step", "restarted"),
    [
        ("finish", ["executor"]),
        ("place", ["node_selector", "executor"]),
        ("fire", ["execution_broadcaster", "node_selector", "executor"]),
        ("changes", ["job_broadcaster", "execution_broadcaster", "node_selector", "executor"]),
    ],
)
async def test_gs13_a_crash_takes_down_what_leans_on_the_stage_and_nothing_above_it(
    step: str, restarted: list[str]
) -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1), run_on="mine"), strategies={"mine": Here()}) as scheduler:
        await world.pass_time(1.5)
        heard = Heard(scheduler)
        store.fail(step, RuntimeError)
        chain_of(scheduler).jobs_changed()
        await world.pass_time(2)

    assert [event.stage for event in heard.of(StageRestarted)] == restarted
    assert world.nominals("tick") == [1, 2, 3]


class Here:
    def choose(self, candidate: object, nodes: object) -> object:
        return [nodes[0].id]  # type: ignore[index]


async def test_gs14_a_queue_of_concurrency_one_keeps_the_order() -> None:
    """Decided differently: order per key is a queue with concurrency 1."""
    settings = Stages(executor=ExecutorSettings(queues={"key": 1}), loop_blocked=None)
    world = World(stages=settings)
    async with world.running_with() as scheduler:
        for index in range(20):
            await scheduler.enqueue(world.tasks["say"].call(f"{index:02}"), queue="key")
            await scheduler.enqueue(world.tasks["work"].call(seconds=0.1 * (index % 3)), queue="key")
        await world.pass_time(10)

    said = [name for name in world.names() if name != "work"]
    assert said == sorted(said)
    assert world.most_running == 1
