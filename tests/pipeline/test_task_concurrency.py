"""Stories of tasks of which only so many may run at once: what waits stands in nobody's way and is not forgotten."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from clepsydra import Every, InvalidArgument, Job, Retry, SQLiteStorage, State, Task, UnknownTask, current_execution

from .support import World, slots, violations

pytestmark = pytest.mark.anyio


def limited_to(world: World, concurrency: int | None, *aliases: str) -> Task[..., Any]:
    """`work`, of which only so many may run at once."""
    return Task(world.tasks["work"].function, "limited", aliases, concurrency=concurrency)


@pytest.mark.parametrize(
    ("concurrency", "count", "at_once"),
    [
        pytest.param(1, 3, 1, id="qu9"),
        pytest.param(4, 4, 4, id="qu10"),
        pytest.param(None, 20, 20, id="qu11"),
        pytest.param(3, 20, 3, id="more than fit"),
    ],
)
async def test_qu09_qu10_qu11_as_many_of_a_task_run_at_once_as_it_says(
    concurrency: int | None, count: int, at_once: int
) -> None:
    world = World()
    task = limited_to(world, concurrency)
    async with world.scheduler(tasks=[task]) as scheduler:
        handles = await scheduler.enqueue([task.call(seconds=1) for _ in range(count)])
        await world.pass_time(count)

        assert [await handle.state() for handle in handles] == [State.SUCCEEDED] * count
    assert world.most_running == at_once
    assert [ran.execution_id for ran in world.ran] == [handle.id for handle in handles]
    assert [ran.at for ran in world.ran] == [index // at_once for index in range(count)]


async def test_qu13_what_waited_at_the_boot_runs_as_many_at_once_as_the_task_says() -> None:
    world = World()
    task = limited_to(world, 4)
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        await scheduler.enqueue([task.call(seconds=1) for _ in range(8)], after=10)
    world.clock.step(20)

    async with scheduler:
        await world.pass_time(2)

    assert world.times("limited") == [20] * 4 + [21] * 4


@pytest.mark.parametrize("by_file", [False, True])
async def test_a_task_that_is_full_and_hangs_keeps_no_other_of_its_queue_waiting(by_file: bool, tmp_path: Any) -> None:
    world = World(stages=slots(4), storage=SQLiteStorage(tmp_path / "jobs.db") if by_file else World().storage)
    hung: Task[..., Any] = Task(world.tasks["wait"].function, "hung", concurrency=2)
    async with world.scheduler(tasks=[hung]) as scheduler:
        await scheduler.enqueue([hung.call() for _ in range(100)], priority=9)
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(50)])
        await scheduler.add_job(world.job("tick", Every(1)))
        await world.pass_time(3)

        assert world.running == 2
        assert world.names().count("note") == 50
        assert world.times("tick") == [1, 2, 3]
        world.open_gate()
        await world.pass_time(1)
        assert world.running == 0
        assert world.names().count("hung") == 100


async def test_jobs_of_a_full_task_wait_for_one_another_and_each_time_is_accounted_for() -> None:
    world = World()
    task = limited_to(world, 1)
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.add_jobs([Job(name, task.call(seconds=4), Every(10)) for name in ("first", "second")])
        await world.pass_time(29)

        assert await violations(scheduler) == []
    assert sorted(world.times("first") + world.times("second")) == [10, 14, 20, 24]


async def test_the_names_of_a_task_share_its_concurrency() -> None:
    world = World()
    task = limited_to(world, 2, "old_name")
    async with world.scheduler(tasks=[task]) as scheduler:
        old: Task[..., Any] = Task(world.tasks["work"].function, "old_name")
        await scheduler.enqueue([task.call(seconds=1), old.call(seconds=1)] * 3)
        await world.pass_time(5)

    assert len(world.ran) == 6
    assert world.most_running == 2


async def test_the_concurrency_of_a_task_is_tuned_while_it_runs() -> None:
    world = World()
    task = limited_to(world, 1)
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue([task.call(seconds=10) for _ in range(12)])
        await world.pass_time(1)
        assert world.running == 1

        scheduler.tune(tasks={"limited": 3})
        await world.pass_time(1)
        assert world.running == 3
        scheduler.tune(tasks={"limited": 2})
        await world.pass_time(9)
        assert world.running == 2
        scheduler.tune(tasks={"limited": None})
        await world.pass_time(1)
        assert len(world.ran) == 12

        scheduler.tune(tasks={"work": 1})
        await scheduler.enqueue([world.tasks["work"].call(seconds=1) for _ in range(3)])
        await world.pass_time(0.5)
        assert world.names().count("work") == 1
        with pytest.raises(UnknownTask, match="nobody"):
            scheduler.tune(tasks={"nobody": 1})
        with pytest.raises(InvalidArgument, match="tasks"):
            scheduler.tune(tasks={"limited": 0})


@pytest.mark.parametrize(("seed", "by_file"), [(1, False), (5, False), (24, False), (4, True)])
async def test_whatever_comes_no_task_runs_more_often_than_it_may_and_nothing_is_forgotten(
    seed: int, by_file: bool, tmp_path: Any
) -> None:
    """Three tasks with other limits, two queues with few slots, jobs, priorities, delays, retries, changing limits."""
    random = Random(seed)
    storage = SQLiteStorage(tmp_path / "jobs.db") if by_file else World().storage
    queues = {"narrow": 3, "wide": 6}
    world = World(stages=slots(2, queues=queues), storage=storage)
    limits: dict[str, int | None] = {"one": 1, "two": 2, "any": None}
    running: Counter[str] = Counter()
    too_many: list[str] = []

    async def work(seconds: float, fails: bool) -> None:
        run = current_execution()
        running.update((run.task, run.queue))
        most = limits[run.task]
        if (most is not None and running[run.task] > most) or running[run.queue] > queues[run.queue]:
            too_many.append(run.name)
        try:
            await run.sleep(seconds)
            assert not fails or run.attempt == 2
        finally:
            running.subtract((run.task, run.queue))

    tasks: dict[str, Task[..., Any]] = {name: Task(work, name, concurrency=most) for name, most in limits.items()}
    call = tasks["any"].call(0.5, False)
    jobs = [Job(name, call, Every(0.7), queue="narrow", overlap="allow", limit=12) for name in "abc"]
    async with world.scheduler(*jobs, tasks=tasks.values()) as scheduler:
        for _ in range(40):
            call = random.choice(list(tasks.values())).call(random.choice((0, 0.3, 2)), random.random() < 0.2)
            await scheduler.enqueue(
                [call] * random.choice((1, 1, 5)),
                queue=random.choice(("narrow", "wide")),
                priority=random.choice((0, 0, 5)),
                after=random.choice((None, None, 1, 3)),
                retry=Retry(2, backoff=1),
            )
            if random.random() < 0.1:
                limits["two"] = max(running["two"], random.choice((1, 3)))
                scheduler.tune(tasks={"two": limits["two"] or 1})
            await world.pass_time(random.choice((0, 0.1, 0.5)))
        limits["two"] = max(running["two"], 2)
        scheduler.tune(tasks={"two": 2})
        await world.pass_time(200)

        stats = await scheduler.stats()
        assert {state: count for state, count in stats.items() if count} == {State.SUCCEEDED: sum(stats.values())}
        assert too_many == []


async def test_a_long_line_for_a_full_task_is_not_looked_through_for_each_that_ends() -> None:
    world = World(stages=slots(64))
    asked: list[int] = []
    start = world.storage.start

    def counted(*args: Any, **options: Any) -> Any:
        free: dict[str, int] = options["free"] or {}
        asked.extend(free.values())
        return start(*args, **options)

    world.storage.start = counted  # type: ignore[method-assign]
    task = limited_to(world, 2)
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue([task.call(seconds=1)] * 100)
        await world.pass_time(49)
        asked_meanwhile = asked[2:]
        await world.pass_time(2)

    assert len(world.ran) == 100
    assert set(asked_meanwhile) <= {1, 2}  # as many as it has room for, and never all the slots of the queue


async def test_what_a_full_task_is_given_in_a_queue_of_its_own_is_not_forgotten() -> None:
    world = World()
    task = limited_to(world, 1)
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue(task.call(seconds=5), queue="first")
        await world.pass_time(1)
        await scheduler.enqueue(task.call(seconds=5), queue="second")
        await world.pass_time(9)

    assert world.times("limited") == [0, 5]
