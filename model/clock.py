"""The one place that asks what time it is.

A `Clock` gives wall time (`now`, for nominal times and not-before times), monotonic time (`monotonic`, for timeouts,
leases and grace), and the two ways to wait for either. Everything else in the package is handed a clock. `SystemClock`
is the real one; `clepsydra.testing` has the virtual one, which moves only when nothing is under way: that is what
`Activity` counts. It knows nothing of jobs.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import anyio

from .instants import Instant


class Activity(Protocol):
    """Counts what is under way: messages sent and not yet dealt with, store calls, executions not waiting on the clock.

    The real clock does not care and counts nothing; a virtual one moves only at zero. Called on the event loop's
    thread.
    """

    def began(self, count: int = 1) -> None:
        """`count` more things are under way."""
        ...

    def ended(self, count: int = 1) -> None:
        """`count` of them have come to rest."""
        ...


class Waiting(Protocol):
    """A wait that the clock may end."""

    @property
    def fired(self) -> bool:
        """Whether the clock has counted the waiter as under way by ending its wait (virtual clocks only)."""
        ...

    @property
    def expired(self) -> bool:
        """Whether the wait was ended by the clock."""
        ...


class Clock(Protocol):
    """Where all time comes from (law 8)."""

    @property
    def activity(self) -> Activity:
        """What is under way, for clocks that have to know."""
        ...

    def now(self) -> Instant:
        """Wall time: microseconds since the epoch. May be stepped back and forth by the system. Any thread."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start. Any thread."""
        ...

    def wake_after(self, seconds: float | None, at_most: float | None = None) -> AbstractContextManager[Waiting]:
        """Cancel what waits inside the block after `seconds` of monotonic time; `None` never does.

        `at_most` is how long the waiter may go without a look at the wall clock, which may be stepped meanwhile: a
        clock that cannot know of that ends the wait by then.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of monotonic time."""
        ...

    async def pass_until(self, event: anyio.Event) -> None:
        """Wait for an event at a shutdown, where time must go on: a clock that others move is moved here."""
        ...


class _Uncounted:
    """The real clock's activity: it moves by itself, so nobody needs to count."""

    def began(self, count: int = 1) -> None:
        """Nothing to do."""

    def ended(self, count: int = 1) -> None:
        """Nothing to do."""


class _ScopedWait:
    """A wait on the real clock: the deadline is the cancel scope's own."""

    fired = False

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope

    @property
    def expired(self) -> bool:
        return self._scope.cancelled_caught


class SystemClock:
    """The machine's clocks. Stateless: one per process is enough, any number does no harm."""

    activity: Activity = _Uncounted()

    def now(self) -> Instant:
        """`time.time_ns` in microseconds."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """`time.monotonic`."""
        return time.monotonic()

    @contextmanager
    def wake_after(self, seconds: float | None, at_most: float | None = None) -> Generator[_ScopedWait]:
        """An anyio cancel scope with the earlier of the two deadlines."""
        limits = [limit for limit in (seconds, at_most) if limit is not None]
        with anyio.move_on_after(min(limits, default=None)) as scope:
            yield _ScopedWait(scope)

    async def sleep(self, seconds: float) -> None:
        """`anyio.sleep`."""
        await anyio.sleep(seconds)

    async def pass_until(self, event: anyio.Event) -> None:
        """Time passes by itself: simply wait."""
        await event.wait()
