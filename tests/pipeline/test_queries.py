"""What can be asked of a scheduler and done to many at once: pages, totals, counts, commands by filter, threads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest

from clepsydra import (
    Cron,
    Every,
    ExecutionFilter,
    InvalidArgument,
    JobFilter,
    JobState,
    Kind,
    Once,
    Order,
    Retry,
    Scheduler,
    State,
)
from clepsydra.model import events
from clepsydra.testing.clock import START

from .support import Heard, World, slots, states, violations

pytestmark = pytest.mark.anyio


async def finished_notes(world: World, scheduler: Scheduler, count: int, **options: Any) -> list[str]:
    """So many executions that have run, one a second: their ids, the oldest first."""
    ids: list[str] = []
    for _ in range(count):
        ids.append((await scheduler.enqueue(world.tasks["note"].call(), **options)).id)
        await world.pass_time(1)
    return ids


# ---- the list


async def test_jq19_a_page_by_offset_has_the_total_of_all_matches() -> None:
    """Decided differently: what has ended is ordered by its end, newest first, which for it is the last update."""
    world = World()
    async with world.running_with() as scheduler:
        ids = await finished_notes(world, scheduler, 30, group="letters")
        await scheduler.enqueue(world.tasks["note"].call(), group="letters", after=60)
        await scheduler.enqueue(world.tasks["say"].call("hello"), group="letters")
        await scheduler.enqueue(world.tasks["note"].call(), group="parcels")
        await world.pass_time(1)
        where = ExecutionFilter(tasks="note", group="letters", states="completed")

        page = await scheduler.executions(where, order="-finished", limit=10, offset=10, total=True)

        assert [row.id for row in page.items] == ids[::-1][10:20]
        assert page.total == 30 == await scheduler.count_executions(where)
        assert (await scheduler.executions(where, limit=10)).total is None


async def test_jq20_a_limit_of_nothing_is_refused_and_the_default_is_a_hundred() -> None:
    """Decided differently: zero is a mistake, not a word for the default."""
    world = World()
    async with world.running_with() as scheduler:
        await scheduler.enqueue([world.tasks["note"].call() for _ in range(101)])
        await world.pass_time(1)
        for limit in (0, -1, 1001):
            with pytest.raises(InvalidArgument, match="limit"):
                await scheduler.executions(limit=limit)
        with pytest.raises(InvalidArgument, match="offset"):
            await scheduler.executions(offset=-1)
        page = await scheduler.executions()
        assert len(page.items) == 100
        assert len((await scheduler.executions(cursor=page.cursor)).items) == 1


@pytest.mark.parametrize("order", [order for order in Order if order not in (Order.NAME, Order.NAME_DESC)])
async def test_or04_pages_by_cursor_show_each_execution_once_in_every_order(order: Order) -> None:
    world = World()
    async with world.running_with() as scheduler:
        for seconds in (3, 1, 3, 2, 1, 9, 9):
            await scheduler.enqueue(world.tasks["note"].call(), after=seconds)
        await world.pass_time(5)
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await scheduler.executions(order=order, limit=2, cursor=cursor)
            seen += [row.id for row in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == [row.id for row in (await scheduler.executions(order=order)).items]
        assert len(set(seen)) == len(seen) == 7


async def test_jq17_what_belongs_together_is_found_by_its_correlation() -> None:
    world = World()
    async with world.running_with() as scheduler:
        call = world.tasks["note"].call()
        three = [(await scheduler.enqueue(call, group="orders", correlation="7")).id for _ in range(3)]
        await scheduler.enqueue(call, group="orders", correlation="8")
        await scheduler.enqueue(call, correlation="7")

        async def found(**correlation: str) -> list[str]:
            return [row.id for row in (await scheduler.executions(ExecutionFilter(**correlation))).items]  # type: ignore[arg-type]

        assert await found(group="orders", correlation="7") == three
        assert len(await found(correlation="7")) == 4
        assert await found(correlation="9") == []
        assert await scheduler.delete_executions(ExecutionFilter(correlation="8"), force=True) == 1
        with pytest.raises(InvalidArgument, match="reserved"):
            await scheduler.enqueue(call, labels={"clepsydra.group": "orders"})


async def test_qu02_the_lists_of_a_task_are_its_completed_incomplete_and_failed_executions() -> None:
    world = World(stages=slots(2))
    async with world.running_with() as scheduler:
        handles = [
            await scheduler.enqueue(world.tasks[task].call()) for task in ("note", "fail", "note", "wait", "wait")
        ]
        waiting = await scheduler.enqueue(world.tasks["wait"].call())
        await world.pass_time(1)
        ids = [handle.id for handle in handles]

        async def listed(states: str, *tasks: str) -> list[str]:
            where = ExecutionFilter(tasks=tasks or None, states=states)
            return [row.id for row in (await scheduler.executions(where)).items]

        assert await listed("completed") == await listed("completed", "note") == [ids[0], ids[2]]
        assert await listed("incomplete") == [ids[3], ids[4], waiting.id]
        assert await listed("failed") == [ids[1]]
        assert await listed("completed", "wait") == []
        world.open_gate()


async def test_what_runs_is_listed_until_it_has_stopped() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handles = await scheduler.enqueue([world.tasks["wait"].call() for _ in range(3)])
        await scheduler.enqueue(world.tasks["note"].call(), after=60)
        await world.pass_time(1)

        running = await scheduler.running(limit=2)
        rest = await scheduler.running(after=running[-1].attempt_id)

        assert [row.id for row in (*running, *rest)] == [handle.id for handle in handles]
        assert [row.started_time for row in rest] == [START]
        world.open_gate()
        await world.pass_time(1)
        assert await scheduler.running() == []


async def test_the_past_attempts_of_an_execution_can_be_read() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["fail"].call(), retry=Retry(attempts=3, backoff=1, jitter=0))
        await world.pass_time(10)
        past = await scheduler.attempts(handle.id)

    assert [(attempt.number, attempt.ending) for attempt in past] == [(1, "retry"), (2, "retry")]
    assert "on purpose" in (past[0].error or "")


async def test_an_execution_tells_its_times_and_its_value() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await world.pass_time(5)
        handle = await scheduler.enqueue(world.tasks["say"].call("hello"), after=2)
        before = await handle.fetch()
        await world.pass_time(5)
        after = await handle.fetch()

    assert (before.created_time, before.started_time, before.finished_time, before.value) == (
        *(world.at(5), None, None, None),
    )
    assert (after.started_time, after.finished_time, after.value) == (world.at(7), world.at(7), "hello")


# ---- many at once


def ten_jobs(world: World) -> list[Any]:
    return [
        world.job(f"job{index}", Every(1), labels={"tenant": "acme" if index % 2 else "other"}) for index in range(10)
    ]


async def test_several_jobs_are_paused_resumed_and_removed_by_one_filter() -> None:
    world = World()
    acme = JobFilter(labels={"tenant": "acme"})
    async with world.running_with(*ten_jobs(world)) as scheduler:
        paused = await scheduler.pause_jobs(acme)
        assert [record.name for record in paused] == ["job1", "job3", "job5", "job7", "job9"]
        assert await scheduler.pause_jobs(acme) == []
        await world.pass_time(2)
        assert world.times("job1") == []
        assert world.times("job2") == [1, 2]

        assert len(await scheduler.resume_jobs(JobFilter())) == 5
        await world.pass_time(1)
        assert world.times("job1") == [3]

        assert len(await scheduler.remove_jobs(acme)) == 5
        assert await scheduler.count_jobs() == 5
        assert await scheduler.remove_jobs(acme) == []
        assert await violations(scheduler, *(f"job{index}" for index in range(10))) == []


async def test_or25_stopping_by_filter_gives_what_it_has_stopped_and_then_nothing() -> None:
    world = World()
    async with world.running_with(*ten_jobs(world)) as scheduler:
        stopped = await scheduler.stop_jobs(JobFilter(names=["job1", "job2", "nobody"]))
        assert [(record.name, record.state) for record in stopped] == [
            ("job1", JobState.STOPPED),
            ("job2", JobState.STOPPED),
        ]
        assert await scheduler.stop_jobs(JobFilter(names=["job1", "job2"])) == []
        assert await scheduler.stop_jobs(JobFilter(names=())) == []
        await world.pass_time(1)

    assert "job1" not in world.names()
    assert "job3" in world.names()


async def test_more_jobs_than_fit_into_one_transaction_are_stopped_by_one_filter() -> None:
    world = World()
    jobs = [world.job(f"job{index}", Every(60)) for index in range(150)]
    async with world.running_with(*jobs) as scheduler:
        assert len(await scheduler.stop_jobs(JobFilter(tasks="note"))) == 150
        assert await scheduler.count_jobs(JobFilter(states="stopped")) == 150


@pytest.mark.parametrize("by_filter", [False, True])
@pytest.mark.parametrize("cancel_running", [False, True])
async def test_or26_what_runs_of_a_stopped_job_goes_on_unless_it_is_to_be_cancelled(
    by_filter: bool, cancel_running: bool
) -> None:
    world = World()
    async with world.running_with(
        world.job("long", Every(1), "work", args={"seconds": 5}),
        world.job("other", Once(world.at(1)), "work", args={"seconds": 5}),
    ) as scheduler:
        await world.pass_time(1.5)
        if by_filter:
            await scheduler.stop_jobs(JobFilter(names="long"), cancel_running=cancel_running)
        else:
            await scheduler.stop_job("long", cancel_running=cancel_running)
        await world.pass_time(10)
        assert (await states(scheduler, "long"))[0] is (State.CANCELLED if cancel_running else State.SUCCEEDED)
        assert await states(scheduler, "other") == [State.SUCCEEDED]

    assert world.cut == (["long"] if cancel_running else [])


@pytest.mark.parametrize("command", ["pause_jobs", "resume_jobs", "stop_jobs", "remove_jobs"])
async def test_a_command_for_many_needs_a_filter(command: str) -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        with pytest.raises(InvalidArgument, match=r"JobFilter\(\) means all"):
            await getattr(scheduler, command)("job")


async def test_jobs_are_listed_by_filter_and_page() -> None:
    world = World()
    async with world.running_with(*ten_jobs(world)) as scheduler:
        page = await scheduler.list_jobs(JobFilter(labels={"tenant": "acme"}), order="-name", limit=3)
        rest = await scheduler.list_jobs(JobFilter(labels={"tenant": "acme"}), order="-name", cursor=page.cursor)

        assert [record.name for record in (*page.items, *rest.items)] == ["job9", "job7", "job5", "job3", "job1"]
        assert rest.cursor is None
        with pytest.raises(InvalidArgument, match="order"):
            await scheduler.list_jobs(order="due")


async def test_executions_are_cancelled_and_tried_again_by_one_filter_and_what_waited_is_told_of() -> None:
    world = World(stages=slots(1))
    async with world.running_with() as scheduler:
        heard = Heard(scheduler)
        handles = await scheduler.enqueue([world.tasks["wait"].call() for _ in range(3)], labels={"tenant": "acme"})
        other = await scheduler.enqueue(world.tasks["note"].call())
        await world.pass_time(1)

        cancelled = await scheduler.cancel_executions(ExecutionFilter(labels={"tenant": "acme"}))
        await world.pass_time(1)

        assert [one.execution_id for one in cancelled] == [handle.id for handle in handles]
        assert await other.state() is State.SUCCEEDED
        assert {(event.execution_id, event.kind, event.task) for event in heard.of(events.ExecutionSkipped)} == {
            (handle.id, Kind.CANCELLED, "wait") for handle in handles[1:]
        }
        assert [event.execution_id for event in heard.of(events.ExecutionStopped)] == [handles[0].id, other.id]
        world.open_gate()
        again = await scheduler.retry_executions(ExecutionFilter(labels={"tenant": "acme"}))
        await world.pass_time(1)
        assert len(again) == 3
        assert await scheduler.count_executions(ExecutionFilter(states="completed")) == 4


# ---- from threads


async def test_all_can_be_asked_and_done_from_a_plain_thread() -> None:
    world = World()
    async with world.running_with(world.job("tick", Every(1)), world.job("tock", Every(1))) as scheduler:
        await world.pass_time(2)
        plain = scheduler.from_thread

        def in_thread() -> None:
            assert [record.name for record in plain.jobs()] == ["tick", "tock"]
            assert plain.get_job("tick").name == "tick"
            assert plain.next_run("tick") == world.at(3)
            assert [record.name for record in plain.list_jobs(limit=1).items] == ["tick"]
            assert len(plain.stop_jobs(JobFilter(names="tock"))) == plain.count_jobs(JobFilter(states="stopped")) == 1
            one = plain.enqueue(world.tasks["say"].call("hello"), correlation="7")
            two, three = plain.enqueue([world.tasks["note"].call() for _ in range(2)], after=timedelta(hours=1))
            assert plain.result(one) == "hello"
            assert plain.wait_for_execution(one.id, 1).value == "hello"
            assert plain.find_execution("nobody") is None
            assert plain.get_execution(two.id).state is State.PENDING
            assert plain.executions(ExecutionFilter(correlation="7"), total=True).total == 1
            assert plain.stats()[State.PENDING] == plain.count_executions(ExecutionFilter(states="pending")) == 2
            assert [gone.execution_id for gone in plain.cancel_executions(ids=[two.id])] == [two.id]
            assert plain.retry_executions(ids=[two.id]) == [two.id]
            assert plain.delete_executions(ids=[one.id, three.id]) == 1
            assert plain.attempts(two.id)[0].ending == "cancelled"
            assert [verdict.kind for verdict in plain.verdicts("tick", world.start, world.at(3))] == [Kind.FIRED] * 2
            assert plain.running() == []
            plain.tune(limit=3)
            assert plain.health().ok
            assert plain.remove_all_jobs() == 2
            assert plain.drain(1)

        await anyio.to_thread.run_sync(in_thread)


async def test_the_next_runs_of_all_jobs_soonest_first() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("minutely", Every(60)),
        world.job("also minutely", Every(60)),
        world.job("soon", Every(7)),
        world.job("another queue", Every(60), queue="other", priority=3),
        world.job("daily", Cron("0 3 * * *")),
        world.job("manual"),
        world.job("paused", Every(1), paused=True),
        world.job("slow", Every(20), task="wait", overlap="allow"),
    ) as scheduler:
        await world.pass_time(1)
        due = [((at - world.start).total_seconds(), name) for at, name in scheduler.next_runs()]
        assert due[:3] == [(7, "soon"), (20, "slow"), (60, "also minutely")]
        assert [at for at, _ in due[2:5]] == [60, 60, 60]
        assert due[5] == (3 * 3600, "daily")
        assert len(due) == 6
        assert scheduler.next_runs(2) == scheduler.next_runs()[:2]

        await world.pass_time(41)  # one waits at the gate and has the only slot: the others are overdue
        assert [name for _, name in scheduler.next_runs(2)] == ["soon", "slow"]
        levels = {level.name: (level.busy, level.slots, level.credit) for level in scheduler.health().queues}
        assert levels["default"] == (1, 1, 0)

        await scheduler.remove_job("soon")
        await world.clock.settle()
        assert "soon" not in [name for _, name in scheduler.next_runs()]
        world.open_gate()


async def test_the_next_runs_of_very_many_jobs() -> None:
    world = World()
    async with world.running_with(*(world.job(f"{index:04}", Every(index + 1)) for index in range(2000))) as scheduler:
        await world.clock.settle()
        assert [name for _, name in scheduler.next_runs(100)] == [f"{index:04}" for index in range(100)]
