"""In a transaction of the user's own: work that is there if it commits, and effects that happen exactly once."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from clepsydra import (
    Cancel,
    Every,
    ExecutionFilter,
    ExecutionNotFound,
    Finish,
    InvalidArgument,
    Job,
    LeaseLost,
    Misfire,
    Node,
    NotInExecution,
    Retry,
    Run,
    Scheduler,
    Snooze,
    SQLiteStorage,
    State,
    StoreError,
    Task,
    UnknownTask,
    current_execution,
)
from clepsydra.model.execution import Cause
from clepsydra.model.ids import IdMaker
from clepsydra.model.work import Work
from clepsydra.storage.protocol import Claim
from clepsydra.testing import VirtualClock

from .support import World, chain_of, executions_of, grid, violations

pytestmark = pytest.mark.anyio

AT_ONCE = 0.11
"""Seconds: a little more than the longest pause between two looks for promised work. A poll comes once a second."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(storage=SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL", with_app_tables=True))


class App:
    """An app that keeps its data in the scheduler's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: list[sqlite3.Connection] = []

    def connect(self) -> sqlite3.Connection:
        """One for this thread, with the app's own table."""
        connection = sqlite3.connect(self.path, timeout=20, check_same_thread=False)
        connection.execute("CREATE TABLE IF NOT EXISTS effects (name)")
        self._opened.append(connection)
        return connection

    @contextmanager
    def finishing(self, scheduler: Scheduler | None = None) -> Generator[Finish]:
        """The transaction in which the present task has its effect, and ends; a scheduler is given work in it."""
        run = current_execution()
        connection = self.connect()
        with run.transaction(connection) as finish:
            connection.execute("INSERT INTO effects VALUES (?)", (f"{run.name} {run.attempt}",))
            if scheduler is not None:
                scheduler.enqueue_in(connection, scheduler.tasks["note"].call())
            yield finish

    @property
    def effects(self) -> list[str]:
        """What was committed."""
        with closing(sqlite3.connect(self.path)) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM effects")]

    def state(self, execution_id: str) -> State:
        """As others see it."""
        with closing(sqlite3.connect(self.path)) as connection:
            ((state,),) = connection.execute("SELECT state FROM executions WHERE id = ?", (execution_id,))
        return State(state)

    def close(self) -> None:
        for connection in self._opened:
            connection.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(tmp_path / "jobs.db")
    yield app
    app.close()


# ---- Enqueueing


@pytest.mark.parametrize("open_for", [0.0, 0.0005, 0.4, 4.3])
async def test_what_is_enqueued_in_a_transaction_starts_as_soon_as_that_commits(
    world: World, app: App, open_for: float
) -> None:
    async with world.running_with() as scheduler:
        await world.pass_time(0.25)
        connection = app.connect()
        handle = scheduler.enqueue_in(connection, world.tasks["say"].call("hello"))
        await world.pass_time(open_for)
        assert world.ran == []
        with pytest.raises(ExecutionNotFound, match="is not committed"):
            await handle.wait()

        connection.commit()
        await world.pass_time(AT_ONCE)

        assert [ran.execution_id for ran in world.ran] == [handle.id]
        assert handle.created
        assert await handle.result() == "hello"
        assert chain_of(scheduler).demand.promised == {}


async def test_what_is_rolled_back_was_never_there(world: World, app: App) -> None:
    async with world.running_with() as scheduler:
        connection = app.connect()
        handles = scheduler.enqueue_in(connection, [world.tasks["say"].call(text) for text in "ab"])
        connection.rollback()
        await world.pass_time(5)

        assert [await scheduler.find_execution(handle.id) for handle in handles] == [None, None]
        assert world.ran == []
        assert chain_of(scheduler).demand.promised == {}


