"""Law 6 by counting: never more than 64 items between two checkpoints; law 5: nothing grows in the chain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio
import trio

from clepsydra import (
    ClepsydraError,
    Every,
    ExecutionFilter,
    JobFilter,
    Once,
    Overlap,
    Random,
    Scheduler,
    SQLiteStorage,
    State,
)
from clepsydra.pipeline.settings import MOST_IN_A_BATCH
from clepsydra.storage.lane import BATCHES_A_CALL

from .support import World, chain_of, slots

pytestmark = pytest.mark.anyio


class Counter(trio.abc.Instrument):
    """Counts what each kind of call handles between two turns of the event loop."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self._now: dict[str, int] = {}

    def add(self, what: str, count: int) -> None:
        self._now[what] = self._now.get(what, 0) + count
        self.most[what] = max(self.most.get(what, 0), self._now[what])

    async def tick(self) -> None:
        """See to it that every turn of the event loop begins a new count."""
        if sniffio.current_async_library() == "trio":  # which shuffles its tasks, and tells of each step instead
            trio.lowlevel.add_instrument(self)
            await anyio.sleep_forever()
        while True:
            await anyio.lowlevel.checkpoint()
            self._now.clear()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._now.clear()


def count_calls(counter: Counter, target: Any, method: str, size: Callable[[Any], int]) -> None:
    inner = getattr(target, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        answer = inner(*args, **kwargs)
        counter.add(method, size((args, kwargs, answer)))
        return answer

    setattr(target, method, counted)


def first(call: Any) -> int:
    """The size of the batch that is the first argument."""
    return len(call[0][0])


def watch(counter: Counter, world: World, scheduler: Scheduler) -> None:
    chain = chain_of(scheduler)
    count_calls(counter, world.storage, "fire", first)
    count_calls(counter, world.storage, "place", first)
    count_calls(counter, world.storage, "finish", first)
    count_calls(counter, world.storage, "put_jobs", first)
    count_calls(counter, world.storage, "add_executions", first)
    count_calls(counter, world.storage, "start", lambda call: len(call[2].claims))
    count_calls(counter, scheduler._registry, "check_call", lambda _: 1)  # pyright: ignore[reportPrivateUsage]
    count_calls(counter, chain.pool, "submit", first)
    count_calls(counter, chain.pool, "acknowledge", first)
    count_calls(counter, chain.news, "send_nowait", lambda call: len(call[0][0].events))
    count_calls(counter, chain.book, "drop", lambda _: 1)


class AwaitedConnection:
    """What is awaited of a connection such as psycopg's."""

    async def commit(self) -> None:
        """Nothing to commit."""


async def test_no_stage_handles_more_than_a_batch_between_two_checkpoints() -> None:
    world = World(stages=slots(500))
    counter = Counter()
    async with anyio.create_task_group() as group, world.scheduler() as scheduler:
        watch(counter, world, scheduler)
        group.start_soon(counter.tick)
        await world.clock.settle()  # it counts now
        await scheduler.add_jobs([world.job(f"local{index}", Every(2)) for index in range(1000)])
        await scheduler.add_jobs([world.job(f"placed{index}", Every(2), run_on=Random()) for index in range(500)])
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(2000)])
        with pytest.raises(
            ClepsydraError, match="transaction"
        ):  # of memory's there are none, but the calls are checked
            await scheduler.enqueue_in(AwaitedConnection(), [world.tasks["note"].call() for _ in range(500)])
        for index in range(100):
            await scheduler.enqueue([world.tasks["note"].call()] * 5, after=1, queue=f"queue{index}")
        await world.pass_time(5)
        assert len(world.ran) == 2 * 1500 + 2000 + 500
        assert await scheduler.remove_all_jobs() == 1500
        assert chain_of(scheduler).lane.is_direct
        group.cancel_scope.cancel()

    assert set(counter.most) == {
        *("fire", "place", "finish", "put_jobs", "add_executions", "start", "submit", "acknowledge", "send_nowait"),
        *("check_call", "drop"),
    }
    assert {what: most for what, most in counter.most.items() if most > MOST_IN_A_BATCH} == {}


async def test_a_store_in_a_thread_takes_several_batches_in_one_go_and_the_loop_turns_between_them(
    tmp_path: Path,
) -> None:
    world = World(storage=SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"), stages=slots(500))
    counter = Counter()
    in_one_go: dict[str, int] = {"fire": 0, "start": 0, "finish": 0, "add_executions": 0}

    def note(what: str, call: Any) -> int:
        size = len(call[2].claims) if what == "start" else first(call)
        in_one_go[what] = max(in_one_go[what], size)
        return 0  # it is not the loop that does it

    async with anyio.create_task_group() as group, world.scheduler() as scheduler:
        chain = chain_of(scheduler)
        for what in in_one_go:
            count_calls(counter, world.storage, what, partial(note, what))
        count_calls(counter, chain.pool, "submit", first)
        count_calls(counter, chain.pool, "acknowledge", first)
        group.start_soon(counter.tick)
        await world.clock.settle()  # it counts now
        await scheduler.add_jobs([world.job(f"job{index}", Every(2)) for index in range(1500)])
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(1500)])
        await world.pass_time(3)
        assert len(world.ran) == 1500 + 1500
        group.cancel_scope.cancel()

    assert {what: most for what, most in counter.most.items() if most > MOST_IN_A_BATCH} == {}
    assert all(MOST_IN_A_BATCH < size <= BATCHES_A_CALL * MOST_IN_A_BATCH for size in in_one_go.values()), in_one_go


