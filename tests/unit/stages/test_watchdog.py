"""A task that blocks the event loop is noticed while it does, and named; one that does not is left alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra.model import events
from clepsydra.model.errors import InvalidArgument
from clepsydra.model.execution import Cause
from clepsydra.model.task import Task
from clepsydra.model.work import Work
from clepsydra.stages.watchdog import Watchdog
from clepsydra.stages.worker_pool import WorkerPool
from clepsydra.storage.protocol import Claim
from clepsydra.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

THRESHOLD = 0.04


class Recorder:
    listening = True

    def __init__(self) -> None:
        self.heard: list[events.TelemetryEvent] = []

    def emit(self, event: events.TelemetryEvent, /) -> None:
        self.heard.append(event)

    def blocks(self) -> list[events.LoopBlocked]:
        return [event for event in self.heard if isinstance(event, events.LoopBlocked)]


@asynccontextmanager
async def watched(recorder: Recorder, *functions: Callable[..., Any]) -> AsyncGenerator[WorkerPool]:
    """A pool with its watchdog; the virtual clock does not move while the loop is blocked, and need not."""
    clock = VirtualClock()
    tasks = {function.__name__: Task(function, function.__name__) for function in functions}
    pool = WorkerPool(tasks, clock, lambda: "id", "node")
    watchdog = Watchdog(pool, clock, THRESHOLD, recorder)
    async with anyio.create_task_group() as group:
        await group.start(pool.run)
        group.start_soon(watchdog.run)
        await checkpoint()
        yield pool
        group.cancel_scope.cancel()


async def run(pool: WorkerPool, function: Callable[..., Any], number: int = 1) -> None:
    name = f"{function.__name__}-{number}"
    pool.submit([Claim(name, name, 1, Work(function.__name__), Cause.ENQUEUE, 0, 0)])
    await pool.wait_idle()


async def until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not happened():
            await checkpoint()


async def block() -> None:
    time.sleep(0.15)  # noqa: ASYNC251


async def test_a_task_that_blocks_the_loop_is_named_at_once_and_told_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named_while_blocked: list[bool] = []

    async def block_until_named() -> None:
        deadline = threading.Event()
        for _ in range(1_000):
            if "blocked the event loop" in caplog.text:
                break
            deadline.wait(0.01)
        named_while_blocked.append("block_until_named" in caplog.text)

    recorder = Recorder()
    with caplog.at_level(logging.INFO, "clepsydra.watchdog"):
        async with watched(recorder, block_until_named) as pool:
            await run(pool, block_until_named)
            await until(lambda: bool(recorder.blocks()))

    (told,) = recorder.blocks()
    assert named_while_blocked == [True]
    assert "deadline.wait(0.01)" in caplog.text, "it shows where the task stands"
    assert "block_until_named-1" in str(told.suspect)
    assert told.lasted.total_seconds() >= THRESHOLD


async def test_a_block_after_a_wait_and_a_second_block_are_noticed_too() -> None:
    async def block_later() -> None:
        await checkpoint()
        await block()

    recorder = Recorder()
    async with watched(recorder, block, block_later) as pool:
        await run(pool, block_later)
        await run(pool, block)
        await until(lambda: len(recorder.blocks()) == 2)

    assert ["block_later" in str(told.suspect) for told in recorder.blocks()] == [True, False]


async def test_many_short_steps_are_no_block() -> None:
    async def busy() -> None:
        for _ in range(15):
            time.sleep(0.01)  # noqa: ASYNC251
            await checkpoint()

    recorder = Recorder()
    async with watched(recorder, busy) as pool:
        await run(pool, busy)

    assert recorder.blocks() == []


async def test_a_plain_function_may_take_its_time() -> None:
    def slow() -> None:
        time.sleep(0.15)

    recorder = Recorder()
    async with watched(recorder, slow) as pool:
        await run(pool, slow)

    assert recorder.blocks() == []


async def test_its_thread_sleeps_while_nothing_runs_and_ends_with_it() -> None:
    def watchdogs() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "clepsydra-watchdog"}

    others = watchdogs()  # of tests before this one, about to end
    async with watched(Recorder(), block) as pool:
        await until(lambda: len(watchdogs() - others) == 1)
        await until(lambda: not pool.occupied.is_set())

    await until(lambda: not watchdogs() - others)


@pytest.mark.parametrize("threshold", [0, -1, float("nan")])
def test_a_threshold_is_longer_than_nothing(threshold: float) -> None:
    clock = VirtualClock()

    with pytest.raises(InvalidArgument, match="threshold"):
        Watchdog(WorkerPool({}, clock, lambda: "id", "node"), clock, threshold)
