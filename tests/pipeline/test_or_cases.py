"""The cases of Ora in `contracts.md` that are the scheduler's: catching up, spans of time, timeouts, results.

Those of its backend are promises in `clepsydra.storage.promises`, those of values in `tests/unit/model`.
"""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from clepsydra import Cron, Every, JobState, Kind, Misfire, Retry, Schedule, State, Task

from .support import World, executions_of, kinds, verdicts, violations

pytestmark = pytest.mark.anyio


async def test_or31_times_that_are_caught_up_with_run_one_after_the_other() -> None:
    world = World()
    job = world.job("job", Every(60), "work", args={"seconds": 7}, misfire=Misfire("all"))
    async with world.running_with(job) as scheduler:
        world.clock.suspend(60 * 5)
        await world.pass_time(59)
        assert world.nominals("job") == [60, 120, 180, 240, 300]
        first = world.times("job")[0]
        assert world.times("job") == [first + 7 * index for index in range(5)]
        assert world.most_running == 1
        assert await violations(scheduler) == []


@pytest.mark.parametrize("schedule", [Every(60), Cron("* * * * *")])
async def test_or32_a_job_whose_span_is_over_is_stopped(schedule: Schedule) -> None:
    world = World()
    async with world.running_with(world.job("job", schedule.between(None, world.at(150)))) as scheduler:
        await world.pass_time(600)
        record = scheduler.get_job("job")
        assert (record.state, record.reason) == (JobState.STOPPED, "exhausted")
        assert await kinds(scheduler, "job") == [Kind.FIRED, Kind.FIRED]

    assert world.times("job") == [60, 120]


@pytest.mark.parametrize("schedule", [Every(60), Cron("* * * * *")])
async def test_or33_a_job_whose_span_is_to_come_fires_from_its_start_on(schedule: Schedule) -> None:
    world = World()
    async with world.running_with(world.job("job", schedule.between(world.at(120), None))) as scheduler:
        assert scheduler.next_run("job") == world.at(120)
        await world.pass_time(200)
        assert [verdict.nominal for verdict in await verdicts(scheduler, "job")] == [world.at(120), world.at(180)]


@pytest.mark.parametrize("length", [timedelta.max, 1e18, math.nextafter(math.inf, 0)])
async def test_or36_a_length_beyond_every_calendar_means_never(length: timedelta | float) -> None:
    world = World()
    for_ever = Retry(attempts=2, backoff=length, max_backoff=length)
    async with world.running_with() as scheduler:
        long = await scheduler.enqueue(world.tasks["work"].call(seconds=86_400), timeout=length, start_by=length)
        never = await scheduler.enqueue(world.tasks["note"].call(), after=length)
        waits = await scheduler.enqueue(world.tasks["fail"].call(), retry=for_ever)
        await world.pass_time(100_000)
        assert await long.state() is State.SUCCEEDED
        assert await never.state() is State.PENDING
        execution = await waits.fetch()
        assert (execution.state, execution.attempt) == (State.PENDING, 2)
        assert (await never.fetch()).due.year == 9999


async def test_or39_a_result_that_cannot_be_kept_is_a_failure_that_is_tried_again() -> None:
    world = World()
    results: list[object] = [object(), {1, 2}, "fine"]

    async def gives() -> object:
        return results.pop(0)

    task: Task[[], object] = Task(gives, "gives")
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), retry=Retry(attempts=3, backoff=1))
        await world.pass_time(10)
        execution = await handle.fetch()
        past = await scheduler.attempts(handle.id)

    assert (execution.state, execution.attempt, execution.value) == (State.SUCCEEDED, 3, "fine")
    assert "result" in (past[0].error or "")
    assert "object" in (past[0].error or "")
    assert "set" in (past[1].error or "")


async def test_or08_a_job_goes_on_after_each_of_its_runs_however_it_ended() -> None:
    """With what runs one after another, by completion: the next follows the end of the last."""
    world = World()
    pause = Every(10, after_completion=True)
    async with world.running_with(
        world.job("succeeds", pause), world.job("fails", pause, "fail"), world.job("cancelled", pause, "wait")
    ) as scheduler:
        await world.pass_time(15)
        for execution in await executions_of(scheduler, "cancelled"):
            await scheduler.cancel_executions(ids=[execution.id])
        await world.pass_time(16)

    assert world.times("succeeds") == [10, 20, 30]
    assert world.times("fails") == [10, 20, 30]
    assert world.times("cancelled") == [10, 25]
