"""Stories of tries: a backoff of the task's own, and a timeout that is counted from the nominal time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from clepsydra import Every, Retry, Run, State, Task, current_execution

from .support import World, executions_of

pytestmark = pytest.mark.anyio


def jobqueues(attempt: int) -> timedelta:
    """The table of jobqueue: nothing for the first retry, then 10 ms, 100 ms, 1 s, ..."""
    return timedelta(milliseconds=10 ** (attempt - 1)) if attempt > 1 else timedelta(0)


async def tries(world: World, retry: Retry, **options: Any) -> list[float]:
    """When a task that always fails is tried, in seconds, with these options of its own."""
    task: Task[..., Any] = Task(world.tasks["fail"].function, "task", **options)
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), retry=retry)
        await world.pass_time(3600)
        assert await handle.state() is State.FAILED
    return [round(time, 3) for time in world.times("task")]


async def test_jq07_a_task_has_the_backoff_of_jobqueue_by_a_function_of_its_own() -> None:
    """Decided differently: our own default begins at 1 s and doubles."""
    times = await tries(World(), Retry(7), backoff=jobqueues)

    assert times == [0, 0, 0.01, 0.11, 1.11, 11.11, 111.11]


async def test_a_backoff_of_its_own_knows_the_error_and_the_policy_says_how_often() -> None:
    def patient(attempt: int, error: BaseException) -> float:
        return 60 if isinstance(error, ValueError) else attempt

    assert await tries(World(), Retry(3), backoff=patient) == [0, 60, 120]
    assert await tries(World(), Retry(3, give_up_on=[ValueError]), backoff=patient) == [0]


@pytest.mark.parametrize("wrong", [lambda: -1, lambda: "soon", lambda: 1 / 0, lambda: exit(1)])
async def test_a_backoff_that_fails_gives_way_to_that_of_the_policy(wrong: Any) -> None:
    assert await tries(World(), Retry(3, backoff=5, factor=2, jitter=0), backoff=wrong) == [0, 5, 15]


# A timeout from the nominal time.


async def test_or35_what_could_not_begin_within_its_timeout_fails_at_once_and_burns_no_retries() -> None:
    """Ora's case: the target was an hour ago, with three retries."""
    world = World()
    told: list[str] = []
    plain: Task[..., Any] = Task(world.tasks["note"].function, "plain")
    hooked: Task[..., Any] = Task(world.tasks["note"].function, "hooked")

    @hooked.on_failure
    def tell(run: Run, error: BaseException) -> None:
        told.append(f"{run.state}: {error}")

    async with world.scheduler(tasks=[plain, hooked]) as scheduler:
        for task in (plain, hooked):
            handle = await scheduler.enqueue(
                task.call(), at=world.at(-3600), timeout=60, timeout_from="nominal", retry=Retry(4)
            )
            row = await handle.wait(timeout=1)
            assert (row.state, row.attempt) == (State.FAILED, 1)
            assert row.error is not None
            assert "TimeoutError: timed out after 60 s, counted from when it was due" in row.error

    assert world.ran == []
    assert told == ["failed: timed out after 60 s, counted from when it was due"]


async def test_all_tries_together_have_the_time_and_one_that_could_not_begin_in_it_is_not_made() -> None:
    world = World()
    job = world.job(
        "job", Every(100), "fail", timeout=30, timeout_from="nominal", retry=Retry(9, backoff=12, factor=1, jitter=0)
    )
    async with world.running_with(job) as scheduler:
        await world.pass_time(190)
        (row,) = await executions_of(scheduler, "job")

    assert world.times("job") == [100, 112, 124]
    assert row.state is State.FAILED
    assert row.error is not None
    assert "ValueError: on purpose" in row.error
    assert row.error.endswith("no further try: it could not begin within 30 s of its nominal time")


async def test_a_try_ends_when_the_time_since_the_nominal_time_is_over() -> None:
    world = World()
    ended: list[float] = []

    async def long() -> None:
        if current_execution().attempt == 1:
            raise ConnectionError
        try:
            await current_execution().sleep(1000)
        finally:
            ended.append((world.clock.time - world.start).total_seconds())

    task: Task[..., Any] = Task(long, "long")
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(
            task.call(), after=100, timeout=30, timeout_from="nominal", retry=Retry(3, backoff=10, jitter=0)
        )
        await world.pass_time(200)
        error = await handle.error()

    assert ended == [130]
    assert error is not None
    assert "TimeoutError: timed out after 30 s, counted from when it was due" in error
    assert error.endswith("no further try: it could not begin within 30 s of when it was due")


@pytest.mark.parametrize("timeout_from", ["start", "nominal"])
async def test_or36_a_timeout_beyond_all_measure_never_comes(timeout_from: str) -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(
            world.tasks["work"].call(seconds=86400), timeout=timedelta.max, timeout_from=timeout_from
        )
        await world.pass_time(2 * 86400)

        assert await handle.state() is State.SUCCEEDED
