"""`verify()`: the audit of the store that a scheduler is working on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clepsydra import Cron, Every, Job, MemoryStorage, Retry, SQLiteStorage, Storage, verify_store
from clepsydra.model.instants import to_instant

from .support import World, slots

pytestmark = pytest.mark.anyio


def jobs_of(world: World) -> list[Job]:
    """Some of every kind."""
    return [
        world.job("often", Every(1)),
        world.job("slow", Every(2), "work", args={"seconds": 5}, overlap="buffer_all"),
        world.job("one", Every(3), "work", args={"seconds": 7}, overlap="buffer_one"),
        world.job("pushy", Every(5), "work", args={"seconds": 60}, overlap="cancel_running"),
        world.job("stuck", Every(4), "wait", overlap="skip"),
        world.job("wild", Every(3), "fail", retry=Retry(attempts=3, backoff=4), overlap="allow"),
        world.job("after", Every(2, after_completion=True)),
        world.job("zurich", Cron("*/10 * * * * *", tz="Europe/Zurich") - Cron("* 9-17 * * *", tz="Europe/Zurich")),
        world.job("twice", Cron("0 * 2 * * *", tz="Europe/Zurich", fold="first")),
        world.job("paused", Every(2)),
        world.job("removed", Every(2)),
        world.job("limited", Every(2), limit=3),
    ]


def stores(folder: Path) -> dict[str, Storage]:
    return {"memory": MemoryStorage(), "sqlite": SQLiteStorage(folder / "jobs.db", synchronous="NORMAL")}


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_busy_store_is_found_sound_while_it_is_worked_on(store: str, tmp_path: Path) -> None:
    before_the_change = datetime(2026, 10, 25, 0, 59, 20, tzinfo=UTC)
    world = World(before_the_change, stores(tmp_path)[store], slots(6))
    async with world.running_with(*jobs_of(world)) as scheduler:
        calls = [world.tasks["fail"].call(), world.tasks["wait"].call(), world.tasks["note"].call()]
        handles = await scheduler.enqueue(calls, retry=Retry(attempts=2, backoff=3))
        await world.pass_time(20)
        await scheduler.pause_job("paused")
        await scheduler.remove_job("removed")
        await handles[1].cancel()
        await scheduler.retry_executions(ids=[handles[0].id])
        assert (report := await scheduler.verify()).ok, str(report)
        await world.pass_time(20)
        await scheduler.add_job(world.job("removed", Every(7)))
        await scheduler.add_job(world.job("often", Every(5)))
        await scheduler.resume_job("paused")
        await scheduler.delete_executions(ids=[handles[2].id])
        await world.pass_time(20)
        report = await scheduler.verify()
        world.open_gate()

    assert report.ok, str(report)
    assert report.jobs == len(jobs_of(world)) + 1, "the removed one is remembered"
    assert report.executions > 100

    world.clock.step(timedelta(days=2))
    async with world.scheduler() as scheduler:
        await world.pass_time(10)
        assert (report := await scheduler.verify()).ok, str(report)


async def test_what_is_damaged_is_found_and_the_scheduler_goes_on(tmp_path: Path) -> None:
    world = World(storage=stores(tmp_path)["sqlite"])
    async with world.running_with(world.job("often", Every(1))) as scheduler:
        await world.pass_time(5)
        with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
            connection.execute("DELETE FROM executions WHERE nominal = ?", (to_instant(world.at(2)),))
            connection.commit()

        report = await scheduler.verify()

        (finding,) = report.findings
        assert (finding.law, finding.job, finding.nominal) == (1, "often", world.at(2))
        assert report == verify_store(world.storage)
        await world.pass_time(5)
        assert world.times("often")[-1] == 10
