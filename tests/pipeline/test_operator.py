"""An operator acts on a store from outside, as no node: as a scheduler's commands would, heard by those at work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra import (
    BroadcasterSettings,
    Cron,
    Every,
    ExecutionFilter,
    ExecutionNotFound,
    InvalidArgument,
    Job,
    JobExists,
    JobFilter,
    JobNotFound,
    JobState,
    Kind,
    MemoryStorage,
    Migration,
    Node,
    Operator,
    PostgresStorage,
    ScheduleError,
    Scheduler,
    SQLiteStorage,
    Stages,
    State,
    Storage,
    StoreError,
    StoreTooNew,
    UnknownTask,
    migrate_store,
    to_datetime,
)
from clepsydra.testing import VirtualClock
from clepsydra.testing.clock import START

from ..postgres import Schemas, say
from .support import QUIET, World

Make: TypeAlias = Callable[[], Storage]
PATIENCE = 30


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Stores on one place, which is empty at first."""
    if request.param == "sqlite":
        yield lambda: SQLiteStorage(tmp_path / "jobs.db")
        return
    schemas: Schemas = request.getfixturevalue("postgres")
    schema = schemas.take()
    yield lambda: PostgresStorage(schemas.dsn, schema=schema)
    schemas.give_back(schema)


@pytest.fixture(params=["sqlite", "postgres"])
def nowhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Stores on a place where nothing has ever been."""
    if request.param == "sqlite":
        yield lambda: SQLiteStorage(tmp_path / "jobs.db")
        return
    dsn = request.getfixturevalue("postgres").dsn
    schema = f"clepsydra_test_nowhere_{os.getpid()}"
    yield lambda: PostgresStorage(dsn, schema=schema)
    say(dsn, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def life(make: Make, *jobs: Job, minutes: float = 5) -> World:
    """A scheduler's life of some minutes on the store, with the tasks of a `World`."""
    world = World(storage=make())
    async with Scheduler(world.storage, clock=world.clock, stages=QUIET, tasks=world.tasks.values()) as scheduler:
        await scheduler.add_jobs(jobs)
        await world.clock.advance(minutes * 60)
    return world


def lived(make: Make, *jobs: Job, minutes: float = 5) -> VirtualClock:
    return anyio.run(lambda: life(make, *jobs, minutes=minutes)).clock


FEEDS = Job("feeds", "note", Every(minutes=1))
BAD = Job("bad", "fail", Every(minutes=2), labels={"tenant": "acme"})