async def test_the_options_are_those_of_enqueue(world: World, app: App) -> None:
    say = world.tasks["say"]
    async with world.running_with() as scheduler:
        connection = app.connect()
        first = scheduler.enqueue_in(connection, say.call("a"), after=60, key="k")
        again = scheduler.enqueue_in(connection, say.call("b"), after=timedelta(seconds=30), key="k")
        sooner = scheduler.enqueue_in(
            connection, say.call("c"), at=world.at(10), key="k", on_conflict="replace", labels={"tenant": "acme"}
        )
        connection.commit()
        await world.pass_time(10)

        assert (first.id, again.created, sooner.created) == (again.id, False, False)
        assert world.names() == ["c"]
        assert (await scheduler.stats(ExecutionFilter(labels={"tenant": "acme"})))[State.SUCCEEDED] == 1


async def test_arguments_are_checked_before_anything_is_written(world: World, app: App) -> None:
    say, elsewhere = world.tasks["say"], Task(world.note, "elsewhere")
    connection: sqlite3.Connection

    def misspelt(scheduler: Scheduler) -> object:
        enqueue_in: Any = scheduler.enqueue_in
        return enqueue_in(connection, say.call("a"), later=1)

    def no_call(scheduler: Scheduler) -> object:
        enqueue_in: Any = scheduler.enqueue_in
        return enqueue_in(connection, say)

    def no_connection(scheduler: Scheduler) -> object:
        enqueue_in: Any = scheduler.enqueue_in
        return enqueue_in("jobs.db", say.call("a"))

    wrong: list[tuple[type[Exception], Callable[[Scheduler], object]]] = [
        (UnknownTask, lambda scheduler: scheduler.enqueue_in(connection, elsewhere.call())),
        (InvalidArgument, no_call),
        (InvalidArgument, lambda scheduler: scheduler.enqueue_in(connection, say.call("a"), priority=cast(Any, "x"))),
        (InvalidArgument, misspelt),
        (InvalidArgument, no_connection),
    ]
    async with world.running_with() as scheduler:
        connection = app.connect()
        for error, call in wrong:
            with pytest.raises(error):
                call(scheduler)

        assert not connection.in_transaction


async def test_threads_with_connections_of_their_own_enqueue_and_what_they_commit_runs_once(
    world: World, app: App
) -> None:
    committed: list[str] = []
    async with world.running_with() as scheduler:
        app.connect()

        def caller(number: int) -> None:
            connection = app.connect()
            for turn in range(5):
                handle = scheduler.enqueue_in(connection, world.tasks["say"].call(f"{number}.{turn}"))
                connection.execute("INSERT INTO effects VALUES (?)", (handle.id,))
                if turn % 2:
                    connection.rollback()
                else:
                    committed.append(handle.id)
                    connection.commit()

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(anyio.to_thread.run_sync, caller, number)
        await world.pass_time(AT_ONCE)

        assert sorted(ran.execution_id for ran in world.ran) == sorted(committed) == sorted(app.effects)


async def test_a_scheduler_that_does_not_run_here_finds_it_when_it_does(world: World, app: App) -> None:
    async with world.running_with():
        pass
    scheduler, connection = world.scheduler(), app.connect()
    handle = scheduler.enqueue_in(connection, world.tasks["note"].call())
    connection.commit()

    async with scheduler:
        await world.pass_time(0)

        assert (await handle.fetch()).state is State.SUCCEEDED


async def test_a_store_without_transactions_is_named_and_those_that_have_them(app: App) -> None:
    world = World()
    scheduler = world.scheduler()

    with pytest.raises(StoreError, match=r"MemoryStorage cannot .* SQLiteStorage\(path\)"):
        scheduler.enqueue_in(app.connect(), world.tasks["note"].call())


