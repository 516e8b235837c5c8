"""Deadlines pass when they are due, in order, and only those of what has not ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra.storage.deadlines import Deadlines
from clepsydra.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


class Bench:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.log: list[tuple[str, float] | str] = []
        self.deadlines = Deadlines[str](self.clock, lambda key: self.log.append((key, self.clock.monotonic())))


@asynccontextmanager
async def watching(made: Bench) -> AsyncGenerator[Bench]:
    async with anyio.create_task_group() as group:
        group.start_soon(made.deadlines.watch)
        await made.clock.settle()
        yield made
        group.cancel_scope.cancel()
    assert made.clock.activity.count == 0


async def test_each_passes_at_its_time_whatever_the_order_in_which_they_were_armed() -> None:
    async with watching(Bench()) as it:
        for key, at in (("c", 3.3), ("a", 0.1), ("b", 2)):
            it.deadlines.arm(key, at)
        await it.clock.advance(10)

    assert it.log == [("a", 0.1), ("b", 2), ("c", 3.3)]
    assert len(it.deadlines) == 0


async def test_what_was_disarmed_does_not_pass() -> None:
    async with watching(Bench()) as it:
        it.deadlines.arm("a", 1)
        it.deadlines.arm("b", 2)
        it.deadlines.disarm("a")
        it.deadlines.disarm("unknown")
        await it.clock.advance(10)

    assert it.log == [("b", 2)]


async def test_a_deadline_that_has_passed_already_passes_at_once() -> None:
    async with watching(Bench()) as it:
        await it.clock.advance(10)
        it.deadlines.arm("a", 5)
        await it.clock.settle()

    assert it.log == [("a", 10)]


async def test_those_armed_before_it_watches_are_watched_too() -> None:
    made = Bench()
    made.deadlines.arm("a", 1)
    async with watching(made):
        await made.clock.advance(1)

    assert made.log == [("a", 1)]


async def test_between_64_that_pass_at_once_the_loop_turns() -> None:
    async with watching(Bench()) as it, anyio.create_task_group() as group:

        async def tick() -> None:
            while True:
                it.log.append("tick")
                await checkpoint()

        for number in range(200):
            it.deadlines.arm(str(number), 1)
        group.start_soon(tick)
        await it.clock.advance(1)
        group.cancel_scope.cancel()

    longest = stretch = 0
    for entry in it.log:
        stretch = 0 if entry == "tick" else stretch + 1
        longest = max(longest, stretch)
    assert len([entry for entry in it.log if entry != "tick"]) == 200
    assert longest <= 128  # two turns: trio shuffles who runs when within a turn


async def test_what_has_ended_in_time_is_not_kept() -> None:
    it = Bench()
    for number in range(10_000):
        it.deadlines.arm(str(number), 3600 + number)
        it.deadlines.disarm(str(number))

    assert it.deadlines.kept < 1_000
