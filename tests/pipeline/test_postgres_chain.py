"""Whole schedulers on PostgreSQL: what one writes the others hear of, and a server that goes away ends nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from clepsydra import BroadcasterSettings, Cause, Every, Node, PostgresStorage, Scheduler, Stages, to_instant
from clepsydra.model.work import Work
from clepsydra.storage.protocol import NewExecution

from ..postgres import Schemas, say

pytestmark = pytest.mark.anyio

PATIENCE = 30
HARDLY_EVER = timedelta(hours=1)


@pytest.fixture
def schema(postgres: Schemas) -> Iterator[str]:
    taken = postgres.take()
    yield taken
    postgres.give_back(taken)


async def test_work_that_another_process_adds_is_run_without_waiting_for_the_poll(
    postgres: Schemas, schema: str
) -> None:
    ran = anyio.Event()
    seldom = Stages(execution_broadcaster=BroadcasterSettings(poll=HARDLY_EVER))
    scheduler = Scheduler(PostgresStorage(postgres.dsn, schema=schema), stages=seldom)
    another = PostgresStorage(postgres.dsn, schema=schema)

    @scheduler.task(name="mail")
    async def mail() -> None:
        ran.set()

    def add() -> None:
        another.open(Node("another", "", 0, 0), 0)
        stop = another.listen(lambda: None)
        now = to_instant(datetime.now(UTC))
        another.add_executions([NewExecution("x", Work("mail"), Cause.ENQUEUE, now)], now)
        assert another._listener is not None  # pyright: ignore[reportPrivateUsage]
        assert another._listener.ready.wait(PATIENCE)  # pyright: ignore[reportPrivateUsage]
        stop()
        another.close()

    with anyio.fail_after(PATIENCE):
        async with scheduler:
            await anyio.to_thread.run_sync(add)
            await ran.wait()


async def test_a_scheduler_outlives_the_loss_of_all_its_connections(postgres: Schemas, schema: str) -> None:
    ran = 0
    again = anyio.Event()
    scheduler = Scheduler(PostgresStorage(postgres.dsn, schema=schema))

    @scheduler.job(Every(seconds=0.05))
    async def beat() -> None:
        nonlocal ran, again
        ran += 1
        again.set()

    with anyio.fail_after(PATIENCE):
        async with scheduler:
            for _ in range(3):
                await again.wait()
                ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clepsydra'"
                await anyio.to_thread.run_sync(say, postgres.dsn, ours)
                again = anyio.Event()
            await again.wait()
            report = await scheduler.verify()

    assert ran >= 4
    assert report.ok, str(report)
