"""What a process costs at rest: memory, CPU and wake-ups. For ours and the peers'; nothing but the standard library."""

from __future__ import annotations

import asyncio
import gc
import resource
import selectors
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ENOUGH = 10_000
"""Jobs from which on it is watched for long."""


class CountingSelector(selectors.DefaultSelector):
    """Counts how often an event loop has gone to sleep, and so has been woken up."""

    sleeps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """One more."""
        if timeout is None or timeout > 0:  # else there is something to do already
            type(self).sleeps += 1
        return super().select(timeout)


def counted_loop() -> asyncio.AbstractEventLoop:
    """One whose wake-ups are counted."""
    return asyncio.SelectorEventLoop(CountingSelector())


def resident() -> float:
    """Bytes, after a collection."""
    gc.collect()
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # elsewhere the peak must do
    return most * (1.0 if sys.platform == "darwin" else 1024.0)


async def watched(sleep: Callable[[float], Awaitable[object]], size: int) -> dict[str, float]:
    """A while in which nothing is due."""
    await sleep(1)
    seconds = 10.0 if size >= ENOUGH else 0.5
    began, before, sleeps = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF), CountingSelector.sleeps
    await sleep(seconds)
    sleeps = CountingSelector.sleeps - sleeps - 1  # the one that ended this one here
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "CPU, percent of a core": used / took * 100,
        "wake-ups of the event loop, in a minute": max(0, sleeps) / took * 60,
    }
