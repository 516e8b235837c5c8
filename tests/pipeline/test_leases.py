"""A node starts work as long as it holds its lease, and no longer (law 3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from clepsydra import Every, Once, SQLiteStorage, StoreUnavailable

from .support import FaultyStorage, World, chain_of, grid, violations

pytestmark = pytest.mark.anyio


async def test_a_store_that_nobody_shares_needs_no_lease() -> None:
    """The default store: nobody renews a lease there, and work is started for ever."""
    world = World()
    async with world.running_with(world.job("tick", Every(10))) as scheduler:
        await world.pass_time(120)
        assert scheduler.health().ok

    assert world.times("tick") == grid(10, 120, 10)


@pytest.mark.parametrize("on_lease_lost", ["continue", "cancel"])
async def test_a_node_that_cannot_renew_its_lease_starts_nothing_and_lets_run_what_runs(
    on_lease_lost: str, tmp_path: Path
) -> None:
    store = FaultyStorage(SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))
    world = World(storage=store.storage)
    long = world.job("long", Once(world.at(1)), "work", args={"seconds": 60}, on_lease_lost=on_lease_lost)
    async with world.running_with(world.job("tick", Every(1)), long) as scheduler:
        await world.pass_time(3.5)
        store.fail("heartbeat_node", lambda: StoreUnavailable("for this call only"), times=10_000)
        await world.pass_time(11)
        assert world.cut == []
        await world.pass_time(1)  # a lease after the last heartbeat: that is when it matters, not at the next one
        assert (world.cut == ["long"]) == (on_lease_lost == "cancel")
        await world.pass_time(24.5)
        ran = len(world.times("tick"))
        assert 14 <= ran <= 22
        assert "lease" in scheduler.health().reasons[-1]
        assert (world.cut == ["long"]) == (on_lease_lost == "cancel")
        store.faults.clear()
        await world.pass_time(30)
        assert scheduler.health().ok
        assert len(world.times("tick")) > ran + 15
        assert await violations(scheduler) == []
        assert chain_of(scheduler).lane.state == "ok"


async def test_a_rescue_that_the_store_does_not_answer_keeps_no_node_from_renewing_its_lease(tmp_path: Path) -> None:
    store = FaultyStorage(SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL"))
    world = World(storage=store.storage)
    store.fail("rescue", lambda: StoreUnavailable("for this call only"), times=10_000)
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        await world.pass_time(40)
        store.faults.clear()
        await world.pass_time(10)
        calls = store.calls.count("rescue")
        await world.pass_time(10)
        assert scheduler.health().ok

    assert world.times("tick") == grid(1, 60)
    assert store.calls.count("rescue") == calls  # it was made up for, once
