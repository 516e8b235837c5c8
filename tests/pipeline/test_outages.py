"""The store goes away and comes back: nothing is lost, nothing happens twice, nobody is punished for it (law 10)."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra import Every, JobState, Kind, Misfire, Once, Retry, State, StoreBusy, StoreUnavailable
from clepsydra.model.events import StageRestarted, StoreDegraded, StoreRecovered

from .support import FaultyStorage, Heard, World, chain_of, executions_of, grid, kinds, lane_of, slots, violations

pytestmark = pytest.mark.anyio


def away() -> StoreUnavailable:
    return StoreUnavailable("the store is away")


async def test_an_outage_of_thirty_seconds_degrades_and_is_caught_up_with() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(
        world.job("all", Every(1), misfire=Misfire("all")),
        world.job("latest", Every(1)),
        world.job("long", Once(world.at(5)), "work", args={"seconds": 20}),
    ) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(10.5)
        store.down = away
        await world.pass_time(15)
        assert scheduler.health().status == "degraded"
        assert "the store does not answer" in scheduler.health().reasons[0]
        await world.pass_time(15)
        store.down = None
        await world.pass_time(20)

        assert scheduler.health().ok
        assert await violations(scheduler) == []
        (long,) = await executions_of(scheduler, "long")
        assert (long.state, long.attempt_id) == (State.SUCCEEDED, long.id)
        assert heard.of(StageRestarted) == []  # the restart budget is not touched
        assert (len(heard.of(StoreDegraded)), len(heard.of(StoreRecovered))) == (1, 1)

    fired = world.nominals("all")
    assert fired == sorted(set(fired))
    assert set(grid(1, 60)) - set(fired) <= {41.0, 42.0, 43.0}  # those that overlapped with the catching up
    assert len(world.nominals("latest")) == len(set(world.nominals("latest")))


async def test_commands_raise_at_their_deadline_during_an_outage_and_succeed_after_it() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        await world.pass_time(1.5)
        store.down = away
        with pytest.raises(StoreBusy):
            await world.clock_moves(scheduler.pause_job("tick"))
        with pytest.raises(StoreBusy):
            await world.clock_moves(scheduler.enqueue(world.tasks["note"].call()))
        store.down = None
        await world.clock_moves(scheduler.pause_job("tick"))
        before = len(world.ran)
        await world.pass_time(10)
        assert len(world.ran) == before
        assert await violations(scheduler) == []


async def test_a_caller_who_is_cancelled_takes_back_a_command_that_is_not_begun() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1))) as scheduler, anyio.create_task_group() as group:
        store.down = away
        group.start_soon(scheduler.pause_job, "tick")  # it is begun, and waits for the store
        await world.clock.settle()
        for impatient in (lambda: scheduler.remove_job("tick"), lambda: scheduler.add_job(world.job("new"))):
            with anyio.CancelScope() as waiting:
                group.start_soon(_cancel, waiting)
                await impatient()
            assert waiting.cancelled_caught
        assert len(chain_of(scheduler).mailbox) == 1
        store.down = None
        await world.pass_time(5)

        assert [(record.name, record.state) for record in scheduler.jobs] == [("tick", JobState.PAUSED)]
        assert len(chain_of(scheduler).mailbox) == 0


async def _cancel(waiting: anyio.CancelScope) -> None:
    for _ in range(10):
        await checkpoint()
    waiting.cancel()


async def test_a_running_task_can_be_cancelled_while_the_store_is_away() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["wait"].call())
        await world.pass_time(1)
        store.down = away
        with pytest.raises(StoreBusy):
            await world.clock_moves(handle.cancel())
        assert world.cut == ["wait"]
        store.down = None
        await world.pass_time(10)
        assert await handle.state() is State.CANCELLED


async def test_or43_the_outcome_of_a_task_that_ends_in_an_outage_is_recorded_after_it() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["work"].call(seconds=5), retry=Retry(attempts=3))
        await world.pass_time(1)
        store.down = away
        await world.pass_time(30)
        store.down = None
        await world.pass_time(10)
        execution = await handle.wait(timeout=1)

    assert (execution.state, execution.attempt) == (State.SUCCEEDED, 1)
    assert world.ended == ["work"]


async def test_who_waits_for_an_execution_waits_through_an_outage() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["say"].call("late"), after=5)
        store.down = away
        results: list[object] = []

        async def wait() -> None:
            results.append(await handle.result())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await world.pass_time(60)
            assert results == []
            store.down = None
            await world.pass_time(60)

    assert results == ["late"]


async def test_what_expires_while_the_store_is_away_is_not_started_when_it_is_back() -> None:
    """The time at which a start is judged is that of the start, not that of the first try."""
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        await world.clock.settle()
        handle = await scheduler.enqueue(world.tasks["note"].call(), start_by=5, after=1)
        store.fail("start", away, times=8)  # about half a minute of backing off
        await world.pass_time(60)
        execution = await handle.wait(timeout=1)

    assert execution.state is State.EXPIRED
    assert world.ran == []


async def test_a_put_that_raised_after_it_took_effect_is_found_out_about() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        store.fail("put_jobs", lambda: RuntimeError("after all"), "after")
        with pytest.raises(RuntimeError, match="after all"):
            await scheduler.add_job(world.job("tick", Every(1)))
        await world.pass_time(3)
        assert scheduler.find_job("tick") is not None
        assert await kinds(scheduler, "tick") == [Kind.FIRED] * 3


async def test_a_late_answer_of_a_full_scheduler_does_not_start_more_than_its_slots() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage, stages=slots(2))
    async with world.running_with(
        *(world.job(f"job{index}", Every(2), "work", args={"seconds": 1}) for index in range(6))
    ) as scheduler:
        await world.pass_time(2.5)
        store.fail("start", lambda: RuntimeError("lost"), "after")
        store.fail("finish", away, times=3)
        await world.pass_time(20)
        assert await violations(scheduler) == []

    assert world.most_running == 2


async def test_answers_that_others_lose_again_and_again_are_looked_into_beside_all_other_work() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.scheduler() as scheduler:
        lane, left = lane_of(scheduler), [50]

        def lose(operation: str) -> None:
            if operation == "running" and left[0]:
                left[0] -= 1
                lane.losses += 1  # somebody's, while the executor compares

        await world.clock.settle()
        store.before, store.calls = lose, []
        store.fail("start", away, "after")
        await scheduler.enqueue(world.tasks["note"].call())
        await world.pass_time(1)

        assert len(world.ran) == 1
        assert store.calls.count("running") == 51
        assert _last(store.calls, "finish") < _last(store.calls, "running")


def _last(calls: list[str], name: str) -> int:
    return max(index for index, call in enumerate(calls) if call == name)
