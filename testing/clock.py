"""The virtual clock: time that moves only when a test says so, and only when nothing is under way.

It counts what is under way (messages sent and not yet dealt with, store calls, executions) instead of guessing it from
the event loop: trio's autojump clock overtakes worker threads, and `wait_all_tasks_blocked` returns while one works.
`advance` waits until the count is zero, jumps to the next timer, wakes whoever waits for it, and so on: a year passes
in seconds, and in the order of a real one. The same on asyncio and trio. It knows nothing of jobs.

    clock = VirtualClock()
    async with Scheduler(clock=clock) as scheduler:
        await clock.advance(timedelta(days=1))        # everything that was due has happened

Who counts: the sender of a message says `began()`, its receiver says `ended()` when it comes back to wait for the next.
A wait that the clock ends is counted by the clock (`Waiting.fired`), and the waiter owes one `ended()` for it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

import anyio
from anyio.lowlevel import checkpoint

from ..model.errors import ClepsydraError, InvalidArgument
from ..model.instants import SECOND, Instant, Micros, to_datetime, to_instant, to_micros

START = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a virtual clock begins unless told otherwise."""

# How many rounds of the event loop must pass without anything beginning before the clock believes that all is at rest.
# Between two timers only what is counted should move. Before the first and after the last one, what the test itself has
# set off (an event set, a task started) may need a few rounds more to show up in the count.
_ROUNDS_BETWEEN_TIMERS = 2
_ROUNDS_AT_THE_ENDS = 10
# A scheduler that ends stops its stages one after another, some rounds each, and nothing of that is counted.
_ROUNDS_OF_AN_END = 200

# Timers that were dropped stay in the heap until their time comes, unless they are more than this and than half of it.
_DROPPED_KEPT = 256

_FOREVER: Micros = 2**62
_NEVER: Micros = 2**63


class ClockStalled(ClepsydraError, RuntimeError):
    """The virtual clock could not move: something was under way for too long in real time."""

    def __init__(self, under_way: int, patience: timedelta, at: datetime) -> None:
        super().__init__(
            f"{under_way} things have been under way at {at.isoformat()} (virtual) and did not come to rest within "
            f"{patience.total_seconds():g} s of real time; a message that nobody has dealt with, or a task that waits "
            "for something else than the clock? Wrap such a wait in `with clock.resting():`"
        )
        self.under_way = under_way
        self.patience = patience
        self.at = at


class ClockMiscounted(ClepsydraError, RuntimeError):
    """More things have ended than had begun: somebody counts twice."""

    def __init__(self, under_way: int, ending: int) -> None:
        super().__init__(f"{ending} things ended while only {under_way} were under way; somebody says ended() twice")
        self.under_way = under_way
        self.ending = ending


class ClockInUse(ClepsydraError, RuntimeError):
    """Two tasks move the same virtual clock at once."""

    def __init__(self) -> None:
        super().__init__("another task is moving this clock already; only one advance() or settle() at a time")


class VirtualActivity:
    """What is under way, as a number. Touched on the event loop's thread only."""

    __slots__ = ("_at_zero", "begun", "count", "miscount")

    def __init__(self) -> None:
        self.count = 0
        self.begun = 0
        self.miscount: ClockMiscounted | None = None
        self._at_zero: anyio.Event | None = None

    def began(self, count: int = 1) -> None:
        """`count` more things are under way."""
        self.count += count
        self.begun += count

    def ended(self, count: int = 1) -> None:
        """`count` of them have come to rest. Raises `ClockMiscounted` when so many never began."""
        if count > self.count:
            # Kept too: it is raised inside some stage, whose supervisor would hide it from the test.
            self.miscount = ClockMiscounted(self.count, count)
            raise self.miscount
        self.count -= count
        if not self.count and self._at_zero is not None:
            self._at_zero.set()

    async def wait_until_still(self, rounds: int) -> None:
        """Return when nothing is under way and nothing has begun for some rounds of the event loop."""
        still_for = 0
        while still_for < rounds:
            if self.count:
                await self._wait_for_zero()
            begun = self.begun
            await checkpoint()
            still_for = still_for + 1 if begun == self.begun and not self.count else 0

    async def _wait_for_zero(self) -> None:
        self._at_zero = anyio.Event()
        try:
            await self._at_zero.wait()
        finally:
            self._at_zero = None


class _Timer(Protocol):
    """Something in the clock's heap."""

    dropped: bool
    fired: bool

    def next_look(self, elapsed: Micros) -> Micros | None:
        """When it would look at the wall clock next, if it has to."""
        ...

    def fire(self) -> None:
        """Its time has come."""
        ...


