"""As `test_callers_transaction.py`, with psycopg's connections, blocking and awaited: what is different there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from clepsydra import (
    Execution,
    ExecutionFilter,
    ExecutionHandle,
    Finish,
    LeaseLost,
    Node,
    Retry,
    Scheduler,
    State,
    Task,
    current_execution,
)
from clepsydra.storage.postgres import PostgresStorage

from ..postgres import Schemas, say
from .support import World, chain_of

pytestmark = pytest.mark.anyio

AT_ONCE = 0.11
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""psycopg's awaited connections run on no other."""


class App:
    """An app that keeps its data in the scheduler's database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        say(dsn, "CREATE TABLE IF NOT EXISTS public.effects (name text); DELETE FROM public.effects")

    @property
    def effects(self) -> list[str]:
        """What was committed."""
        return [name for (name,) in say(self.dsn, "SELECT name FROM public.effects")]

    @asynccontextmanager
    async def finishing(self) -> AsyncGenerator[Finish]:
        """The transaction in which the present task has its effect, and ends."""
        run = current_execution()
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection, run.transaction(connection) as finish:
            await connection.execute("INSERT INTO public.effects VALUES (%s)", (f"{run.name} {run.attempt}",))
            yield finish


@pytest.fixture
def world(postgres: Schemas) -> Iterator[World]:
    schema = postgres.take()
    yield World(storage=PostgresStorage(postgres.dsn, schema=schema))
    postgres.give_back(schema)


@pytest.fixture
def app(postgres: Schemas) -> App:
    return App(postgres.dsn)


async def ran_at_once(world: World, scheduler: Scheduler, handle: ExecutionHandle) -> bool:
    """Whether it runs without anybody's poll."""
    await world.pass_time(AT_ONCE)
    assert chain_of(scheduler).demand.promised == {}
    return [ran.execution_id for ran in world.ran] == [handle.id]


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("open_for", [0.0, 0.4])
async def test_what_is_enqueued_starts_as_soon_as_the_caller_commits(
    world: World, app: App, open_for: float, committed: bool
) -> None:
    async with world.running_with() as scheduler:
        await world.pass_time(0.25)
        with psycopg.connect(app.dsn) as connection:
            handle = scheduler.enqueue_in(connection, world.tasks["note"].call(), key="k")
            await world.pass_time(open_for)
            assert world.ran == []
            if not committed:
                connection.rollback()

        assert await ran_at_once(world, scheduler, handle) == committed


@ON_ASYNCIO
@pytest.mark.parametrize("committed", [True, False])
async def test_what_is_enqueued_on_an_awaited_connection_starts_as_soon_as_the_caller_commits(
    world: World, app: App, committed: bool
) -> None:
    async with world.running_with() as scheduler:
        await world.pass_time(0.25)
        async with await psycopg.AsyncConnection.connect(app.dsn) as connection:
            handle = await scheduler.enqueue_in(connection, world.tasks["note"].call())
            await world.pass_time(0.4)
            assert world.ran == []
            if not committed:
                await connection.rollback()

        assert await ran_at_once(world, scheduler, handle) == committed


async def run_once(world: World, function: Callable[[], Any], seconds: float = 1, **options: Any) -> Execution:
    """Run a function as a task, and give its execution."""
    task = Task(function, "effect")
    async with world.running_with(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), **options)
        await world.pass_time(seconds)
        return await handle.fetch()


async def test_a_plain_task_has_its_effect_exactly_once(world: World, app: App) -> None:
    def task() -> None:
        run = current_execution()
        with psycopg.connect(app.dsn) as connection, run.transaction(connection) as finish:
            connection.execute("INSERT INTO public.effects VALUES (%s)", (f"{run.name} {run.attempt}",))
            if run.attempt == 1:
                raise ValueError("not yet")
            finish.result = run.attempt
        raise ValueError("after the block")

    execution = await run_once(world, task, 60, retry=Retry(5, backoff=1))

    assert (execution.state, execution.result) == (State.SUCCEEDED, "2")
    assert app.effects == ["effect 2"]


@ON_ASYNCIO
async def test_an_async_task_has_its_effect_exactly_once(world: World, app: App) -> None:
    async def task() -> None:
        async with app.finishing() as finish:
            finish.result = current_execution().attempt
            if current_execution().attempt == 1:
                raise ValueError("not yet")
        raise ValueError("after the block")

    execution = await run_once(world, task, 60, retry=Retry(5, backoff=1))

    assert (execution.state, execution.result) == (State.SUCCEEDED, "2")
    assert app.effects == ["effect 2"]


@ON_ASYNCIO
async def test_an_async_task_that_is_cut_off_in_the_block_has_no_effect(world: World, app: App) -> None:
    async def task() -> None:
        async with app.finishing():
            await world.work(30)

    execution = await run_once(world, task, 20, timeout=2)

    assert world.cut == ["effect"]
    assert execution.state is State.FAILED
    assert app.effects == []


@ON_ASYNCIO
async def test_an_async_task_that_has_lost_the_lease_has_no_effect(world: World, app: App, postgres: Schemas) -> None:
    errors: list[LeaseLost] = []

    async def task() -> None:
        run = current_execution()
        try:
            async with app.finishing():
                assert isinstance(world.storage, PostgresStorage)
                elsewhere = PostgresStorage(postgres.dsn, schema=world.storage.settings.schema)
                elsewhere.open(Node("other", "there", 0, 0), 0)
                elsewhere.cancel_executions(ExecutionFilter(ids=[run.id]), 0)
                elsewhere.close()
        except LeaseLost as error:
            errors.append(error)
            raise

    execution = await run_once(world, task, 3)

    assert execution.state is State.CANCELLED
    assert [error.execution_id for error in errors] == [execution.id]
    assert app.effects == []
