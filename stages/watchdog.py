"""Notices an `async` task that blocks the event loop, and names it (law 6).

A thread looks now and then at which step of which run has the loop. If it is still the same step after the threshold,
it says so at once in the log, with the place where the task stands: nothing else can, for the loop stands still. The
event follows on the loop, when it turns again. While nothing runs the thread sleeps. It counts its own looks instead of
asking what time it is, so that it works under a virtual clock too. It stops nobody.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback

import anyio
from attrs import define

from ..model import events
from ..model.clock import Clock
from ..model.errors import InvalidArgument
from ..model.instants import SECOND
from ..storage.threads import EventLoopHandle, start_daemon
from .running import Run
from .worker_pool import WorkerPool

log = logging.getLogger("clepsydra.watchdog")

DEFAULT_THRESHOLD = 0.5
"""Seconds that a step may take."""

_LOOKS = 4
"""How often it looks within the threshold."""

_FRAMES = 20
"""Lines of the stack that are shown: the innermost."""


@define(eq=False)
class _Block:
    """A step that was seen: by how many looks, and since when."""

    run: Run
    step: int
    since: float
    looks: int = 0


class Watchdog:
    """Run as a supervised child beside the pool."""

    def __init__(
        self, pool: WorkerPool, clock: Clock, threshold: float = DEFAULT_THRESHOLD, emit: events.Emitter | None = None
    ) -> None:
        if not threshold > 0:
            raise InvalidArgument("threshold", threshold, "must be a positive number of seconds")
        self._pool = pool
        self._clock = clock
        self._interval = threshold / _LOOKS
        self._emit = events.SILENCE if emit is None else emit

    async def run(self) -> None:
        """Watch until cancelled."""
        stopped = threading.Event()
        watch = _Watch(self, EventLoopHandle.current(), threading.get_ident(), stopped)
        start_daemon("clepsydra-watchdog", watch.run)
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
            self._pool.occupied.set()  # in case it sleeps

    # For its thread.

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return self._interval

    def wait_until_occupied(self, stopped: threading.Event) -> None:
        """Return when the pool has something to run, or the watch ends."""
        occupied = self._pool.occupied
        occupied.clear()
        if not self._pool.running() and not stopped.is_set():  # else it came just before
            occupied.wait()

    def look(self, last: _Block | None) -> _Block | None:
        """The step that has the loop now: the last one once more, or another, or none."""
        on_loop = self._pool.on_loop
        step, run = on_loop.steps, on_loop.run
        if run is None or step != on_loop.steps:
            return None
        if last is None or last.step != step:
            return _Block(run, step, self._clock.monotonic())
        last.looks += 1
        return last

    def seconds(self, block: _Block) -> float:
        """How long it has lasted, at least. The looks count too: a virtual clock stands still with the loop."""
        return max(block.looks * self._interval, self._clock.monotonic() - block.since)

    def tell(self, block: _Block) -> None:
        """On the loop, so it is over."""
        log.info("the event loop turns again; %r had blocked it for %.2f s", block.run, self.seconds(block))
        if self._emit.listening:
            duration = round(self.seconds(block) * SECOND)
            self._emit.emit(events.LoopBlocked(at=self._clock.now(), duration=duration, suspect=repr(block.run)))


@define
class _Watch:
    """The thread of one `Watchdog.run`."""

    dog: Watchdog
    loop: EventLoopHandle
    loop_thread: int
    stopped: threading.Event

    def run(self) -> None:
        """Look until stopped."""
        block: _Block | None = None
        while not self.stopped.is_set():
            block = self.dog.look(block)
            if block is None:
                self.dog.wait_until_occupied(self.stopped)
            elif block.looks == _LOOKS:
                self._complain(block)
            self.stopped.wait(self.dog.interval)

    def _complain(self, block: _Block) -> None:
        log.warning(
            "%r has blocked the event loop for %.2f s and everything waits for it; it stands at\n%s",
            block.run,
            self.dog.seconds(block),
            self._stack(),
        )
        self.loop.call_soon(self.dog.tell, block)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self.loop_thread)  # pyright: ignore[reportPrivateUsage]
        return "".join(traceback.format_stack(frame)[-_FRAMES:]) if frame is not None else "an unknown place"
