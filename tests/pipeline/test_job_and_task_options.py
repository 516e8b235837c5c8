"""Stories of what jobs and tasks say of themselves: schemas, labels, a first run at once, who recovers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clepsydra import Cause, Every, InvalidArgument, Job, Random, Recovery, SQLiteStorage, State, Task

from .support import World, executions_of, violations

pytestmark = pytest.mark.anyio


async def test_another_process_sees_which_tasks_there_are_and_what_they_take(tmp_path: Path) -> None:
    def welcome(user_id: int, names: Sequence[str] = ()) -> bool:
        """Say hello."""
        return bool(names)

    world = World(storage=SQLiteStorage(tmp_path / "jobs.db"))
    async with world.scheduler(tasks=[Task(welcome, "mail.welcome", ["send_welcome"])]):
        pass

    async with world.scheduler(storage=SQLiteStorage(tmp_path / "jobs.db")) as other:
        row = next(row for row in await other.list_tasks() if row.name == "mail.welcome")

    assert (row.description, list(row.aliases)) == ("Say hello.", ["send_welcome"])
    assert row.input_schema is not None
    assert json.loads(row.input_schema)["properties"] == {
        "user_id": {"type": "integer"},
        "names": {"type": "array", "items": {"type": "string"}, "default": []},
    }
    assert row.output_schema is not None
    assert json.loads(row.output_schema)["type"] == "boolean"


async def test_the_labels_of_a_job_are_those_of_its_executions() -> None:
    world = World()
    job = world.job("hello", Every(5), labels={"tenant": "acme"})
    async with world.running_with(job) as scheduler:
        await scheduler.run_job("hello")
        await world.pass_time(5)

        rows = await executions_of(scheduler, "hello")

    assert [row.work.labels for row in rows] == [(("tenant", "acme"),)] * 2


@pytest.mark.parametrize("options", [{}, {"run_on": Random()}])
async def test_an_immediate_job_runs_when_it_is_added_and_then_as_its_schedule_says(options: dict[str, Any]) -> None:
    world = World()
    async with world.running_with(world.job("hello", Every(5), immediate=True, **options)) as scheduler:
        await world.pass_time(11)

        rows = await executions_of(scheduler, "hello")
        assert await violations(scheduler) == []

    assert world.times("hello") == [0, 5, 10]
    assert [row.cause for row in rows] == [Cause.IMMEDIATE, Cause.SCHEDULE, Cause.SCHEDULE]


async def test_an_immediate_job_that_code_declares_runs_at_once_at_its_first_start_only() -> None:
    world = World()
    scheduler = world.scheduler(world.job("hello", Every(60), immediate=True))
    for _ in range(2):
        async with scheduler:
            await world.pass_time(1)

    assert world.times("hello") == [0]


async def test_a_scheduler_says_how_work_is_recovered_that_does_not_say_so_itself() -> None:
    world = World()
    jobs = [world.job("silent", Every(5)), world.job("special", Every(5), recovery="retry")]
    scheduler = world.scheduler(world.job("declared", Every(5)), recovery="keep")
    async with scheduler:
        await scheduler.add_jobs(jobs)
        silent = await scheduler.enqueue(world.tasks["note"].call())
        special = await scheduler.enqueue(world.tasks["note"].call(), recovery=Recovery.FAIL)

        stored = {record.name: record.job.work.recovery for record in scheduler.jobs}
        enqueued = [(await handle.fetch()).work.recovery for handle in (silent, special)]

    assert stored == {"declared": Recovery.KEEP, "silent": Recovery.KEEP, "special": Recovery.RETRY}
    assert enqueued == [Recovery.KEEP, Recovery.FAIL]


@pytest.mark.parametrize(
    ("recovery", "state", "runs"),
    [("keep", State.RUNNING, 0), ("fail", State.FAILED, 0), ("requeue", State.SUCCEEDED, 1)],
)
async def test_jq15_what_a_dead_process_left_running_is_treated_as_its_scheduler_says(
    recovery: str, state: State, runs: int
) -> None:
    """KEEP and FAIL of jobqueue, and Que's running it again."""
    world = World()
    scheduler = world.scheduler(recovery=recovery)
    async with scheduler:
        handle = await scheduler.enqueue(world.tasks["note"].call(), after=60)
    world.clock.step(timedelta(hours=1))
    started = world.storage.start("a-dead-node", world.clock.now(), items=[handle.id])
    assert [claim.execution_id for claim in started.claims] == [handle.id]

    async with scheduler:
        await world.pass_time(1)
        assert await handle.state() is state
    assert len(world.times("note")) == runs


async def test_options_of_a_task_are_for_functions_that_are_none_yet() -> None:
    world = World()
    scheduler = world.scheduler()

    with pytest.raises(InvalidArgument, match="is a task already; give it concurrency where it is made"):
        scheduler.task(concurrency=1)(world.tasks["note"])
    with pytest.raises(InvalidArgument, match="is no option of task; known: concurrency, backoff, on_setup"):
        scheduler.task(name="new", retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def test_a_job_is_made_of_a_task_with_its_options() -> None:
    world = World()
    scheduler = world.scheduler()

    @scheduler.job(Every(5))
    @scheduler.task(name="limited", concurrency=2)
    async def limited() -> None: ...

    assert isinstance(limited, Task)
    assert limited.concurrency == 2
    assert [job.work.task for job in scheduler.declared_jobs] == ["limited"]
    assert isinstance(scheduler.declared_jobs[0], Job)
