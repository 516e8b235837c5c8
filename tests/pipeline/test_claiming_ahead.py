"""A backlog of short runs is claimed ahead of its slots; what takes long, or is due, is not kept waiting by that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clepsydra import Every, Scheduler, SQLiteStorage, State, Task, current_execution
from clepsydra.stages.ahead import LONGEST_WAIT
from clepsydra.stages.worker_pool import WorkerPool
from clepsydra.storage.protocol import Claim

from .support import FaultyStorage, World, chain_of, slots, violations

pytestmark = pytest.mark.anyio


class SlowStore(FaultyStorage):
    """A SQLite file that starts more only when the pool has begun what it has, so that no race decides how many."""

    def __init__(self, path: Path) -> None:
        super().__init__(SQLiteStorage(path / "jobs.db", synchronous="NORMAL"))
        self.pool: WorkerPool | None = None
        self.before = self._let_the_pool_begin
        self.claimed: list[int] = []
        self.most_ahead = 0

    def watch(self, scheduler: Scheduler) -> None:
        pool = self.pool = chain_of(scheduler).pool
        submit = pool.submit

        def submitting(claims: Sequence[Claim]) -> None:
            submit(claims)
            self.most_ahead = max(self.most_ahead, pool.ahead("default"))

        pool.submit = submitting  # type: ignore[method-assign]

    def _let_the_pool_begin(self, operation: str) -> None:
        """In the writer's thread."""
        while operation == "start" and self.pool is not None and self.pool._waiting:  # pyright: ignore[reportPrivateUsage]
            time.sleep(0)  # only gives way to the event loop's thread

    def start(self, *args: Any, **kwargs: Any) -> Any:
        answer = self.__getattr__("start")(*args, **kwargs)
        self.claimed.append(len(answer.claims))
        return answer


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path)


async def test_a_backlog_of_short_runs_takes_few_transactions(store: SlowStore) -> None:
    world = World(storage=store.storage)
    async with world.scheduler() as scheduler:
        store.watch(scheduler)
        handles = await scheduler.enqueue([world.tasks["note"].call() for _ in range(3000)])
        await world.clock.settle()

        assert [ran.execution_id for ran in world.ran] == [handle.id for handle in handles]
        assert (await scheduler.stats())[State.SUCCEEDED] == 3000
        assert len(store.claimed) <= 32, "one for 64 would be 47"
        assert max(store.claimed) <= 1024
        assert not any(level.ahead for level in scheduler.health().queues)


async def test_never_do_more_run_at_once_than_there_are_slots(store: SlowStore) -> None:
    world = World(storage=store.storage, stages=slots(16))
    async with world.scheduler() as scheduler:
        store.watch(scheduler)
        await scheduler.enqueue([world.tasks["work"].call(seconds=0.001) for _ in range(1000)])
        await world.pass_time(1)

        assert len(world.ended) == 1000
        assert world.most_running == 16
        assert store.most_ahead > 0


async def test_what_waits_behind_long_tasks_is_given_back(store: SlowStore) -> None:
    world = World(storage=store.storage, stages=slots(16))
    async with world.scheduler() as scheduler:
        store.watch(scheduler)
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(400)])
        await scheduler.enqueue([world.tasks["work"].call(seconds=10) for _ in range(300)])
        await world.clock.settle()
        (level,) = scheduler.health().queues
        assert (level.busy, level.slots) == (16, 16)
        assert level.ahead > 0

        await world.pass_time(LONGEST_WAIT)

        (level,) = scheduler.health().queues
        assert (level.busy, level.ahead) == (16, 0)
        stats = await scheduler.stats()
        assert (stats[State.RUNNING], stats[State.PENDING]) == (16, 284)
        most, store.most_ahead = store.most_ahead, 0
        await world.pass_time(300)
        assert (world.most_running, store.most_ahead) == (16, 0)
        assert most > 0
        assert len(world.ended) == 700
        assert {ran.attempt for ran in world.ran} == {1}


async def test_a_job_that_is_due_does_not_wait_for_the_end_of_a_backlog(store: SlowStore) -> None:
    world = World(storage=store.storage)

    async def brief() -> None:
        await current_execution().sleep(0.002)
        world.ended.append("brief")

    task = Task(brief, "brief")
    job = world.job("beside", Every(seconds=1), priority=1)
    async with world.running_with(job, tasks=[task]) as scheduler:
        store.watch(scheduler)
        await world.pass_time(0.95)
        await scheduler.enqueue([task.call() for _ in range(4000)])

        await world.pass_time(10)

        assert store.most_ahead > 0
        assert world.times("beside")[0] <= 1 + LONGEST_WAIT
        assert world.ended.index("beside") < 4000
        assert len(world.ended) == 4000 + 10
        assert await violations(scheduler) == []


async def test_a_limit_over_all_queues_is_kept_without_claiming_ahead(store: SlowStore) -> None:
    world = World(storage=store.storage, stages=slots(16, limit=20))
    async with world.scheduler() as scheduler:
        store.watch(scheduler)
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(400)])
        await world.clock.settle()

        assert len(world.ran) == 400
        assert store.most_ahead == 0
        assert max(store.claimed) <= 16