async def test_a_caller_who_keeps_the_file_to_himself_degrades_the_scheduler_until_he_has_ended(
    tmp_path: Path, app: App
) -> None:
    world = World(storage=SQLiteStorage(tmp_path / "jobs.db", synchronous="NORMAL", busy_timeout=0.01))
    tick = world.job("tick", Every(1), misfire=Misfire("all"))
    async with world.running_with(tick) as scheduler:
        connection = app.connect()
        await world.pass_time(2.5)
        scheduler.enqueue_in(connection, world.tasks["say"].call("at last"))
        await world.pass_time(10)
        assert (world.names(), scheduler.health().status) == (["tick"] * 2, "degraded")

        connection.commit()
        await world.pass_time(10)

        assert scheduler.health().ok
        assert world.nominals("tick") == grid(1, 22)
        assert world.names().count("at last") == 1
        assert await violations(scheduler) == []


# ---- Effects exactly once: how it goes well


async def run_once(world: World, function: Callable[[], Any], seconds: float = 1, **options: Any) -> Any:
    """Run a function as a task, and give its execution."""
    task = Task(function, "effect")
    async with world.running_with(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), **options)
        await world.pass_time(seconds)
        return await handle.fetch()


@pytest.mark.parametrize("sort", ["plain", "async"])
async def test_effect_and_finish_are_there_together_when_the_block_has_ended(
    world: World, app: App, sort: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append((app.effects, app.state(current_execution().id)))

    def plain() -> None:
        with app.finishing() as finish:
            look()
            finish.result = {"paid": 7}
        look()

    async def on_the_loop() -> None:
        plain()

    execution = await run_once(world, plain if sort == "plain" else on_the_loop)

    assert seen == [([], State.RUNNING), (["effect 1"], State.SUCCEEDED)]
    assert (execution.state, execution.result, execution.attempt) == (State.SUCCEEDED, '{"paid":7}', 1)
    assert app.effects == ["effect 1"]
    assert not caplog.records


async def test_what_a_task_enqueues_in_its_transaction_is_there_once(world: World, app: App) -> None:
    """Work that hands on work, exactly once."""

    def first() -> None:
        with app.finishing(scheduler):
            if current_execution().attempt < 3:
                raise ValueError("not yet")

    task = Task(first, "first")
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        await scheduler.enqueue(task.call(), retry=Retry(5, backoff=1))
        await world.pass_time(60)

    assert app.effects == ["first 3"]
    assert world.names() == ["note"]


def raise_something() -> None:
    raise ValueError("after the block")


@pytest.mark.parametrize(
    ("afterwards", "said"),
    [
        (raise_something, "ended as 'retry' afterwards is ignored: .*ValueError: after the block"),
        (lambda: Snooze(5), "ended as 'snoozed' afterwards"),
        (lambda: Cancel("enough"), "ended as 'cancelled' afterwards is ignored: enough"),
        (lambda: "something else", "what it returned afterwards is not its result"),
        (lambda: object(), "ended as 'retry' afterwards is ignored"),
    ],
)
async def test_what_a_task_does_after_it_has_finished_changes_nothing(
    world: World, app: App, caplog: pytest.LogCaptureFixture, afterwards: Callable[[], Any], said: str
) -> None:
    def task() -> Any:
        with app.finishing() as finish:
            finish.result = "done"
        return afterwards()

    execution = await run_once(world, task, 60, retry=Retry(3, backoff=1))

    assert (execution.state, execution.result, execution.attempt) == (State.SUCCEEDED, '"done"', 1)
    assert app.effects == ["effect 1"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(said, record.message, re.DOTALL)


async def test_the_chain_hears_of_the_finish_before_the_task_returns(world: World, app: App) -> None:
    """Who waits is woken, what overlap held back starts, a completion-driven job is due from then on."""

    async def effect() -> None:
        with app.finishing():
            pass
        await world.wait()

    task = Task(effect, "effect")
    held = Job("held", task, Every(10), overlap="buffer_one")
    paced = Job("paced", task, Every(3, after_completion=True))
    async with world.running_with(held, paced, tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call())
        with anyio.fail_after(10):
            await handle.wait()
        await world.pass_time(20.5)

        assert [execution.state for execution in await executions_of(scheduler, "held")] == [State.SUCCEEDED] * 2
        assert world.times("paced") == [3.0 * number for number in range(1, 7)]
        assert chain_of(scheduler).pool.statistics().running == 9
        assert await violations(scheduler) == []
        world.open_gate()


async def test_a_task_that_has_finished_is_left_alone(world: World, app: App) -> None:
    """By the heartbeats, which find no lease of its own any more, and by who cancels what has ended."""

    async def task() -> None:
        with app.finishing():
            pass
        await world.work(30)

    job = Task(task, "effect")
    async with world.running_with(tasks=[job]) as scheduler:
        handle = await scheduler.enqueue(job.call())
        await world.pass_time(20)
        assert await handle.cancel() is False
        await world.pass_time(20)

        assert (world.cut, world.ended) == ([], ["effect"])
        assert (await handle.fetch()).state is State.SUCCEEDED


async def test_a_task_that_has_finished_may_still_time_out(world: World, app: App) -> None:
    async def task() -> None:
        with app.finishing():
            pass
        await world.work(30)

    execution = await run_once(world, task, 20, timeout=10)

    assert world.cut == ["effect"]
    assert execution.state is State.SUCCEEDED


# ---- How it goes wrong


async def test_what_raises_in_the_block_has_no_effect_and_is_tried_again(world: World, app: App) -> None:
    def task() -> None:
        with app.finishing():
            if current_execution().attempt < 3:
                raise ValueError("not yet")

    execution = await run_once(world, task, 60, retry=Retry(5, backoff=1))

    assert (execution.state, execution.attempt) == (State.SUCCEEDED, 3)
    assert app.effects == ["effect 3"]


async def test_a_task_that_is_cut_off_in_the_block_has_no_effect(world: World, app: App) -> None:
    async def task() -> None:
        with app.finishing():
            await world.work(30)

    execution = await run_once(world, task, 20, timeout=2)

    assert world.cut == ["effect"]
    assert execution.state is State.FAILED
    assert app.effects == []


def cancelled(app: App, run: Run) -> None:
    """Somebody cancels it in the store."""
    store = SQLiteStorage(app.path)
    with opened(store):
        store.cancel_executions(ExecutionFilter(ids=[run.id]), 0)


def rescued(app: App, run: Run) -> None:
    """Another node takes ours for dead, and what it ran for lost."""
    store = SQLiteStorage(app.path)
    with opened(store):
        (mine,) = {node.id for node in store.nodes() if node.name == "here"}
        store.rescue([mine], 0, IdMaker(lambda: 10**15))


def deleted(app: App, run: Run) -> None:
    store = SQLiteStorage(app.path)
    with opened(store):
        store.delete_executions(ExecutionFilter(ids=[run.id]), force=True)


@contextmanager
def opened(store: SQLiteStorage) -> Generator[None]:
    store.open(Node("other", "there", 0, 0), 0)
    try:
        yield
    finally:
        store.close()


@pytest.mark.parametrize(
    ("steal", "tries", "state"), [(cancelled, 1, State.CANCELLED), (rescued, 2, State.SUCCEEDED), (deleted, 1, None)]
)
async def test_who_has_lost_the_lease_has_no_effect(
    world: World, app: App, steal: Callable[[App, Run], None], tries: int, state: State | None
) -> None:
    errors: list[LeaseLost] = []
    runs: list[str] = []

    def task() -> None:
        run = current_execution()
        runs.append(run.attempt_id)
        if len(runs) == 1:
            steal(app, run)
        try:
            with app.finishing():
                pass
        except LeaseLost as error:
            errors.append(error)
            raise

    job = Task(task, "effect")
    async with world.running_with(tasks=[job]) as scheduler:
        handle = await scheduler.enqueue(job.call())
        await world.pass_time(3)
        left = await scheduler.find_execution(handle.id)

    (error,) = errors
    assert error.execution_id == handle.id
    assert "nothing is committed" in str(error)
    assert app.effects == (["effect 1"] if len(runs) == 2 else [])
    assert (len(runs), None if left is None else left.state) == (tries, state)


async def test_an_attempt_finishes_once(world: World, app: App) -> None:
    """Also when the answer to the first commit was lost, and the task goes round again."""
    errors: list[str] = []

    def task() -> None:
        run = current_execution()
        with app.finishing():
            pass
        for known in (True, False):
            if not known:
                run.finish = None  # as if it had never heard
            try:
                with app.finishing():
                    pass
            except LeaseLost as error:
                errors.append(str(error))

    execution = await run_once(world, task)

    assert execution.state is State.SUCCEEDED
    assert app.effects == ["effect 1"]
    assert ["earlier transaction" in error for error in errors] == [True, False]


@pytest.mark.parametrize(("finishes", "why"), [(True, "earlier transaction"), (False, "hooks come after that")])
async def test_hooks_come_after_the_end_of_the_task_and_do_not_finish_it(
    world: World, app: App, finishes: bool, why: str
) -> None:
    seen: list[object] = []

    def effect() -> str:
        if finishes:
            with app.finishing() as finish:
                finish.result = "in the block"
            raise ValueError("after the block")
        return "returned"

    def on_success(run: Run, result: object) -> None:
        seen.append(result)
        try:
            with app.finishing():
                pass
        except LeaseLost as error:
            seen.append(str(error))

    task = Task(effect, "effect", on_success=on_success)
    async with world.running_with(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(1)
        state = await handle.state()

    assert state is State.SUCCEEDED
    assert seen[0] == ("in the block" if finishes else "returned")
    assert why in str(seen[1])
    assert app.effects == ["effect 1"] * finishes


async def test_a_commit_that_fails_is_a_failure(world: World, app: App) -> None:
    def task() -> None:
        run, connection = current_execution(), app.connect()
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS lines (a PRIMARY KEY, b REFERENCES lines DEFERRABLE INITIALLY DEFERRED)"
        )
        with run.transaction(connection):
            connection.execute("INSERT INTO lines VALUES (1, 2)")

    execution = await run_once(world, task)

    assert execution.state is State.FAILED
    assert "IntegrityError: FOREIGN KEY" in (execution.error or "")


async def test_a_result_that_is_no_json_is_refused_with_its_effect(world: World, app: App) -> None:
    def task() -> None:
        with app.finishing() as finish:
            finish.result = object()

    execution = await run_once(world, task)

    assert execution.state is State.FAILED
    assert "InvalidArgument: result=" in (execution.error or "")
    assert app.effects == []


async def test_a_plain_function_that_was_given_up_on_has_no_effect_any_more(app: App) -> None:
    """On the real clock: a virtual one does not pass while a thread works."""
    errors: list[str] = []
    go_on, over = threading.Event(), threading.Event()
    scheduler = Scheduler(SQLiteStorage(app.path))

    @scheduler.task
    def effect() -> None:
        go_on.wait(20)
        try:
            with app.finishing():
                pass
        except LeaseLost as error:
            errors.append(str(error))
        finally:
            over.set()

    async with scheduler:
        app.connect()
        handle = await scheduler.enqueue(effect.call(), timeout=0.01)
        execution = await handle.wait(20)
        go_on.set()
        await anyio.to_thread.run_sync(over.wait, 20)

        assert execution.state is State.FAILED
        assert app.effects == []
        assert ["its time was over" in error for error in errors] == [True]


async def test_a_store_without_transactions_is_named_to_the_task(app: App) -> None:
    def task() -> None:
        with app.finishing():
            pass

    execution = await run_once(World(), task)

    assert "MemoryStorage cannot take part in a transaction" in (execution.error or "")


async def test_a_run_without_a_scheduler_has_nothing_to_finish(app: App) -> None:
    claim = Claim("e", "e", 1, Work("effect"), Cause.ENQUEUE, 0, 0)
    run = Run(claim, VirtualClock())

    with pytest.raises(NotInExecution):
        run.transaction(app.connect())
