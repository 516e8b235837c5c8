"""What is enqueued while there is room starts in the transaction that brings it."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra import Cause, PostgresStorage, Scheduler, SQLiteStorage, State, StoreError, StoreUnavailable, Task
from clepsydra.model.events import StageRestarted
from clepsydra.model.instants import to_instant
from clepsydra.model.work import Work
from clepsydra.storage.protocol import NewExecution, Storage

from ..postgres import Schemas
from .support import FaultyStorage, Heard, World, chain_of, lane_of, slots, violations

pytestmark = pytest.mark.anyio

TOGETHER, ENDED = ["add_executions", "start"], ["finish", "start"]


class Watched(FaultyStorage):
    """A store that notes what each transaction of the writer's thread holds."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.flushes: list[list[str]] = []
        self.committed = 0
        self.lose_commit: Callable[[], None] = lambda: None
        """Called when a transaction is committed: what it raises keeps the answer from who waits for it."""
        self._here = threading.local()
        self.before = self._note

    @contextmanager
    def transaction(self) -> Generator[None]:
        self._here.flush = list[str]()
        with self.inner.transaction():
            yield
        self.flushes.append(self._here.flush)
        self._here.flush = None
        self.lose_commit()

    def _note(self, operation: str) -> None:
        flush: list[str] | None = getattr(self._here, "flush", None)
        if flush is not None:
            flush.append(operation)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Watched:
    return Watched(SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Watched]:
    if request.param == "sqlite":
        yield request.getfixturevalue("on_sqlite")
        return
    postgres: Schemas = request.getfixturevalue("postgres")
    schema = postgres.take()
    yield Watched(PostgresStorage(postgres.dsn, schema=schema))
    postgres.give_back(schema)


@asynccontextmanager
async def at_rest(world: World, store: Watched) -> AsyncGenerator[Scheduler]:
    """A scheduler that has nothing to do, and transactions noted from there on."""
    async with world.scheduler() as scheduler:
        await world.clock.settle()
        store.flushes.clear()
        yield scheduler


@asynccontextmanager
async def writer_held(scheduler: Scheduler) -> AsyncGenerator[None]:
    """Inside, what is written queues up."""
    held, let_go = threading.Event(), threading.Event()

    def hold(_: Storage) -> None:
        held.set()
        assert let_go.wait(10)

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: lane_of(scheduler).write(hold, counted=False))
        await until(held.is_set)
        try:
            yield
        finally:
            let_go.set()


