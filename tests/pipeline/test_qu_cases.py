"""The cases of Que in `contracts.md` that are the scheduler's: work whose process is gone, and no deadlock.

Those of its store are promises in `clepsydra.storage.promises`.
"""

from __future__ import annotations

import pytest

from clepsydra import Every, Execution, ExecutionFilter, Node, Recovery, State, Task, to_instant

from .support import FaultyStorage, World, chain_of, slots

pytestmark = pytest.mark.anyio


def dies_with(world: World, ids: list[str], seconds: float, process: int = 0) -> None:
    """Another process of this store starts these, and is gone before they end."""
    now = to_instant(world.at(seconds))
    node = Node(f"dead-{process}", "there", now, 0)
    world.storage.open(node, now)
    assert len(world.storage.start(node.id, now, items=ids).claims) == len(ids)
    world.storage.close()


@pytest.mark.parametrize("recovery", [Recovery.REQUEUE, Recovery.RETRY])
async def test_qu14_the_work_of_a_process_that_is_gone_runs_again(recovery: Recovery) -> None:
    """Decided differently: a second attempt, never a second execution."""
    world = World()
    async with world.scheduler() as scheduler:
        handle = await scheduler.enqueue(world.tasks["note"].call(), after=60, recovery=recovery)
    dies_with(world, [handle.id], 60)
    async with world.scheduler() as scheduler:
        await world.pass_time(61)
        execution = await scheduler.get_execution(handle.id)
        assert (execution.state, execution.attempt, execution.recoveries) == (State.SUCCEEDED, 1, 1)
        assert await scheduler.count_executions() == 1
        assert [past.ending for past in await scheduler.attempts(handle.id)] == ["lost"]

    assert len(world.ran) == 1


async def test_qu15_work_of_a_task_that_nobody_has_registered_waits_and_is_shown_and_the_rest_runs() -> None:
    world = World()
    gone: Task[[], None] = Task(lambda: None, "gone")
    async with world.scheduler(tasks=[gone]) as scheduler:
        waiting = await scheduler.enqueue(gone.call(), after=1, priority=9)
        await scheduler.add_job(world.job("tick", Every(1)))
        await scheduler.add_job(world.job("of_gone", Every(3600), "note"))
    async with world.scheduler() as scheduler:
        await world.pass_time(5)
        assert await scheduler.count_executions(ExecutionFilter(tasks="gone", states="incomplete")) == 1
        assert (await scheduler.get_execution(waiting.id)).attempt == 1
        assert scheduler.health().ok
    assert len(world.times("tick")) == 5

    async with world.scheduler(tasks=[Task(world.note, "new", aliases=["gone"])]) as scheduler:
        await world.pass_time(1)
        assert (await scheduler.get_execution(waiting.id)).state is State.SUCCEEDED


async def test_qu16_work_that_kills_its_process_each_time_fails_in_the_end() -> None:
    world = World()
    async with world.scheduler() as scheduler:
        handle = await scheduler.enqueue(world.tasks["note"].call(), after=3600, recoveries=2)
    ended: list[Execution] = []
    for restart in range(3):
        dies_with(world, [handle.id], 3600, restart)
        async with world.scheduler() as scheduler:
            while True:
                execution = await scheduler.get_execution(handle.id)
                if execution.recoveries > restart or execution.finished:
                    break
                await world.clock.settle()
            ended.append(execution)

    assert [execution.state for execution in ended] == [State.PENDING, State.PENDING, State.FAILED]
    assert "after 2 recoveries" in (ended[-1].error or "")
    assert world.ran == []


async def test_qu21_tasks_that_enqueue_work_of_another_task_do_not_stand_in_each_others_way() -> None:
    world = World(stages=slots(4))

    async def spawns(number: int) -> None:
        await scheduler.enqueue(world.tasks["say"].call(str(number)))

    task: Task[[int], object] = Task(spawns, "spawns")
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue([task.call(number) for number in range(100)])
        await world.pass_time(1)
        assert await scheduler.count_executions(ExecutionFilter(states="completed")) == 200
        assert await scheduler.count_executions() == 200

    assert sorted(world.names(), key=int) == [str(number) for number in range(100)]


@pytest.mark.parametrize("step", ["start", "finish"])
async def test_qu23_what_runs_while_the_executor_crashes_does_not_run_a_second_time(step: str) -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["work"].call(seconds=10))
        await world.pass_time(1)
        store.fail(step, RuntimeError)
        await scheduler.enqueue(world.tasks["note"].call())
        await world.pass_time(5)
        assert len(chain_of(scheduler).pool.running()) == 1
        await world.pass_time(10)
        assert (await handle.fetch()).attempt_id == handle.id

    assert world.times("work") == [0]
    assert world.names().count("note") == 1
