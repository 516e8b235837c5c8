"""A task may do what it wants: the host, the scheduler and the other tasks do not suffer from it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra import Execution, ExecutionHandle, Scheduler, SQLiteStorage, Stages, State, Task
from clepsydra.model.events import LoopBlocked

from .hosts import PATIENCE, Happenings, restarts, until
from .processes import Nursery

pytestmark = pytest.mark.anyio


class Unspeakable(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Own(BaseException):
    """No Exception."""


RUDE: dict[str, BaseException | type[BaseException]] = {
    "Exception": ValueError("plain"),
    "SystemExit": SystemExit(3),
    "GeneratorExit": GeneratorExit(),
    "StopIteration": StopIteration(),
    "StopAsyncIteration": StopAsyncIteration(),
    "BaseException": Own(),
    "group": BaseExceptionGroup("several", [ValueError(), SystemExit(1)]),
    "no text": Unspeakable(),
    "surrogates": ValueError("\ud800\0\x1b[2J"),
    "long": ValueError("x" * 10_000_000),
}


@pytest.fixture
def scheduler(tmp_path: Path) -> Scheduler:
    """On a file, with little patience at its end."""
    return Scheduler(SQLiteStorage(tmp_path / "jobs.db"), stages=Stages(grace=0.2, loop_blocked=0.1))


async def ended(scheduler: Scheduler, task: Task[[], Any], **options: Any) -> Execution:
    """How a run of this task ends; everything else is as before."""
    handle = await scheduler.enqueue(task.call(), **options)
    execution = await handle.wait(30)
    assert scheduler.health().ok, scheduler.health().reasons
    assert restarts(scheduler.health()) == 0
    return execution


@pytest.mark.parametrize("name", RUDE)
async def test_whatever_a_task_raises_is_its_own_failure(scheduler: Scheduler, name: str) -> None:
    @scheduler.task(name="coroutine")
    async def coroutine() -> None:
        await checkpoint()
        raise RUDE[name]

    @scheduler.task(name="function")
    def function() -> None:
        raise RUDE[name]

    async with scheduler:
        assert (await ended(scheduler, coroutine)).state is State.FAILED
        assert (await ended(scheduler, function)).state is State.FAILED


@pytest.mark.parametrize(
    "result", ["\ud800", object(), {1: 2}, "x" * 10_000_000, float("nan")], ids=lambda it: type(it).__name__
)
async def test_whatever_a_task_returns_its_execution_ends(scheduler: Scheduler, result: object) -> None:
    @scheduler.task(name="returns")
    async def returns() -> object:
        return result

    async with scheduler:
        assert (await ended(scheduler, returns)).finished


async def test_a_task_that_leaves_the_interpreter_the_usual_way_leaves_only_its_run(scheduler: Scheduler) -> None:
    @scheduler.task(name="leaves")
    def leaves() -> None:
        sys.exit("I am off")

    async with scheduler:
        execution = await ended(scheduler, leaves)

    assert execution.state is State.FAILED
    assert "SystemExit" in (execution.error or "")


async def test_a_cancellation_that_is_ignored_for_a_while_is_the_same_in_the_end(scheduler: Scheduler) -> None:
    @scheduler.task(name="stubborn")
    async def stubborn() -> None:
        for _ in range(5):
            with suppress(BaseException):
                await anyio.sleep_forever()

    async with scheduler:
        assert (await ended(scheduler, stubborn, timeout=0.05)).finished


async def test_a_task_that_ignores_every_cancellation_does_not_keep_the_scheduler(scheduler: Scheduler) -> None:
    begun: list[str] = []

    @scheduler.task(name="deaf")
    async def deaf() -> None:
        begun.append("once more")
        while True:
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        async with scheduler:
            assert (await ended(scheduler, deaf, timeout=0.05)).state is State.FAILED
            await scheduler.enqueue(deaf.call())
            await until(lambda: len(begun) == 2, "a task that is deaf to the shutdown")


async def test_a_task_that_blocks_the_loop_is_named(scheduler: Scheduler) -> None:
    happenings = Happenings(scheduler)

    @scheduler.task(name="blocks")
    async def blocks() -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - that is what it does wrong

    async with scheduler:
        await ended(scheduler, blocks)
        await happenings.wait_for(LoopBlocked)

    (event,) = [event for event in happenings.events if isinstance(event, LoopBlocked)]
    assert "blocks" in (event.suspect or "")
    assert event.duration >= 100_000


async def test_a_thread_that_ignores_its_deadline_is_left_to_itself(scheduler: Scheduler) -> None:
    released = threading.Event()

    @scheduler.task(name="hangs")
    def hangs() -> None:
        released.wait()

    async with scheduler:
        execution = await ended(scheduler, hangs, timeout=0.05)
        released.set()

    assert execution.state is State.FAILED
    assert "timeout" in (execution.error or "").lower()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hung_thread_does_not_keep_the_process(processes: Nursery, tmp_path: Path, backend: str) -> None:
    program = processes.start("odd_program", "hung_thread", tmp_path / "jobs.db", backend)

    assert processes.wait_for_end(program, 20) == 0, program.complaint()
    assert program.said() == "left\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupted_host_ends_though_tasks_run(processes: Nursery, tmp_path: Path, backend: str) -> None:
    program = processes.start("odd_program", "interrupted", tmp_path / "jobs.db", backend)
    processes.wait_for(lambda: program.said() == "running\n", "running tasks")

    program.send(signal.SIGINT)

    assert processes.wait_for_end(program, 20) != 0
    assert program.errors.read_text().strip().endswith("KeyboardInterrupt")


async def test_a_host_that_is_cancelled_gives_back_what_runs(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "jobs.db")
    attempts: list[str] = []
    handles: list[ExecutionHandle] = []
    host = Scheduler(storage, stages=Stages(grace=0))

    @host.task(name="long")
    async def long() -> str:
        attempts.append("begun")
        if len(attempts) == 1:
            await anyio.sleep_forever()
        return "done"

    async with anyio.create_task_group() as group:
        await group.start(host.run)
        handles.append(await host.enqueue(long.call()))
        await until(lambda: attempts, "a running task")
        group.cancel_scope.cancel()
    assert host.health().status == "stopped"

    async with host:
        execution = await handles[0].wait(PATIENCE)
    assert execution.state is State.SUCCEEDED
    assert execution.attempt == 1, "an interrupted attempt is not a failed one"
