"""The cases of jobqueue in `contracts.md` that are the scheduler's: what is refused, retries that wait, queues.

Those of its store are promises in `clepsydra.storage.promises`; its lists are in `test_queries.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clepsydra import (
    Call,
    ClepsydraError,
    ExecutionFilter,
    InvalidArgument,
    Retry,
    Scheduler,
    State,
    Task,
    UnknownTask,
)

from .support import World, slots

pytestmark = pytest.mark.anyio


def plain() -> None:
    """A function."""


async def test_jq01_a_name_is_registered_once() -> None:
    scheduler = Scheduler()
    task = scheduler.task(name="mail.welcome", aliases=["send_welcome"])(plain)
    other: Callable[[], None] = lambda: None  # noqa: E731 - another function, of no other meaning

    taken: list[dict[str, Any]] = [
        {"name": "mail.welcome"},
        {"name": "mail.other", "aliases": ["send_welcome"]},
        {"name": "send_welcome"},
    ]
    for names in taken:
        with pytest.raises(InvalidArgument, match="is taken"):
            scheduler.task(**names)(other)
    assert scheduler.task(name="mail.welcome")(task) is task, "the same function again is no mistake"
    assert set(scheduler.tasks) == {"mail.welcome", "send_welcome"}


async def test_jq02_work_of_an_unknown_task_is_refused_and_nothing_of_it_is_stored() -> None:
    world = World()
    known = world.tasks["note"].call()
    attempts: list[tuple[Any, type[ClepsydraError]]] = [
        (Call("mail.nobody"), UnknownTask),
        ([known, Call("mail.nobody")], UnknownTask),
        (Call(""), UnknownTask),
        (["note"], InvalidArgument),
        ("note", InvalidArgument),
        (world.tasks["note"], InvalidArgument),
        (Call("note", '{"no": "such argument"}'), InvalidArgument),
    ]
    async with world.running_with() as scheduler:
        for call, error in attempts:
            with pytest.raises(error):
                await scheduler.enqueue(call)
        assert await scheduler.count_executions() == 0


@pytest.mark.parametrize(("attempts", "ends"), [(1, State.FAILED), (2, State.SUCCEEDED)])
async def test_jq05_jq06_so_many_attempts_as_it_has_and_no_more(attempts: int, ends: State) -> None:
    world = World()
    errors = [ValueError("the first time")]

    async def fails_once() -> None:
        if errors:
            raise errors.pop()

    task: Task[[], object] = Task(fails_once, "fails_once")
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), retry=Retry(attempts, backoff=0))
        await world.pass_time(1)
        execution = await handle.fetch()

    assert (execution.state, execution.attempt) == (ends, attempts)


async def test_jq08_a_retry_waits_for_its_time_although_nothing_else_is_to_be_done() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["fail"].call(), retry=Retry(attempts=2, backoff=10, jitter=0))
        await world.pass_time(9.9)
        assert world.times("fail") == [0]
        await world.pass_time(0.1)

    assert world.times("fail") == [0, 10]


async def test_jq09_a_full_queue_keeps_no_other_waiting() -> None:
    world = World(stages=slots(1, queues={"urgent": 2}))
    async with world.running_with() as scheduler:
        await scheduler.enqueue([world.tasks["wait"].call() for _ in range(9)], queue="urgent", priority=100)
        for number in range(3):
            await scheduler.enqueue(world.tasks["say"].call(str(number)))
        await world.pass_time(1)
        assert [name for name in world.names() if name != "wait"] == ["0", "1", "2"]
        assert world.running == 2
        world.open_gate()


async def test_jq10_a_queue_that_nobody_has_named_has_slots_like_the_others() -> None:
    """Nothing is parked: there are no queues without workers here."""
    world = World(stages=slots(1))
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["say"].call("other"), queue="never heard of", priority=100)
        await scheduler.enqueue(world.tasks["say"].call("default"))
        await world.pass_time(1)

    assert sorted(world.names()) == ["default", "other"]


async def test_jq11_work_of_one_priority_runs_in_the_order_in_which_it_came() -> None:
    world = World(stages=slots(1))
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=1))
        for number in range(20):
            await scheduler.enqueue(world.tasks["say"].call(str(number)))
        await world.pass_time(5)

    assert world.names() == ["work", *(str(number) for number in range(20))]


async def test_jq15_what_runs_on_a_node_that_lives_is_left_alone_by_one_that_starts() -> None:
    world = World()
    async with world.running_with() as first:
        handle = await first.enqueue(world.tasks["work"].call(seconds=30))
        await world.pass_time(1)
        async with world.scheduler(name="second"):
            await world.pass_time(60)
        execution = await handle.fetch()

    assert (execution.state, execution.attempt_id) == (State.SUCCEEDED, handle.id)


async def test_jq25_what_was_enqueued_for_a_task_that_is_gone_stays_waiting_and_visible() -> None:
    world = World()
    gone: Task[[], None] = Task(plain, "gone")
    async with world.scheduler(tasks=[gone]) as scheduler:
        handle = await scheduler.enqueue(gone.call(), after=1)
    async with world.scheduler() as scheduler:
        await scheduler.enqueue(world.tasks["note"].call(), after=2)
        await world.pass_time(10)
        (waiting,) = (await scheduler.executions(ExecutionFilter(states=State.PENDING))).items
        assert (waiting.id, waiting.attempt) == (handle.id, 1)
        assert await scheduler.cancel_executions(ids=[handle.id]) != []

    assert world.names() == ["note"]


async def test_jq26_what_is_added_to_an_idle_scheduler_starts_at_once() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await world.pass_time(1000)
        handle = await scheduler.enqueue(world.tasks["note"].call())
        await world.clock.settle()
        assert (await handle.fetch()).started_time == world.at(1000)
