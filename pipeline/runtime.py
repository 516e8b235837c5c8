"""One run of a scheduler: open the store, start the chain, wait for the word to stop, drain, close.

The host must not be hurt. A cancellation from outside is heard by one small task, and everything else is in another
that is shielded from it until the drain is over, which is bounded by the grace. A chain whose restart budget is spent
ends the run with one error.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import cast

import anyio
from anyio.abc import TaskStatus

from ..model.clock import Clock
from ..model.errors import RestartLimitReached, SchedulerFailed, StoreError
from ..model.strategies import Node
from ..storage.lane import StorageLane
from .settings import Stages
from .supervisor import Child, Supervisor
from .wiring import Chain

log = logging.getLogger("clepsydra")

AFTER_CANCELLING = 5.0
"""Seconds that cancelled tasks have to end, and outcomes to be recorded, after the grace."""


class Runtime:
    """The life of one `async with scheduler`."""

    def __init__(self, lane: StorageLane, chain: Chain, clock: Clock, settings: Stages, node: Node) -> None:
        self.lane, self.chain, self.node = lane, chain, node
        self._clock, self._settings = clock, settings
        self._stop = anyio.Event()
        self._hurry = anyio.Event()
        self.declaring = anyio.Lock()
        """Held by who declares jobs anew: of two at once neither is to have half of its way."""
        self.draining = False
        self.ended = anyio.Event()
        self.failure: SchedulerFailed | None = None

    def request_stop(self, *, hard: bool = False) -> None:
        """Drain and end; `hard`: without the grace, or without what is left of it."""
        if hard:
            self._hurry.set()
        self._stop.set()

    async def run(self, prepare: Callable[[], Awaitable[None]], task_status: TaskStatus[None]) -> None:
        """Run until stopped or cancelled. Raises what kept it from starting, or `SchedulerFailed`."""
        try:
            async with anyio.create_task_group() as outside:
                outside.start_soon(self._listen_for_cancellation)
                # In a task of its own: asyncio's own cancellation of the host's task is stopped by no shield.
                outside.start_soon(self._live_shielded, prepare, task_status, outside.cancel_scope)
        except BaseExceptionGroup as group:
            error = _alone(group)
            raise error from error.__cause__  # not from None, which would forget it
        finally:
            self._note_end()

    async def _listen_for_cancellation(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.request_stop()

    async def _live_shielded(
        self, prepare: Callable[[], Awaitable[None]], task_status: TaskStatus[None], outside: anyio.CancelScope
    ) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._live(prepare, task_status)
        finally:
            self._note_end()
        outside.cancel()

    def _note_end(self) -> None:
        self.ended.set()
        self.chain.waiters.notify_all()

    async def _live(self, prepare: Callable[[], Awaitable[None]], task_status: TaskStatus[None]) -> None:
        foundation = Supervisor("storage", [Child("lane", self.lane.run)], clock=self._clock)
        async with anyio.create_task_group() as group:
            await group.start(foundation.run)
            try:
                if await self._unless_stopped(self._open):
                    await self._run_chain(prepare, task_status)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close()
                group.cancel_scope.cancel()

    async def _run_chain(self, prepare: Callable[[], Awaitable[None]], task_status: TaskStatus[None]) -> None:
        try:
            async with anyio.create_task_group() as group:
                await group.start(self.chain.supervisor.run)
                if await self._unless_stopped(prepare):
                    task_status.started()
                    await self._stop.wait()
                await self._drain()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as crash:
            failure = self._failed(_alone(crash))
            raise failure from failure.__cause__
        finally:
            self.chain.mailbox.fail_all(
                self.failure or SchedulerFailed("the scheduler has ended before it could answer this command")
            )

    async def _open(self) -> None:
        await self.lane.open(self.node, counted=False)

    async def _unless_stopped(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Take a step of the start. False: it was broken off, the end is wanted, and the store may be down for long."""
        taken = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._break_off, group.cancel_scope)
            await step()
            taken = True
            group.cancel_scope.cancel()
        return taken

    async def _break_off(self, step: anyio.CancelScope) -> None:
        await self._stop.wait()
        step.cancel()

    def _failed(self, error: BaseException) -> BaseException:
        if not isinstance(error, RestartLimitReached):
            return error
        while isinstance(error.__cause__, RestartLimitReached):
            error = error.__cause__  # a supervisor below has given up: its account names the stage
        self.failure = SchedulerFailed(f"the scheduler has given up: {error}")
        self.failure.__cause__ = error.__cause__ or error
        log.error("%s", self.failure)
        return self.failure

    # ---- the end

    async def _drain(self) -> None:
        """Stop claiming, let what runs end within the grace, then cancel it, and record what became of it."""
        self.draining = True
        self.chain.stop_claiming()
        if not await self._idle_within_grace():
            log.warning("tasks are still running after the grace, or what was left of it; they are cancelled")
            self.chain.pool.interrupt_all()
            if not await self._within(AFTER_CANCELLING, self.chain.pool.wait_idle) and self.chain.pool.is_in_hooks():
                await self._within(self.chain.pool.time_for_hooks, self.chain.pool.wait_idle)
        if not await self._within(AFTER_CANCELLING, self._all_recorded):
            log.warning("not all outcomes could be recorded; what they belong to will be recovered at the next start")

    async def _all_recorded(self) -> None:
        await self.chain.claims_answered()
        self.chain.placed.nudge()
        await self.chain.pool.wait_recorded()

    async def _idle_within_grace(self) -> bool:
        """Wait until nothing runs: as long as the grace, and no longer than until somebody is in a hurry."""
        if self._hurry.is_set():
            return await self._within(0.0, self.chain.pool.wait_idle)
        idle = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._cut_short, group.cancel_scope)
            idle = await self._within(self._settings.grace.total_seconds(), self.chain.pool.wait_idle)
            group.cancel_scope.cancel()
        return idle

    async def _cut_short(self, waiting: anyio.CancelScope) -> None:
        await self._hurry.wait()
        waiting.cancel()

    async def _within(self, seconds: float, wait: Callable[[], Awaitable[None]]) -> bool:
        """Wait for at most so long; whether it came in time."""
        done = False
        with self._clock.wake_after(seconds) as waiting:
            await wait()
            done = True
        if waiting.fired:
            self._clock.activity.ended()
        return done

    async def _close(self) -> None:
        try:
            await self.lane.close(deadline=AFTER_CANCELLING, counted=False)
        except StoreError as error:
            log.warning("the store did not close in time: %s", error)


def _alone(error: BaseException) -> BaseException:
    """The one error inside nested groups of one; a group of several stays."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _alone(group.exceptions[0]) if len(group.exceptions) == 1 else group