class _Timers:
    """Who waits until when, and how much virtual time has passed."""

    def __init__(self) -> None:
        self.elapsed: Micros = 0
        self._heap: list[tuple[Micros, int, _Timer]] = []
        self._added = 0
        self._dropped = 0

    def add(self, micros: Micros, timer: _Timer) -> None:
        """Fire the timer so much later; at once if that is not later at all."""
        if micros <= 0:
            timer.fire()  # as a deadline in the past does on the real clock, whether or not time moves
            return
        self._added += 1
        heapq.heappush(self._heap, (self.elapsed + micros, self._added, timer))

    def drop(self, timer: _Timer) -> None:
        """Nobody waits for this one any more."""
        timer.dropped = True
        self._dropped += 1
        if self._dropped > _DROPPED_KEPT and self._dropped * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].dropped]
            heapq.heapify(self._heap)
            self._dropped = 0

    def is_due(self, target: Micros) -> bool:
        """Whether somebody waits for a time not after the target."""
        heap = self._heap
        while heap and heap[0][2].dropped:
            heapq.heappop(heap)
            self._dropped -= 1
        return bool(heap) and heap[0][0] <= target

    def fire_next(self) -> None:
        """Jump to the next timer and fire every timer of that time, in the order in which they were added."""
        heap = self._heap
        self.elapsed = heap[0][0]
        while heap and heap[0][0] <= self.elapsed:
            timer = heapq.heappop(heap)[2]
            if timer.dropped:
                self._dropped -= 1
            elif not timer.fired:
                timer.fire()

    def stepped(self) -> None:
        """The wall clock was stepped: who may not go long without looking at it looks when a real one would."""
        for deadline, _, timer in list(self._heap):
            look = timer.next_look(self.elapsed)
            if look is not None and look < deadline and not timer.dropped:
                self._added += 1
                heapq.heappush(self._heap, (look, self._added, timer))


class _Sleep:
    """One `sleep`: an event, cheaper than a cancel scope."""

    __slots__ = ("_activity", "dropped", "fired", "woken")

    def __init__(self, activity: VirtualActivity) -> None:
        self._activity = activity
        self.woken = anyio.Event()
        self.fired = False
        self.dropped = False

    def next_look(self, elapsed: Micros) -> None:
        """It sleeps on monotonic time."""

    def fire(self) -> None:
        self._activity.began()
        self.fired = True
        self.woken.set()