async def test_a_snapshot_for_a_restarted_stage_is_told_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    counter = Counter()
    sizes: list[int] = []
    async with anyio.create_task_group() as group, world.scheduler() as scheduler:
        await scheduler.add_jobs([world.job(f"job{index}", Every(100)) for index in range(2000)])
        group.start_soon(counter.tick)
        await world.clock.settle()
        chain = chain_of(scheduler)

        def note(call: Any) -> int:
            sizes.append(len(call[0][0].events))
            return sizes[-1]

        count_calls(counter, chain.news, "send_nowait", note)
        assert chain.job_broadcaster is not None
        chain.job_broadcaster.ask_for_snapshot()
        await world.clock.settle()
        group.cancel_scope.cancel()

    assert sum(sizes) >= 2000
    assert counter.most["send_nowait"] <= MOST_IN_A_BATCH + 1  # and the word that those were all


async def test_many_stored_jobs_are_read_in_several_calls_and_what_changes_meanwhile_is_seen(tmp_path: Path) -> None:
    world = World(storage=SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))
    async with world.scheduler() as scheduler:
        await scheduler.add_jobs([world.job(f"job{index:04}", Every(100)) for index in range(2500)])
    counter = Counter()
    pages: list[int] = []

    def note(call: Any) -> int:
        """Remove, as another process would, a job that has been read."""
        pages.append(len(call[2].items))
        if len(pages) == 1:
            world.storage.delete_jobs(JobFilter(names=["job0000"]), 1)
        return 0

    count_calls(counter, world.storage, "list_jobs", note)
    count_calls(counter, world.storage, "load_jobs", lambda call: len(call[2]))
    async with world.scheduler() as scheduler:
        assert scheduler.find_job("job2499") is not None
        assert len(scheduler.jobs) == 2500
        await world.pass_time(2)
        assert scheduler.find_job("job0000") is None
        await world.pass_time(100)

    assert pages == [1000, 1000, 500]
    assert counter.most.get("load_jobs", 0) == 0
    assert len(world.ran) == 2499


@pytest.mark.parametrize("what", ["tasks", "jobs", "calls"])
async def test_what_waits_in_the_chain_is_bounded_by_the_slots(what: str) -> None:
    """Law 5: ten thousand of anything wait in the store, or in the timeline with one entry a job."""
    world = World(stages=slots(4))
    fullest = 0
    async with world.scheduler() as scheduler:
        chain = chain_of(scheduler)

        def look(event: object) -> None:
            nonlocal fullest
            waiting = sum(fill.waiting for fill in chain.fills()[1:])
            fullest = max(fullest, waiting, len(chain.pool.known_attempts()))

        scheduler.attach(look)
        if what == "jobs":
            await scheduler.add_jobs([world.job(f"job{index}", Once(world.at(1))) for index in range(3000)])
        elif what == "calls":
            await scheduler.enqueue([world.tasks["note"].call() for _ in range(3000)])
        else:
            job = world.job("many", Every(0.01), "work", args={"seconds": 1}, overlap=Overlap.ALLOW)
            await scheduler.add_job(job)
        await world.pass_time(3)
        look(None)
        if what == "tasks":
            await scheduler.remove_job("many")
        stats = await scheduler.stats(ExecutionFilter(states=[State.PENDING]))
        assert stats[State.PENDING] == 0

    assert 0 < fullest <= 2 * 4


async def test_a_command_is_handled_between_two_batches_of_due_work() -> None:
    """Law 7: at most one batch of due work comes before a command's turn, however much is due."""
    world = World(stages=slots(100_000))
    async with world.scheduler() as scheduler:
        await scheduler.add_jobs([world.job(f"job{index}", Once(world.at(1))) for index in range(5000)])
        await scheduler.add_job(world.job("last", Once(world.at(1)), priority=-1))
        removed_after: list[int] = []

        async def remove() -> None:
            while not world.ran:
                await anyio.lowlevel.checkpoint()
            await scheduler.remove_job("last")
            removed_after.append(len(world.ran))

        async with anyio.create_task_group() as group:
            group.start_soon(remove)
            await world.pass_time(2)
        assert await scheduler.stats(ExecutionFilter(jobs=["last"])) == dict.fromkeys(State, 0)

    assert removed_after[0] <= 10 * MOST_IN_A_BATCH
    assert len(world.ran) == 5000


async def test_one_transaction_records_what_has_ended_and_claims_what_follows() -> None:
    """A commit is what an execution costs on a disk: of many that wait, each batch of them costs one."""
    world = World(stages=slots(32))
    flushes: list[tuple[int, int]] = []
    async with world.scheduler() as scheduler:
        finish, start = world.storage.finish, world.storage.start
        ended: list[int] = []

        def finishing(outcomes: Any, now: Any) -> Any:
            ended.append(len(outcomes))
            return finish(outcomes, now)

        def starting(*args: Any, **kwargs: Any) -> Any:
            answer = start(*args, **kwargs)
            flushes.append((ended.pop(), len(answer.claims)))
            return answer

        world.storage.finish, world.storage.start = finishing, starting  # type: ignore[method-assign]
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(32 * 20)])
        await world.clock.settle()

    assert sum(claimed for _, claimed in flushes) == 32 * 20
    assert len(flushes) <= 24, flushes
