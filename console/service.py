"""A scheduler run as a service of its own: what signals do, how it ends, and with which exit code.

The first SIGINT or SIGTERM drains: nothing new is started, what runs may go on for the grace. The second one cuts that
short. SIGHUP is for those who have something to read again; else it is the system's to deal with. Whoever wants to say
something at the start, at the drain and at the end gives functions for it; the last one is called when nothing runs any
more and the store can still be asked.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from logging import getLogger
from typing import Any

import anyio
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from .. import ClepsydraError, Scheduler, SchedulerNotRunning
from .errors import BY_SIGNAL, OK, CommandError

log = getLogger("clepsydra.console")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def nothing() -> None:
    """Say nothing."""
    await checkpoint()


class Service:
    """One life of a scheduler under the command line. `ask_to_stop` is what a signal does, or the end of `end_after`.

    `beside` runs as long as the scheduler does.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        beside: Callable[[], Coroutine[Any, Any, None]] = nothing,
        end_after: float | None = None,
        on_start: Callable[[], Awaitable[None]] = nothing,
        on_hangup: Callable[[], Awaitable[None]] | None = None,
        on_drain: Callable[[str], None] = lambda why: None,
        on_insist: Callable[[], None] = lambda: None,
        on_end: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        self.scheduler = scheduler
        self._beside, self._end_after = beside, end_after
        self._on_start, self._on_drain, self._on_end = on_start, on_drain, on_end
        self._on_hangup, self._on_insist = on_hangup, on_insist
        self._started, self._asked = anyio.Event(), anyio.Event()
        self._why = ""
        self._failure: ClepsydraError | None = None
        self.exit_code = OK

    async def run(self) -> int:
        """Run until it is asked to stop. Raises `CommandError` for a scheduler that cannot start, or gives up."""
        async with anyio.create_task_group() as group:
            await group.start(self._obey_signals)
            group.start_soon(self._accompany)
            group.start_soon(self._beside)
            group.start_soon(self._watch_the_time)
            try:
                await self.scheduler.run(task_status=_Started(self._started))
            except ClepsydraError as error:
                self._failure = error
            group.cancel_scope.cancel()
        if self._failure is not None:
            raise CommandError(str(self._failure)) from self._failure
        return self.exit_code

    def ask_to_stop(self, why: str) -> None:
        """Drain and end; asking again changes nothing."""
        if not self._asked.is_set():
            self._why = why
            self._asked.set()

    def insist(self, number: int) -> None:
        """A second signal: end at once."""
        self.exit_code = BY_SIGNAL + number
        log.warning("%s again: what still runs is cancelled", signal.Signals(number).name)
        self._on_insist()
        self.scheduler.stop(hard=True)

    async def _obey_signals(self, *, task_status: TaskStatus[None]) -> None:
        if sys.platform == "win32":  # Ctrl-C is a KeyboardInterrupt there: no second chance, but an end
            task_status.started()
            return
        signals = SIGNALS if self._on_hangup is None else (*SIGNALS, signal.SIGHUP)
        with anyio.open_signal_receiver(*signals) as received:
            task_status.started()
            async for number in received:
                if number not in SIGNALS:
                    await self._hang_up()
                    continue
                if self._asked.is_set():
                    self.insist(number)
                self.ask_to_stop(signal.Signals(number).name)

    async def _hang_up(self) -> None:
        """SIGHUP: what a service reads again is read again, once it has started and unless it is ending."""
        if self._on_hangup is not None and self._started.is_set() and not self._asked.is_set():
            await self._on_hangup()

    async def _watch_the_time(self) -> None:
        if self._end_after is not None:
            await self.scheduler.clock.sleep(self._end_after)
            self.ask_to_stop(f"{self._end_after:g} s are over")

    async def _accompany(self) -> None:
        try:
            await self._from_start_to_end()
        except SchedulerNotRunning:  # it was cut short meanwhile
            log.info("ended before everything about it could be told")
        except ClepsydraError as error:
            self._failure = error
            self.scheduler.stop()

    async def _from_start_to_end(self) -> None:
        await self._started_or_asked()
        if not self._started.is_set():
            self.scheduler.stop()
            return
        await self._on_start()
        await self._asked.wait()
        self._on_drain(self._why)
        idle = await self.scheduler.drain()
        await self._on_end()
        self.scheduler.stop(hard=not idle)  # else it would wait for a second grace

    async def _started_or_asked(self) -> None:
        async with anyio.create_task_group() as group:

            async def until(event: anyio.Event) -> None:
                await event.wait()
                group.cancel_scope.cancel()

            group.start_soon(until, self._started)
            group.start_soon(until, self._asked)


class _Started(TaskStatus[None]):
    """Sets an event when the scheduler says that it has started."""

    def __init__(self, event: anyio.Event) -> None:
        self._event = event

    def started(self, value: None = None) -> None:
        self._event.set()