class VirtualWait:
    """One `wake_after` block. `fired` means: the clock has counted you as under way, say `ended()` when you rest."""

    __slots__ = ("_activity", "_at_most", "_micros", "_scope", "_since", "_timers", "dropped", "fired")

    def __init__(
        self, activity: VirtualActivity, timers: _Timers, micros: Micros | None, at_most: Micros | None = None
    ) -> None:
        self._activity = activity
        self._timers = timers
        # Without an end of its own it waits for the end of time, where a step of the wall clock can find it.
        self._micros = _NEVER if micros is None and at_most else micros
        self._at_most = at_most
        self._since = timers.elapsed
        self._scope = anyio.CancelScope()
        self.fired = False
        self.dropped = False

    @property
    def expired(self) -> bool:
        """Whether the wait was ended by the clock. (`fired` alone: it was, but what it waited for came as well.)"""
        return self._scope.cancelled_caught

    def next_look(self, elapsed: Micros) -> Micros | None:
        """The next of its looks at the wall clock, had it looked regularly since it began to wait."""
        if not self._at_most:
            return None
        return self._since + ((elapsed - self._since) // self._at_most + 1) * self._at_most

    def fire(self) -> None:
        """Its time has come: count the waiter and wake it."""
        self._activity.began()
        self.fired = True
        self._scope.cancel()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        if self._micros is not None:
            self._timers.add(self._micros, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if not self.fired and self._micros is not None:
            self._timers.drop(self)
        swallowed = False
        try:
            swallowed = bool(self._scope.__exit__(kind, error, trace))
        finally:
            if error is not None and not swallowed and self.fired:
                # The waiter is cancelled from outside, or has failed: it will not come back to say ended().
                self.fired = False
                self._timers.drop(self)  # after a step it stands in the heap twice
                self._activity.ended()
        return swallowed


class VirtualClock:
    """A `Clock` whose time is moved by the test.

    `patience` is how long, in real seconds, `advance` and `settle` wait for things under way before they raise
    `ClockStalled`.
    """

    def __init__(self, start: datetime | None = None, *, patience: timedelta | float = 30) -> None:
        self.activity = VirtualActivity()
        self._patience = timedelta(microseconds=_positive(patience, "patience"))
        self._wall_at_zero: Instant = to_instant(START if start is None else start, "start")
        self._timers = _Timers()
        self._moving = False
        self._rests = 0

    # What the library asks.

    def now(self) -> Instant:
        """Virtual wall time."""
        return self._wall_at_zero + self._timers.elapsed

    def monotonic(self) -> float:
        """Virtual seconds since the clock was made; steps and suspends do not touch it."""
        return self._timers.elapsed / SECOND

    def wake_after(self, seconds: float | None, at_most: float | None = None) -> VirtualWait:
        """Cancel what waits inside the block after `seconds` of virtual time; `None` never does.

        This clock knows when it is stepped: `at_most` ends a wait only then, and when a real one would have.
        """
        micros = None if seconds is None else _micros(seconds)
        return VirtualWait(self.activity, self._timers, micros, None if at_most is None else _micros(at_most))

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of virtual time. Neutral: the sleeper is counted only until it has resumed."""
        micros = _micros(seconds)
        if micros is None:
            await anyio.sleep_forever()
        elif micros <= 0:
            await checkpoint()
        else:
            await self._sleep(micros)

    async def _sleep(self, micros: Micros) -> None:
        sleeper = _Sleep(self.activity)
        self._timers.add(micros, sleeper)
        try:
            await sleeper.woken.wait()
        finally:
            if sleeper.fired:
                self.activity.ended()
            else:
                self._timers.drop(sleeper)

    # What the test does.

    @property
    def time(self) -> datetime:
        """Virtual wall time as an aware datetime in UTC."""
        return to_datetime(self.now())

    async def advance(self, length: timedelta | float) -> None:
        """Let this much time pass. When it returns, everything that was due has happened."""
        micros = to_micros(length, "length")
        if micros < 0:
            raise InvalidArgument("length", length, "must not be negative; step() sets the wall clock back")
        async with self._alone():
            await self._patiently(self._timers.elapsed + micros)

    async def advance_to(self, at: datetime) -> None:
        """Let time pass until the wall clock shows `at`."""
        target = to_instant(at)
        if target < self.now():
            raise InvalidArgument("at", at, f"must not be before {self.time}; step() sets the wall clock back")
        async with self._alone():
            await self._patiently(self._timers.elapsed)
            while self.now() < target:  # again, if the wall clock was stepped on the way
                await self._patiently(self._timers.elapsed + target - self.now())

    async def settle(self) -> None:
        """Wait until nothing is under way, without moving time."""
        async with self._alone():
            await self._patiently(self._timers.elapsed)

    async def pass_until(self, event: anyio.Event) -> None:
        """Let time pass, from one timer to the next, until the event is set: a shutdown must not wait for a test to
        move it.

        If the test is moving it already, this only waits. What does not come to rest is waited for no longer than the
        `patience`.
        """
        async with anyio.create_task_group() as group:
            if not self._moving:
                group.start_soon(self._pass)
            await event.wait()
            group.cancel_scope.cancel()

    async def _pass(self) -> None:
        async with self._alone():
            while True:
                # Time passes even when something does not come to rest: a shutdown is bounded.
                with anyio.move_on_after(self._patience.total_seconds()):
                    await self._rest(_ROUNDS_OF_AN_END)
                if self._timers.is_due(_FOREVER):
                    self._timers.fire_next()
                else:
                    await anyio.sleep(0.001)  # nothing waits for the clock: what is left is real, a thread or a test

    def step(self, length: timedelta | float) -> None:
        """The wall clock jumps, forward or back, as NTP does it. Nobody is woken; monotonic time does not move."""
        self._wall_at_zero += to_micros(length, "length")
        self._timers.stepped()

    def suspend(self, length: timedelta | float) -> None:
        """The lid was closed for so long: the wall clock has gone on, monotonic time has not."""
        self._wall_at_zero += _positive(length, "length")
        self._timers.stepped()

    @contextmanager
    def resting(self) -> Generator[None]:
        """Inside, the execution that calls this is not counted: it waits for something that the test will do later."""
        self.activity.ended()
        try:
            yield
        finally:
            self.activity.began()

    # How it moves.

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        if self._moving:
            raise ClockInUse
        self._moving = True
        try:
            yield
        finally:
            self._moving = False

    async def _patiently(self, target: Micros) -> None:
        """Move to the target; give up when nothing has come to rest for the whole patience in real time."""
        while True:
            rests = self._rests
            with anyio.move_on_after(self._patience.total_seconds()):
                return await self._move(target)
            if self._rests == rests:
                raise ClockStalled(self.activity.count, self._patience, self.time) from self.activity.miscount

    async def _move(self, target: Micros) -> None:
        await self._rest(_ROUNDS_AT_THE_ENDS)
        while self._timers.is_due(target):
            while self._timers.is_due(target):
                self._timers.fire_next()
                await self._rest(_ROUNDS_BETWEEN_TIMERS)
            await self._rest(_ROUNDS_AT_THE_ENDS)
        self._timers.elapsed = target

    async def _rest(self, rounds: int) -> None:
        await self.activity.wait_until_still(rounds)
        self._rests += 1
        if self.activity.miscount is not None:
            raise self.activity.miscount


def _micros(seconds: float) -> Micros | None:
    """Whole microseconds, never 0 for a wait that is longer than that; None for infinity."""
    if seconds == math.inf:
        return None
    if math.isnan(seconds):
        raise InvalidArgument("seconds", seconds, "must be a number of seconds")
    return max(1, round(seconds * SECOND)) if seconds > 0 else 0


def _positive(length: timedelta | float, argument: str) -> Micros:
    micros = to_micros(length, argument)
    if micros <= 0:
        raise InvalidArgument(argument, length, "must be longer than nothing")
    return micros