async def until(fact: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not fact():
            await checkpoint()


async def test_what_is_enqueued_begins_after_one_commit(store: Watched) -> None:
    world = World(storage=store.storage)
    seen: list[list[list[str]]] = []

    async def look() -> None:
        seen.append(list(store.flushes))

    world.tasks["look"] = Task(look, "look")
    async with at_rest(world, store) as scheduler:
        handle = await scheduler.enqueue(world.tasks["look"].call())
        await world.clock.settle()

        assert seen == [[TOGETHER]]  # it is durable that it has started before its first line
        assert store.flushes == [TOGETHER, ENDED]
        assert await handle.state() is State.SUCCEEDED


async def test_many_callers_share_one_start(store: Watched) -> None:
    world = World(storage=store.storage, stages=slots(32))
    async with at_rest(world, store) as scheduler:
        async with anyio.create_task_group() as callers, writer_held(scheduler):
            for _ in range(20):
                callers.start_soon(scheduler.enqueue, world.tasks["note"].call())
            await until(lambda: lane_of(scheduler).statistics().queued == 21)
        await world.clock.settle()

    assert store.flushes[:2] == [[], TOGETHER]
    assert store.calls.count("add_executions") == 1
    assert len(world.ran) == 20


async def test_a_bulk_starts_as_much_as_there_are_slots_for_and_the_rest_follows(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage, stages=slots(4))
    async with at_rest(world, on_sqlite) as scheduler:
        handles = await scheduler.enqueue([world.tasks["note"].call() for _ in range(10)])
        await world.clock.settle()

        assert on_sqlite.flushes[0] == TOGETHER
        assert [ran.execution_id for ran in world.ran] == [handle.id for handle in handles]


async def test_work_for_later_starts_nothing(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage)
    async with at_rest(world, on_sqlite) as scheduler:
        await scheduler.enqueue(world.tasks["note"].call(), after=1)
        assert on_sqlite.flushes == [["add_executions"]]
        await world.pass_time(1)

    assert world.times("note") == [1]


async def test_without_a_free_slot_nothing_starts_until_there_is_one(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage, stages=slots(1))
    async with at_rest(world, on_sqlite) as scheduler:
        await scheduler.enqueue(world.tasks["wait"].call())
        await world.clock.settle()
        await scheduler.enqueue(world.tasks["note"].call())
        await world.clock.settle()
        assert on_sqlite.flushes == [TOGETHER, ["add_executions"]]
        world.open_gate()
        await world.clock.settle()

    assert world.names() == ["wait", "note"]


async def test_what_comes_first_in_the_queue_starts_first(on_sqlite: Watched) -> None:
    """Another process has put better work there, and nobody here has been told of it yet."""
    world = World(storage=on_sqlite.storage, stages=slots(1))
    async with at_rest(world, on_sqlite) as scheduler:
        better = NewExecution("better", Work("wait", priority=1), Cause.ENQUEUE, to_instant(world.start))
        await lane_of(scheduler).write(lambda store: store.add_executions([better], to_instant(world.start)))
        on_sqlite.flushes.clear()
        await scheduler.enqueue(world.tasks["note"].call())
        await world.clock.settle()
        assert on_sqlite.flushes[0] == TOGETHER
        assert world.names() == ["wait"]
        world.open_gate()
        await world.clock.settle()

    assert world.names() == ["wait", "note"]


async def test_a_task_that_is_full_waits_for_its_own_room(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage)
    world.tasks["alone"] = Task(world.wait, "alone", concurrency=1)
    async with at_rest(world, on_sqlite) as scheduler:
        for _ in range(2):
            await scheduler.enqueue(world.tasks["alone"].call())
            await world.clock.settle()
        assert world.running == 1
        world.open_gate()
        await world.clock.settle()

    assert (len(world.ended), world.most_running) == (2, 1)


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
async def test_a_lost_answer_neither_loses_work_nor_runs_it_twice(store: Watched, when: str) -> None:
    world = World(storage=store.storage)
    faults = [StoreUnavailable("the store is away")]

    def strike() -> None:
        if faults:
            raise faults.pop()

    async with at_rest(world, store) as scheduler:
        if when == "before the commit":
            store.fail("start", faults.pop, "after")
        else:
            store.lose_commit = strike
        handle = await world.clock_moves(scheduler.enqueue(world.tasks["note"].call()))
        await world.clock_moves(handle.wait())

        execution = await handle.fetch()
        assert (execution.state, execution.recoveries) == (State.SUCCEEDED, 0)
        assert await violations(scheduler) == []
        assert (await scheduler.verify()).ok

    assert len(world.ran) == 1


async def test_a_caller_that_goes_away_takes_nothing_with_it(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage)
    async with at_rest(world, on_sqlite) as scheduler:
        reached, let_go = threading.Event(), threading.Event()

        def hold(operation: str) -> None:
            if operation == "start" and not reached.is_set():
                reached.set()
                assert let_go.wait(10)

        on_sqlite.before = hold
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.enqueue, world.tasks["note"].call())
            await until(reached.is_set)
            group.cancel_scope.cancel()
        let_go.set()
        await world.clock.settle()

        assert await scheduler.stats() == {**dict.fromkeys(State, 0), State.SUCCEEDED: 1}
    assert len(world.ran) == 1


async def test_a_start_that_fails_for_good_restarts_the_executor_and_not_the_enqueue(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage)
    async with at_rest(world, on_sqlite) as scheduler:
        heard = Heard(scheduler)
        on_sqlite.fail("start", lambda: StoreError("a bug of the adapter"), times=2)  # together, and then by itself
        handle = await scheduler.enqueue(world.tasks["note"].call())
        await world.clock_moves(handle.wait())

        assert [event.stage for event in heard.of(StageRestarted)] == ["executor"]
    assert len(world.ran) == 1


async def test_while_others_have_waited_for_a_slot_the_usual_order_decides(on_sqlite: Watched) -> None:
    world = World(storage=on_sqlite.storage, stages=slots(1))
    async with at_rest(world, on_sqlite) as scheduler:
        chain_of(scheduler).demand.overdue = {"default"}
        await scheduler.enqueue(world.tasks["note"].call())
        assert on_sqlite.flushes == [["add_executions"]]
        await world.clock.settle()

    assert len(world.ran) == 1
