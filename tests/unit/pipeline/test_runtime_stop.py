"""Stopping a scheduler that is stopping already."""

from __future__ import annotations

import anyio
import pytest

from clepsydra import Job, Scheduler, Task, events

pytestmark = pytest.mark.anyio


async def test_a_hard_stop_cuts_short_a_drain_that_has_begun() -> None:
    begun = anyio.Event()
    sleepy = Task(anyio.sleep_forever, "sleepy")
    scheduler = Scheduler(tasks=[sleepy], jobs=[Job("sleepy", sleepy)])

    with anyio.fail_after(10):  # the grace is 30 s
        async with anyio.create_task_group() as group:
            await group.start(scheduler.run)
            scheduler.attach(lambda event: begun.set(), [events.ExecutionStarted])
            await scheduler.run_job("sleepy")
            await begun.wait()
            scheduler.stop()
            await anyio.wait_all_tasks_blocked()
            scheduler.stop(hard=True)

    assert scheduler.health().status == "stopped"


async def test_a_hard_stop_leaves_alone_what_has_ended() -> None:
    scheduler = Scheduler()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            await group.start(scheduler.run)
            scheduler.stop(hard=True)

    assert scheduler.health().status == "stopped"