def test_it_reads_what_a_scheduler_has_left(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = lived(make, FEEDS, BAD)

    with Operator(make(), clock=clock) as operator:
        failed = operator.executions(ExecutionFilter(states="failed"), limit=1, total=True)
        told = operator.last_verdicts("feeds", 3)

        assert [record.name for record in operator.list_jobs().items] == ["bad", "feeds"]
        monkeypatch.setattr("clepsydra.pipeline.operator.LONGEST_PAGE", 1)
        assert [record.name for record in operator.all_jobs()] == ["bad", "feeds"]
        assert operator.count_jobs(JobFilter(labels={"tenant": "acme"})) == 1
        assert (len(failed.items), failed.total) == (1, 2)
        assert failed.cursor is not None
        assert "on purpose" in (operator.get_execution(failed.items[0].id).error or "")
        assert operator.stats()[State.SUCCEEDED] == 5
        assert [verdict.kind for verdict in told] == [Kind.FIRED] * 3
        assert told[-1].nominal == START + timedelta(minutes=5)
        assert operator.upcoming("feeds", 2) == [START + timedelta(minutes=minutes) for minutes in (6, 7)]
        assert {task.name for task in operator.list_tasks()} >= {"note", "fail"}
        assert operator.nodes() == []
        assert operator.verify().ok


def test_where_there_is_no_store_it_makes_none_and_a_migration_does(nowhere: Make) -> None:
    for _ in range(2):
        with pytest.raises(StoreError), Operator(nowhere()):
            pass
        assert migrate_store(nowhere(), dry_run=True).found == 0

    made = migrate_store(nowhere())

    assert made == Migration(0, made.version)
    with Operator(nowhere()) as operator:
        assert (operator.count_jobs(), operator.nodes()) == (0, [])
    assert not migrate_store(nowhere()).needed


def test_its_commands_settle_what_the_schedulers_own_would(make: Make) -> None:
    clock = lived(make, FEEDS, BAD, minutes=3)

    with Operator(make(), clock=clock) as operator:
        assert operator.pause_job("feeds").state is JobState.PAUSED
        assert [record.name for record in operator.pause_jobs(JobFilter())] == ["bad"]
        anyio.run(clock.advance, 120)
        assert operator.resume_job("feeds").state is JobState.ACTIVE
        kinds = [verdict.kind for verdict in operator.last_verdicts("feeds", 10)]
        assert kinds == [Kind.FIRED, Kind.FIRED, Kind.FIRED, Kind.PAUSED, Kind.PAUSED]
        assert operator.stop_jobs(JobFilter(names=["bad"]))[0].state is JobState.STOPPED
        operator.remove_job("bad")
        assert operator.find_job("bad") is None
        assert operator.verify().ok


def test_work_is_run_cancelled_tried_again_and_deleted(make: Make) -> None:
    clock = lived(make, FEEDS, BAD, minutes=2)

    with Operator(make(), clock=clock) as operator:
        run = operator.run_job("feeds")
        assert operator.get_execution(run).state is State.PENDING
        assert [one.execution_id for one in operator.cancel_executions(ExecutionFilter(jobs="feeds"))] == [run]
        (failed,) = operator.executions(ExecutionFilter(states="failed")).items
        assert set(operator.retry_executions(ExecutionFilter(jobs=["feeds", "bad"]))) == {run, failed.id}
        assert len(operator.attempts(failed.id)) == 1
        assert operator.delete_executions(ExecutionFilter(states="finished")) == 2
        assert operator.verify().ok


def test_what_is_not_there_or_cannot_work_raises_and_changes_nothing(make: Make) -> None:
    clock = lived(make, FEEDS)

    with Operator(make(), clock=clock) as operator:
        before = operator.get_job("feeds").revision
        for command in (operator.pause_job, operator.remove_job, operator.run_job, operator.get_job):
            with pytest.raises(JobNotFound, match="known jobs: 'feeds'"):
                command("feds")
        with pytest.raises(JobExists):
            operator.add_job(Job("feeds", "fail"), replace=False)
        with pytest.raises(UnknownTask, match="no task is called 'nightly'; known tasks: 'fail'"):
            operator.add_jobs([Job("new", "note"), Job("other", "nightly")])
        with pytest.raises(InvalidArgument, match=r"job 'new': args=.*: task 'work' needs seconds as well"):
            operator.add_job(Job("new", "work"))
        with pytest.raises(InvalidArgument, match="task 'note' knows no loud; it takes no arguments"):
            operator.add_job(Job("new", "note", args={"loud": True}))
        with pytest.raises(ScheduleError, match="has no time to come"):
            operator.add_job(Job("over", "note", Cron("0 0 0 1 1 * 2020")))
        with pytest.raises(ExecutionNotFound):
            operator.explain_execution("none")
        with pytest.raises(JobNotFound):
            operator.explain("feds", START)

        assert operator.get_job("feeds").revision == before
        assert operator.count_jobs() == 1


def test_a_job_is_added_without_its_task_where_that_is_asked_for(make: Make) -> None:
    clock = lived(make)

    with Operator(make(), clock=clock) as operator:
        added = operator.add_job(Job("new", "not.here.yet", Every(minutes=1)), check_task=False)

        assert operator.get_job("new").id == added.id


def test_it_prunes_what_ended_before(make: Make) -> None:
    clock = lived(make, FEEDS, minutes=10)

    with Operator(make(), clock=clock) as operator:
        deleted = operator.prune(START + timedelta(minutes=4, seconds=30))

        assert deleted.executions == 4
        assert operator.stats()[State.SUCCEEDED] == 6
        assert len(operator.last_verdicts("feeds", 10)) == 6
        assert operator.verify().ok


def test_it_explains_what_was_and_that_nobody_is_there_for_what_is_to_come(make: Make) -> None:
    clock = lived(make, FEEDS)

    with Operator(make(), clock=clock) as operator:
        was = operator.explain("feeds", START + timedelta(minutes=2))
        will = operator.explain("feeds", START + timedelta(minutes=9))

        assert was.kind is Kind.FIRED
        assert "succeeded" in str(was)
        assert will.will_run is False
        assert "no scheduler is at work on this store" in str(will)
        assert was.execution_id is not None
        assert operator.explain_execution(was.execution_id).state is State.SUCCEEDED


def test_the_last_verdicts_of_a_job_that_was_away_for_long_are_found_without_counting_all() -> None:
    storage = MemoryStorage()
    world = World(storage=storage)
    storage.open(Node("n", "n", 0, 0), 0)
    with Operator(storage, clock=world.clock) as operator:
        operator.add_job(Job("tick", "note", Every(seconds=1)), check_task=False)
        operator.pause_job("tick")
        anyio.run(world.clock.advance, 10 * 365 * 86_400)
        operator.resume_job("tick")

        told = operator.last_verdicts("tick", 10)

    assert [verdict.kind for verdict in told] == [Kind.PAUSED] * 10
    assert told[-1].nominal == to_datetime(world.clock.now())


@pytest.mark.anyio
async def test_a_scheduler_at_work_hears_of_it(make: Make) -> None:
    paused, ran = anyio.Event(), anyio.Event()
    scheduler = Scheduler(make(), stages=Stages(loop_blocked=None))

    @scheduler.task(name="once")
    async def once() -> None:
        ran.set()

    def act() -> str:
        with Operator(make()) as operator:
            operator.pause_job("hourly")
            return operator.run_job("hourly")

    def hear(event: object) -> None:
        record = scheduler.find_job("hourly")
        if record is not None and record.state is JobState.PAUSED:
            paused.set()

    with anyio.fail_after(PATIENCE):
        async with scheduler:
            await scheduler.add_job(Job("hourly", "once", Every(hours=1)))
            scheduler.attach(hear)
            run = await anyio.to_thread.run_sync(act)
            await ran.wait()
            await paused.wait()
            ended = await scheduler.wait_for_execution(run)

    assert ended.state is State.SUCCEEDED


def hears(storage: Storage) -> bool:
    """Whether it hears what others write."""
    if isinstance(storage, SQLiteStorage):
        return any(Path(f"{storage.path}-nodes").glob("*.bell"))
    assert isinstance(storage, PostgresStorage)
    listener = storage._listener  # pyright: ignore[reportPrivateUsage]
    return listener is not None and listener.ready.is_set()


@pytest.mark.anyio
async def test_it_is_heard_without_waiting_for_the_poll(make: Make) -> None:
    ran = anyio.Event()
    seldom = Stages(execution_broadcaster=BroadcasterSettings(poll=timedelta(hours=1)), loop_blocked=None)
    storage = make()
    scheduler = Scheduler(storage, stages=seldom)

    @scheduler.task(name="once")
    async def once() -> None:
        ran.set()

    def act() -> None:
        with Operator(make()) as operator:
            operator.run_job("hourly")

    with anyio.fail_after(PATIENCE):
        async with scheduler:
            await scheduler.add_job(Job("hourly", "once", Every(hours=1)))
            while not hears(storage):
                await checkpoint()
            await anyio.to_thread.run_sync(act)
            await ran.wait()


# ---- migrating


def test_a_dry_run_makes_no_file(tmp_path: Path) -> None:
    told = migrate_store(SQLiteStorage(tmp_path / "jobs.db"), dry_run=True)

    assert told.needed
    assert told.found == 0
    assert list(tmp_path.iterdir()) == []


def test_a_newer_store_is_neither_migrated_nor_operated_on(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    migrate_store(SQLiteStorage(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    for act in (lambda: migrate_store(SQLiteStorage(path)), lambda: Operator(SQLiteStorage(path)).__enter__()):
        with pytest.raises(StoreTooNew, match="schema version 99"):
            act()


def test_a_store_without_a_schema_says_so() -> None:
    with pytest.raises(StoreError, match="MemoryStorage has no schema"):
        migrate_store(MemoryStorage())
