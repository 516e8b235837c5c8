"""Every stage is killed at every step of its work: no fire is lost or doubled, what runs is not touched (laws 2, 4).

A step is a call to the store, which belongs to one stage each, or a move on the channels and the pool. The fault
strikes before the step has taken effect or after it, at the first call after the chain has come to speed, and later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from clepsydra import Every, ExecutionFilter, ExecutionHandle, Once, Overlap, Random, Retry, Scheduler, State
from clepsydra.model.events import StageRestarted

from .support import Fault, FaultyStorage, Heard, When, World, chain_of, executions_of, grid, violations

pytestmark = pytest.mark.anyio


class Killed(RuntimeError):
    """What a stage of these tests dies of."""


STORE_STEPS = [
    ("job_broadcaster", "changes"),
    ("execution_broadcaster", "fire"),
    ("execution_broadcaster", "next_due"),
    ("execution_broadcaster", "ready"),
    ("execution_broadcaster", "list_executions"),
    ("node_selector", "place"),
    ("executor", "start"),
    ("executor", "finish"),
]
CHANNEL_STEPS = [
    ("job_broadcaster", "news.send_nowait"),
    ("execution_broadcaster", "news.receive"),
    ("execution_broadcaster", "due.send_nowait"),
    ("node_selector", "due.receive"),
    ("node_selector", "placed.send_nowait"),
    ("executor", "placed.receive"),
    ("executor", "pool.submit"),
    ("executor", "pool.outcomes"),
    ("executor", "pool.acknowledge"),
]
WHEN: list[When] = ["before", "after"]


def jobs_of(world: World) -> list[Any]:
    return [
        world.job("tick", Every(2)),
        world.job("placed", Every(3), run_on=Random()),
        world.job("chained", Every(4, after_completion=True), "work", args={"seconds": 1}),
        world.job("slow", Every(10), "work", args={"seconds": 4}, overlap=Overlap.BUFFER_ALL),
        world.job("long", Once(world.at(1)), "work", args={"seconds": 45}),
        world.job("limited", Every(5), limit=7),
    ]


async def live_through(world: World, scheduler: Scheduler, arm: Callable[[], object]) -> None:
    """Ten seconds at peace, then the fault, with commands and enqueued work beside what the jobs do; then audit."""
    await scheduler.add_jobs(jobs_of(world))
    await world.pass_time(10.5)
    arm()
    handles: list[ExecutionHandle] = []
    for index in range(4):
        retry = Retry(attempts=2, backoff=1)
        handles.append(await scheduler.enqueue(world.tasks["say"].call(f"call{index}"), after=index, retry=retry))
        await scheduler.add_job(world.job(f"late{index}", Every(3)))
        if index == 2:
            await scheduler.run_job("tick")
            scheduler_jobs_changed(scheduler)
        await world.pass_time(5)
    await world.pass_time(29)

    for handle in handles:
        assert (await handle.fetch()).state is State.SUCCEEDED
    assert await violations(scheduler) == []
    unfinished = await scheduler.executions(ExecutionFilter(states=[State.PENDING, State.PLACING, State.HELD]))
    assert list(unfinished.items) == []


def scheduler_jobs_changed(scheduler: Scheduler) -> None:
    """As when a job has ended by itself: the job broadcaster asks the store what has changed."""
    chain_of(scheduler).jobs_changed()


def check_runs(world: World) -> None:
    assert world.nominals("tick") == grid(2, 58, 2)
    assert world.nominals("placed") == grid(3, 57, 3)
    assert world.nominals("slow") == grid(10, 50, 10)
    assert world.nominals("limited") == grid(5, 35, 5)
    assert len(world.times("chained")) == len(set(world.times("chained"))) >= 11
    for index in range(4):
        assert len(world.nominals(f"late{index}")) == len(set(world.nominals(f"late{index}"))) > 10
    assert all(count == 1 for name, count in Counter(world.names()).items() if name.startswith("call"))
    # What ran when the stage died was never touched: one attempt, to its own end.
    assert world.times("long") == [1]
    assert "long" in world.ended
    assert world.cut == []


@pytest.mark.parametrize("skip", [0, 3])
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(("stage", "step"), STORE_STEPS)
async def test_a_stage_killed_at_a_call_to_the_store(stage: str, step: str, when: When, skip: int) -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    faults: list[Fault] = []
    async with world.scheduler() as scheduler:
        heard = Heard(scheduler)
        await live_through(world, scheduler, lambda: faults.append(store.fail(step, Killed, when, skip=skip)))
        assert scheduler.health().ok
    if faults[0].struck:
        assert heard.of(StageRestarted)[0].stage == stage
    else:
        assert (step, skip) in {("changes", 3), ("ready", 0), ("ready", 3)}, "this step was never reached"
    check_runs(world)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(("stage", "step"), CHANNEL_STEPS)
async def test_a_stage_killed_at_a_move_on_its_channels(
    stage: str, step: str, when: When, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    fault = Fault(step, Killed, when, skip=2)
    async with world.scheduler() as scheduler:
        heard = Heard(scheduler)
        await live_through(world, scheduler, lambda: arm(scheduler, step, fault, monkeypatch))
        assert scheduler.health().ok
    assert fault.struck == 1
    assert heard.of(StageRestarted)[0].stage == stage
    check_runs(world)


def arm(scheduler: Scheduler, step: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fault around a method of a channel or of the pool."""
    owner, method = step.split(".")
    target = getattr(chain_of(scheduler), owner)
    inner = getattr(target, method)

    def around(*args: Any, **kwargs: Any) -> Any:
        if fault.when == "before":
            fault.strikes()
        answer = inner(*args, **kwargs)
        if fault.when == "after":
            fault.strikes()
        return answer

    async def around_async(*args: Any, **kwargs: Any) -> Any:
        if fault.when == "before":
            fault.strikes()
        answer = await inner(*args, **kwargs)
        if fault.when == "after":
            fault.strikes()
        return answer

    monkeypatch.setattr(target, method, around_async if method == "receive" else around)


@pytest.mark.parametrize("step", ["load_jobs", "next_due", "unplaced", "running", "rescue"])
async def test_a_stage_killed_while_it_starts(step: str) -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(2))):
        await world.pass_time(3)
    fault = store.fail(step, Killed)
    async with world.scheduler() as scheduler:
        await world.pass_time(3.5)
        assert await violations(scheduler) == []

    assert fault.struck == 1
    assert world.nominals("tick") == [2, 4, 6]


async def test_a_stage_that_dies_again_while_it_recovers_recovers_once_more() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(2))) as scheduler:
        await world.pass_time(3)
        store.fail("start", Killed, "after")
        store.fail("running", Killed, "after")
        await world.pass_time(5)
        assert await violations(scheduler) == []
        assert {execution.state for execution in await executions_of(scheduler, "tick")} == {State.SUCCEEDED}

    assert world.nominals("tick") == [2, 4, 6, 8]


async def test_a_command_whose_stage_dies_after_the_store_has_it_is_answered_by_the_next_incarnation() -> None:
    world = World()
    async with world.scheduler() as scheduler:
        chain = chain_of(scheduler)
        send, struck = chain.news.send_nowait, 0

        def die_once(item: Any) -> bool:
            nonlocal struck
            struck += 1
            if struck == 1:
                raise Killed
            return send(item)

        chain.news.send_nowait = die_once  # type: ignore[method-assign]
        await scheduler.add_job(world.job("tick", Every(2)))
        await world.pass_time(4)

    assert world.times("tick") == [2, 4]
