"""Runs what the executor has claimed, and keeps the outcomes until they are recorded.

Long-lived workers take claims from one deque, run after run, without a task spawned for any: what never suspends is
carried through by a single worker, and only when a run does suspend is another one woken. Plain functions run in
daemon threads and occupy no worker. The pool is not restarted with the stages: a stage that crashed finds here what
still runs and what has ended meanwhile. It knows tasks, claims, and how many slots a queue has; it knows no store and
no credits. What is submitted beyond the slots of its queue, claimed ahead, waits in line until a run of it ends.

    submit ─▶ (in line ─▶) waiting ─▶ a worker, or a thread ─▶ outcome ─▶ outcomes() ─▶ acknowledge
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import islice
from math import inf
from types import MappingProxyType
from typing import Any, assert_never

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from attrs import define, frozen

from ..model import events
from ..model.clock import Clock
from ..model.errors import ClepsydraError, UnknownTask
from ..model.execution import Ending, Outcome
from ..model.hooks import Hooks
from ..model.instants import SECOND, Instant, Micros
from ..model.payload import NO_ARGUMENTS, decode
from ..model.policies import OnLeaseLost
from ..model.task import Task
from ..model.work import Work
from ..storage.deadlines import Deadlines
from ..storage.protocol import Claim
from ..storage.threads import EventLoopHandle, ThreadPool
from .hooked import Hooked
from .outcomes import (
    FAILED,
    INTERRUPTED,
    TIMED_OUT,
    Conclusion,
    OutcomeMaker,
    Stop,
    StopKind,
    deadline_of,
    error_text,
    failure_kind,
    interrupt_in,
    is_cancellation,
    state_after,
    timed_out,
    why_unstorable,
)
from .own_transaction import FinishDesk
from .running import OnLoop, Run, discard, drive

log = logging.getLogger("clepsydra.pool")

TURN = 64
"""Runs that are begun between two checkpoints, by all workers together (law 6)."""

IDLE_WORKERS_KEPT = 1_000
"""A worker that finds so many others idle ends."""

_CALL_WITH_NOTHING: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})


class PoolRunning(ClepsydraError, RuntimeError):
    """The pool's `run` was called while it is running."""

    def __init__(self) -> None:
        super().__init__("the worker pool is running already")


@frozen
class PoolStatistics:
    """The pool in numbers, for health pages."""

    running: int
    """Begun and not ended."""
    waiting: int
    """Claimed and not begun, those claimed ahead of their slots included."""
    unrecorded: int
    """Ended, and the store does not know it yet."""
    threads: int
    abandoned: int
    """Threads of timed-out plain functions that still run on."""
    degraded: bool
    """So many that something is wrong with those functions."""
    workers: int
    replaced_workers: int
    """Workers that ended because a run had left their cancellation state in disorder."""
    runs: int
    """All that have ended."""


@define(eq=False)
class _Worker:
    """`active`: it takes claims, or has been told to. Neither idle nor busy with a suspended run."""

    native: asyncio.Task[Any] | None
    active: bool = True
    wake: anyio.Event | None = None


class WorkerPool:
    """The running tasks. All methods are for the event loop's thread.

    Invariant: while it runs and something waits, at least one worker is active. Each claim counts as under way
    (`clock.activity`) from `submit` until its outcome can be read, except while its task sleeps on the clock.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        clock: Clock,
        make_id: Callable[[], str],
        node_id: str,
        *,
        threads: int = 64,
        emit: events.Emitter | None = None,
        abandoned_limit: int = 16,
        desk: FinishDesk | None = None,
        hook_grace: float = 5.0,
        slots: Callable[[str], int] | None = None,
    ) -> None:
        self.on_ended: Callable[[], None] = _nobody
        """Called when there is an outcome to read, and not again until `outcomes` has been read."""
        self._tasks = tasks
        self._clock = clock
        self._maker = OutcomeMaker(node_id, make_id, tasks)
        self._emit = events.SILENCE if emit is None else emit
        self._abandoned_limit = abandoned_limit
        self._desk = desk
        self._hook_grace = hook_grace
        self._slots = slots
        """Of a queue; None: no more is submitted than there are."""
        self._threads_limit = threads
        self._threads = ThreadPool("clepsydra-task", threads)
        self._in_threads = 0
        self._for_threads: deque[Run] = deque()

        self._runs: dict[str, Run] = {}
        self._waiting: deque[Run] = deque()
        self._busy: dict[str, int] = {}
        self._lines: dict[str, deque[Run]] = {}
        """What waits for a slot, per queue; also those that ended so and have not been passed over yet."""
        self._in_line: dict[str, int] = {}
        self._waited: dict[str, float] = {}
        self._took: dict[str, tuple[int, Micros]] = {}
        self._outbox: dict[str, tuple[Outcome, Claim]] = {}
        self._unrecorded: dict[str, int] = {}
        self._told = False
        self._all_ended: anyio.Event | None = None
        self._all_recorded: anyio.Event | None = None
        self._deadlines = Deadlines[str](clock, self._expire)

        self._group: TaskGroup | None = None
        self._loop: EventLoopHandle | None = None
        self._context: Context = copy_context()
        self._cancelled: type[BaseException] = asyncio.CancelledError
        self._interrupt: KeyboardInterrupt | None = None
        self._idle: list[_Worker] = []
        self._active = 0
        self._workers = 0
        self._turn: int = 0
        self._left_in_turn = TURN
        self._simple: dict[str, Task[..., Any]] = {}
        """By name, the async tasks that are known to take no arguments."""

        self.on_loop = OnLoop()
        self.occupied = threading.Event()
        """Set with each `submit`; the watchdog clears it to be woken by the next."""
        self._claims_are_coming = False
        self._meanwhile: list[tuple[Callable[[Claim], bool], Ending, str]] = []
        """What was withdrawn since the store was asked for claims that have not all come yet."""
        self._cancelled_meanwhile: dict[str, str] = {}
        """The same of what was cancelled: attempts, and why."""
        self._replaced_workers = 0
        self._ended = 0

    # ---- For the executor

    def submit(self, claims: Sequence[Claim]) -> None:
        """Run these; ids that are in the pool already are passed over."""
        runs, outbox, busy, clock, desk, added = self._runs, self._outbox, self._busy, self._clock, self._desk, 0
        slots = self._slots
        for claim in claims:
            attempt_id = claim.attempt_id
            if attempt_id in runs or attempt_id in outbox:
                continue
            runs[attempt_id] = run = Run(claim, clock, desk)
            queue = claim.work.queue
            taken = busy.get(queue, 0)
            if slots is not None and taken >= slots(queue):
                self._line_up(run, queue)
                continue
            self._waiting.append(run)
            busy[queue] = taken + 1
            added += 1
        if added:
            clock.activity.began(added)
            if not self.occupied.is_set():
                self.occupied.set()
            if not self._claims_are_coming:
                self._keep_going()
        for where, ending, reason in self._meanwhile:
            self._withdraw_all(where, ending, reason)
        for claim in claims if self._cancelled_meanwhile else ():
            if (why := self._cancelled_meanwhile.get(claim.attempt_id)) is not None:
                self.cancel(claim.attempt_id, why)

    def claims_are_asked_for(self) -> None:
        """The store is asked now: what is withdrawn or cancelled until its claims have come is among them as well."""
        self._forget_meanwhile()
        self._claims_are_coming = True

    def claims_have_come(self) -> None:
        """All of them were submitted. A pool that rested begins now: sooner, the store would hear of the rest later."""
        self._forget_meanwhile()
        self._claims_are_coming = False
        self._keep_going()
        self._tell_recorded()

    def _forget_meanwhile(self) -> None:
        self._meanwhile.clear()
        self._cancelled_meanwhile.clear()

    def running(self) -> Mapping[str, Run]:
        """Everything claimed and not ended, by attempt id: a live view."""
        return MappingProxyType(self._runs)

    def busy(self, queue: str) -> int:
        """How many slots of a queue are taken: claimed, not ended."""
        return self._busy.get(queue, 0)

    def ahead(self, queue: str) -> int:
        """How many claims of a queue wait for one of its slots."""
        return self._in_line.get(queue, 0)

    def ahead_since(self) -> dict[str, float]:
        """Since when the first has waited for a slot, of every queue in which one does, on the monotonic clock."""
        since: dict[str, float] = {}
        for queue, line in self._lines.items():
            while line[0].over:
                line.popleft()
            since[queue] = line[0].ahead_since or 0.0
        return since

    def give_back_ahead(self, queue: str, limit: int) -> int:
        """Give back the last few of those that wait for a slot of this queue. Gives how many that were."""
        line, count = self._lines.get(queue, deque[Run]()), 0
        while line and count < limit:
            run = line.pop()
            if not run.over:
                self._record(run, self._maker.unbegun(run.claim, self._clock.now()))
                count += 1
        return count

    def is_worth_a_write(self, at_least: int = 0) -> bool:
        """Whether as much has ended and is not recorded as is about to begin or in line; True if nothing is."""
        to_begin = len(self._waiting) + sum(self._in_line.values()) if self._waiting else 0
        return len(self._outbox) >= max(to_begin, at_least)

    def take_stock(self) -> tuple[dict[str, float], dict[str, float]]:
        """Of each queue since the last time: how long the last one waited for a slot, and the mean length of the runs
        that have ended, in seconds. Nothing is known of a queue of which none did.
        """
        waited, took = self._waited, self._took
        self._waited, self._took = {}, {}
        return waited, {queue: length / count / SECOND for queue, (count, length) in took.items()}

    def slots_changed(self) -> None:
        """There may be more of them than before."""
        for queue in list(self._lines):
            self._admit(queue)

    def unrecorded(self, queue: str) -> int:
        """How many have ended whose outcome is not acknowledged."""
        return self._unrecorded.get(queue, 0)

    def busy_queues(self) -> dict[str, int]:
        """Slots taken, of every queue that has any taken or unrecorded."""
        return {queue: self._busy.get(queue, 0) for queue in {**self._busy, **self._unrecorded}}

    def claim_of(self, attempt_id: str) -> Claim:
        """The claim of an attempt that runs here, or whose outcome is not acknowledged."""
        run = self._runs.get(attempt_id)
        return run.claim if run is not None else self._outbox[attempt_id][1]

    def knows(self, attempt_id: str) -> bool:
        """Whether it was submitted and is not acknowledged."""
        return attempt_id in self._runs or attempt_id in self._outbox

    def known_attempts(self) -> set[str]:
        """All that was submitted and is not acknowledged."""
        return {*self._runs, *self._outbox}

    def task_names(self) -> frozenset[str]:
        """The names and aliases of the tasks that can run here."""
        return frozenset(self._tasks)

    def outcomes(self, limit: int) -> list[Outcome]:
        """The oldest outcomes that are not acknowledged."""
        self._told = False
        return [outcome for outcome, _ in islice(self._outbox.values(), limit)]

    def acknowledge(self, attempt_ids: Collection[str]) -> None:
        """These are recorded, or nobody wants them any more."""
        for attempt_id in attempt_ids:
            entry = self._outbox.pop(attempt_id, None)
            if entry is not None:
                _take_one(self._unrecorded, entry[1].work.queue)
        self._tell_recorded()

    def cancel(self, attempt_id: str, reason: str) -> bool:
        """Stop one; what waits is withdrawn. False: it is not here. A plain function has to look at `cancelled`."""
        run = self._runs.get(attempt_id)
        if run is None:
            if self._claims_are_coming:
                self._cancelled_meanwhile[attempt_id] = reason
            return False
        self._stop(run, Stop(StopKind.CANCEL, reason))
        return True

    def withdraw(
        self,
        where: Callable[[Claim], bool],
        ending: Ending = Ending.CANCELLED,
        reason: str = "withdrawn before it began",
    ) -> list[str]:
        """End those of the claims that match and have not reached their first line. Gives their attempt ids."""
        if self._claims_are_coming:
            self._meanwhile.append((where, ending, reason))
        return self._withdraw_all(where, ending, reason)

    def _withdraw_all(self, where: Callable[[Claim], bool], ending: Ending, reason: str) -> list[str]:
        chosen = [run for run in self._runs.values() if run.started_at is None and where(run.claim)]
        for run in chosen:
            if not run.over:  # it may have been its turn meanwhile, and too late for it
                self._record(run, self._maker.withdrawn(run.claim, ending, self._clock.now(), reason))
        return [run.attempt_id for run in chosen]

    def give_back_waiting(self) -> None:
        """What has not begun is given back: at a shutdown, or where it may be another node's by now."""
        self.withdraw(lambda claim: True, Ending.GIVEN_BACK)

    async def wait_idle(self) -> None:
        """Until nothing runs and nothing waits."""
        while self._runs:
            if self._all_ended is None:
                self._all_ended = anyio.Event()
            await self._all_ended.wait()

    @property
    def time_for_hooks(self) -> float:
        """Seconds that the hooks at the end of an attempt have in all: two, each its grace, and some to come back."""
        return 2.5 * self._hook_grace

    def is_in_hooks(self) -> bool:
        """Whether a task that has ended still has its hooks before it, which have a time of their own."""
        return any(run.conclusion is not None for run in self._runs.values())

    async def wait_recorded(self) -> None:
        """Until every outcome is acknowledged, and no claim is on its way that would be given back."""
        while self._outbox or self._claims_are_coming:
            if self._all_recorded is None:
                self._all_recorded = anyio.Event()
            await self._all_recorded.wait()

    def _tell_recorded(self) -> None:
        if self._all_recorded is not None and not self._outbox and not self._claims_are_coming:
            self._all_recorded.set()
            self._all_recorded = None

    def lease_lost(self) -> None:
        """The node is taken for dead by now: what has not begun is given back, and what must not run on is stopped."""
        self.give_back_waiting()
        for run in list(self._runs.values()):
            if run.claim.work.on_lease_lost is OnLeaseLost.CANCEL:
                self._stop(run, Stop(StopKind.CANCEL, "its lease could not be renewed"))

    def interrupt_all(self) -> None:
        """The end of grace: stop everything. An interrupted attempt is not a failed one."""
        for run in list(self._runs.values()):
            self._stop(run, INTERRUPTED)

    def statistics(self) -> PoolStatistics:
        """The pool in numbers."""
        waiting = sum(run.started_at is None for run in self._runs.values())
        return PoolStatistics(
            running=len(self._runs) - waiting,
            waiting=waiting,
            unrecorded=len(self._outbox),
            threads=self._threads.threads,
            abandoned=self._threads.abandoned,
            degraded=self._threads.abandoned > self._abandoned_limit,
            workers=self._workers,
            replaced_workers=self._replaced_workers,
            runs=self._ended,
        )

    @property
    def current(self) -> Run | None:
        """The run that has the event loop just now."""
        return self.on_loop.run

    # ---- Its life

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Have workers, until cancelled; then whatever is left gets its outcome. Raises a task's KeyboardInterrupt."""
        if self._loop is not None:
            raise PoolRunning
        self._loop = EventLoopHandle.current()
        self._context = copy_context()
        self._cancelled = anyio.get_cancelled_exc_class()
        self._interrupt = None
        self._threads = ThreadPool("clepsydra-task", self._threads_limit)
        try:
            async with anyio.create_task_group() as group:
                await self._keep_workers(group, task_status)
        finally:
            self.interrupt_all()
            self._threads.close()
            self._loop = None
        if self._interrupt is not None:
            raise self._interrupt  # here and not in a worker, where the group would wrap it

    async def _keep_workers(self, group: TaskGroup, task_status: TaskStatus[None]) -> None:
        self._group = group
        try:
            group.start_soon(self._deadlines.watch)
            self._keep_going()
            task_status.started()
            await anyio.sleep_forever()
        finally:
            self._group = None

    def _keep_going(self) -> None:
        """If something waits, see that somebody takes it."""
        if not self._active and self._something_waits():
            self._wake_worker()

    def _something_waits(self) -> bool:
        """For a worker: what waits for a thread does so only when there is one."""
        return bool(self._waiting or (self._for_threads and self._in_threads < self._threads_limit))

    def _next(self) -> Run | None:
        if self._for_threads and self._in_threads < self._threads_limit:
            return self._for_threads.popleft()
        return self._waiting.popleft() if self._waiting else None

    def _wake_worker(self) -> None:
        if self._group is None:
            return  # not yet, or no more
        self._active += 1
        if not self._idle:
            self._context.copy().run(self._group.start_soon, self._work)
            return
        worker = self._idle.pop()
        worker.active = True
        assert worker.wake is not None
        worker.wake.set()

    # ---- A worker

    async def _work(self) -> None:
        worker = _Worker(_native_task(self._cancelled))
        self._workers += 1
        try:
            while await self._take_turns(worker):
                if len(self._idle) >= IDLE_WORKERS_KEPT:
                    return
                await self._wait_for_work(worker)
            self._replaced_workers += 1
        except asyncio.CancelledError:  # no cancellation of trio's is one
            if anyio.current_effective_deadline() == -inf:
                raise
            # Somebody has cancelled the worker's asyncio task by hand; the task group would end the pool for it.
            await self._is_clean(worker)
            self._replaced_workers += 1
        finally:
            self._workers -= 1
            if worker.active:
                self._set_active(worker, False)
                self._keep_going()

    async def _wait_for_work(self, worker: _Worker) -> None:
        worker.wake = anyio.Event()
        self._set_active(worker, False)
        self._idle.append(worker)
        try:
            await worker.wake.wait()
        finally:
            if not worker.active:
                self._idle.remove(worker)

    def _set_active(self, worker: _Worker, active: bool) -> None:
        worker.active = active
        self._active += 1 if active else -1

    async def _take_turns(self, worker: _Worker) -> bool:
        """Run what waits until nothing does. False: the worker's cancellation state is in disorder."""
        while self._group is not None:
            # Also before it rests: while the loop turns the store takes the outcomes, and who comes next need not wait.
            if self._left_in_turn <= 0:
                await self._end_turn()
            elif not self._something_waits():
                if self._left_in_turn == TURN:
                    break
                await self._end_turn()  # who comes next finds a whole turn, and its batch stays together
            elif not await self._serve(worker):
                return False
        return True

    async def _end_turn(self) -> None:
        """Let the event loop turn. All workers share one allowance; the first that comes back renews it."""
        turn = self._turn
        await checkpoint()
        if self._turn == turn:
            self._turn += 1
            self._left_in_turn = TURN

    async def _serve(self, worker: _Worker) -> bool:
        """Run what waits under one cancel scope, until one suspends and has ended. False: as above.

        A scope costs more than a short run, so many share one. After a run that has suspended it is left even if it is
        clean: a scope which that run had entered and never left would rule the next ones, and shows here.
        """
        suspended: Run | None = None
        scope = anyio.CancelScope()
        in_order, leaving = True, False
        try:
            with scope:
                suspended = self._drain(worker, scope)
                if suspended is not None:
                    in_order = await self._see_through(worker, suspended, scope)
                leaving = True
        except RuntimeError as error:
            if not leaving:
                raise
            log.error("%s has left a cancel scope open; its worker is replaced", suspended or "a run", exc_info=error)
            if worker.native is not None:
                _leave_scopes(worker.native, scope)
            return False
        return in_order and await self._is_clean(worker)

    def _drain(self, worker: _Worker, scope: anyio.CancelScope) -> Run | None:
        """Begin one run after another, until the turn is over or one has suspended: that one is returned."""
        native, waiting = worker.native, self._waiting
        while self._left_in_turn > 0:
            run = self._next() if self._for_threads else waiting.popleft() if waiting else None
            if run is None:
                return None
            if run.over:
                continue
            self._left_in_turn -= 1
            if self._begin(run, scope):
                return run
            if run.stop is not None or self._group is None or (native is not None and native.cancelling()):
                return None  # no other run must feel it
        return None

    async def _see_through(self, worker: _Worker, run: Run, scope: anyio.CancelScope) -> bool:
        """Carry a suspended run to its end. False: it has swallowed its cancellation."""
        self._set_active(worker, False)
        if run.conclusion is None:  # else only hooks are left, which have a grace of their own
            self._arm(run)
        # Two, so that a wave of runs that all suspend is under way in a few turns of the loop.
        for _ in range(min(2, len(self._waiting) - self._active)):
            self._wake_worker()
        self._keep_going()
        try:
            await drive(run, self.on_loop, self._cancelled)
        finally:
            self._set_active(worker, True)
        if run.error is not None and run.stop is None and anyio.current_effective_deadline() == -inf:
            run.stop, run.noticed = INTERRUPTED, True  # the pool itself is being cancelled
        gave_way = is_cancellation(run.error, self._cancelled)
        self._end(run)
        return gave_way or not scope.cancel_called

    async def _is_clean(self, worker: _Worker) -> bool:
        """Whether no request to cancel is left on the worker; what is left is dropped."""
        native = worker.native
        if native is None or not native.cancelling():
            return True
        if anyio.current_effective_deadline() == -inf:
            await checkpoint()  # it is the pool that is being cancelled
        while native.uncancel():
            pass
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # a request that was not delivered yet comes at the next wait
        return False

    # ---- A run

    def _begin(self, run: Run, scope: anyio.CancelScope) -> bool:
        """Take a run to its first suspension, its end, or into a thread. True: it has suspended."""
        work = run.claim.work
        task = self._tasks.get(work.task)
        if (
            task is None
            or self._simple.get(work.task) is not task
            or work.args != NO_ARGUMENTS
            or task.hooks is not None
            or work.timeout is not None
            or self._emit.listening
        ):
            return self._begin_with_care(run, task, scope)
        run.started_at = self._clock.now()
        run.context, run.scope = self._context.copy(), scope
        return self._settle(run, run.begin(self.on_loop, task.function, *_CALL_WITH_NOTHING))

    def _begin_with_care(self, run: Run, task: Task[..., Any] | None, scope: anyio.CancelScope) -> bool:
        """The same of any run: there may be more to do than to call an async function."""
        if run.started_at is not None:
            run.scope = scope
            return self._settle(run, run.await_value(self.on_loop))  # a plain function has given an awaitable
        claim = run.claim
        if task is not None and not task.is_async and self._in_threads >= self._threads_limit:
            self._for_threads.append(run)
            return False
        try:
            run.started_at = self._clock.now()
            if claim.work.timeout is not None or self._emit.listening:
                self._note_start_time(run, run.started_at)
            if task is None:
                raise UnknownTask(claim.work.task, self._tasks)
            args, kwargs = self._bind(task, claim.work)
        except Exception as error:
            if task is None or task.hooks is None:
                run.error = error
                return self._settle(run, False)
            function, (args, kwargs) = self._with_hooks(run, task, task.hooks, error), _CALL_WITH_NOTHING
        else:
            function = task.function if task.hooks is None else self._with_hooks(run, task, task.hooks)
        run.context = self._context.copy()
        if not task.is_async:
            self._begin_in_thread(run, function, args, kwargs)
            return False
        run.scope = scope
        return self._settle(run, run.begin(self.on_loop, function, args, kwargs))

    def _settle(self, run: Run, suspended: bool) -> bool:
        if not suspended:
            self._end(run)
        return suspended

    def _note_start_time(self, run: Run, started_at: Instant) -> None:
        run.started = self._clock.monotonic()
        if self._emit.listening:
            late_by = max(0, started_at - run.claim.due_at)
            self._emit.emit(events.ExecutionStarted(at=started_at, late_by=late_by, **_facts(run)))
        deadline = deadline_of(run.claim)
        if deadline is not None and started_at >= deadline:
            run.stop, run.noticed = TIMED_OUT, True  # counted from the nominal time it is over before it has begun
            raise timed_out(run.claim)

    def _bind(self, task: Task[..., Any], work: Work) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = task.bind(work.args)
        if task.is_async and work.args == NO_ARGUMENTS:  # not again: it costs as much as all the rest of a short run
            self._simple[work.task] = task
        return bound

    def _arm(self, run: Run) -> None:
        timeout = run.claim.work.timeout
        if timeout is not None:
            assert run.started is not None
            if (deadline := deadline_of(run.claim)) is not None:
                timeout = deadline - (run.started_at or deadline)
            self._deadlines.arm(run.attempt_id, run.started + timeout / SECOND)

    def _expire(self, attempt_id: str) -> None:
        run = self._runs[attempt_id]
        if run.conclusion is None:
            self._stop(run, TIMED_OUT)
        else:
            self.hook_failed(run, run.conclusion.hook, None)
            self._abandon(run)

    def _stop(self, run: Run, stop: Stop) -> None:
        """Ask a run to stop. The first who asks decides what its outcome says."""
        if run.over or (run.finishing and stop.kind is StopKind.CANCEL):
            return
        if run.conclusion is not None:  # its task has ended; the hooks have their own time, in a thread as well
            return
        if run.stop is None:
            run.stop = stop
        # A run that sleeps on the clock wakes by itself when the cancellation reaches it, and a shielded one sleeps on.
        if run.scope is not None:
            run.scope.cancel()
        elif run.errand is None:
            self._withdraw(run, run.stop)
        elif stop.kind is not StopKind.CANCEL:
            self._abandon(run)

    def _withdraw(self, run: Run, stop: Stop) -> None:
        """It waits for a worker or a thread."""
        now, begun = self._clock.now(), run.started_at is not None
        if begun and self._has_hooks(run):
            return  # the worker that takes it finds it stopped, and calls them
        if stop.kind is StopKind.INTERRUPT and not begun:
            self._record(run, self._maker.unbegun(run.claim, now))
        else:
            self._record(run, self._maker.stopped(run.claim, stop, now))

    def _end(self, run: Run) -> None:
        """It has come to its end by itself, or has given way to a stop."""
        error = run.error
        if run.conclusion is not None:
            outcome = run.conclusion.outcome
            self._deadlines.disarm(run.attempt_id)
            if run.errand is None:  # a thread that is abandoned will look at it
                run.conclusion = None
        elif error is None and run.stop is None:
            outcome = self._maker.returned(run.claim, run.value, self._clock.now())
        else:
            outcome = self._outcome(run, run.value, error)
        if error is not None and (interrupt := interrupt_in(error)) is not None:
            self._interrupt_all_by(interrupt)
        self._record(run, outcome)

    def _outcome(self, run: Run, value: object, error: BaseException | None) -> Outcome:
        stop, now = run.stop, self._clock.now()
        if stop is not None and self._gave_way(run, error):
            return self._maker.stopped(run.claim, stop, now, error)
        if error is None:
            return self._maker.returned(run.claim, value, now)
        return self._maker.raised(run.claim, error, now)

    def _gave_way(self, run: Run, error: BaseException | None) -> bool:
        return run.noticed or is_cancellation(error, self._cancelled)

    def _interrupt_all_by(self, interrupt: KeyboardInterrupt) -> None:
        group, self._group, self._interrupt = self._group, None, interrupt
        if group is not None:
            group.cancel_scope.cancel()

    def _record(self, run: Run, outcome: Outcome) -> None:
        """The outcome can be read from here on."""
        claim = run.claim
        attempt_id, work = claim.attempt_id, claim.work
        queue = work.queue
        if run.finish is not None:
            outcome = _finish_that_stands(run, run.finish, outcome)
        run.over = True
        self._ended += 1
        del self._runs[attempt_id]
        if run.ahead_since is not None:
            self._leave_line(queue)
        else:
            _take_one(self._busy, queue)
            if self._slots is not None:
                self._note_length(queue, run, outcome)
                self._admit(queue)
        self._outbox[attempt_id] = (outcome, claim)
        self._unrecorded[queue] = self._unrecorded.get(queue, 0) + 1
        if work.timeout is not None:
            self._deadlines.disarm(attempt_id)
        if self._emit.listening and run.started_at is not None:
            self._tell_end(run, outcome)
        run.close()
        if not self._told:
            self._told = True
            self.on_ended()
        if not self._runs and self._all_ended is not None:
            self._all_ended.set()
            self._all_ended = None
        run.rest()  # last: until here a virtual clock must wait

    # ---- Slots

    def _line_up(self, run: Run, queue: str) -> None:
        run.wait_for_slot(self._clock.monotonic())
        self._lines.setdefault(queue, deque()).append(run)
        self._in_line[queue] = self._in_line.get(queue, 0) + 1

    def _leave_line(self, queue: str) -> None:
        _take_one(self._in_line, queue)
        if queue not in self._in_line:
            del self._lines[queue]

    def _admit(self, queue: str) -> None:
        """The next in line take the slots that are free."""
        assert self._slots is not None
        while queue in self._lines and self._busy.get(queue, 0) < self._slots(queue):
            run = self._lines[queue].popleft()
            if run.over:
                continue
            if run.claim.work.start_by is not None and _is_too_late(run.claim, now := self._clock.now()):
                self._record(run, self._maker.unbegun(run.claim, now))
                continue
            self._leave_line(queue)
            if queue not in self._lines:
                assert run.ahead_since is not None
                self._waited[queue] = self._clock.monotonic() - run.ahead_since
            run.ahead_since = None
            self._busy[queue] = self._busy.get(queue, 0) + 1
            self._waiting.append(run)
            run.wake()
            self._keep_going()

    def _note_length(self, queue: str, run: Run, outcome: Outcome) -> None:
        if run.started_at is not None:
            count, length = self._took.get(queue, (0, 0))
            self._took[queue] = count + 1, length + max(0, outcome.at - run.started_at)

    # ---- Plain functions

    def _begin_in_thread(
        self, run: Run, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        loop, context = self._loop, run.context
        assert loop is not None
        assert context is not None

        def errand() -> None:
            value, error = run.call(context, function, args, kwargs)
            if not loop.call_soon(self._back_from_thread, run, value, error):
                discard(value)
            del value, error  # the error's traceback leads back to this frame, and nothing is to stay alive for that

        try:
            run.errand = self._threads.submit(errand)
        except RuntimeError as error:  # the system has no thread left
            run.error = error
            self._end(run)
            return
        self._in_threads += 1
        if run.stop is None:  # else only hooks are called, which have a grace of their own
            self._arm(run)

    def _back_from_thread(self, run: Run, value: Any, error: BaseException | None) -> None:
        """On the loop: a plain function has ended."""
        if run.over:  # abandoned
            discard(value)
            return
        self._in_threads -= 1
        self._keep_going()
        run.errand = None
        run.value, run.error = value, error
        if error is not None or not inspect.isawaitable(value):
            self._end(run)
        else:  # a partial of an async function, say; its loop is here
            self._waiting.appendleft(run)
            if run.stop is not None:
                self._withdraw(run, run.stop)
            self._keep_going()

    def _abandon(self, run: Run) -> None:
        """Its function goes on, for nothing; the slot is free and the outcome made."""
        assert run.errand is not None
        if self._has_hooks(run):
            run.noticed = True
            self.conclude(run, None, None)  # for the hooks that the thread calls if it ever comes to them
        if not run.errand.withdraw() and run.errand.abandon():
            self._tell_abandoned(run)
        self._in_threads -= 1
        self._keep_going()
        run.noticed = True
        self._end(run)

    # ---- Hooks

    def _has_hooks(self, run: Run) -> bool:
        task = self._tasks.get(run.claim.work.task)
        return task is not None and task.hooks is not None

    def _with_hooks(
        self, run: Run, task: Task[..., Any], hooks: Hooks, refusal: Exception | None = None
    ) -> Callable[..., Any]:
        assert self._loop is not None
        hooked = Hooked(run, hooks, task.function, refusal, self, self._loop, self._clock, self._hook_grace)
        return hooked.on_loop if task.is_async else hooked.in_thread

    def conclude(self, run: Run, value: object, error: BaseException | None) -> Conclusion:
        """What an attempt with hooks has come to: those at its end are about to be called, and nothing stops them."""
        if run.conclusion is not None:
            return run.conclusion
        in_thread = run.errand is not None
        if error is not None and run.stop is None and not in_thread and anyio.current_effective_deadline() == -inf:
            run.stop, run.noticed = INTERRUPTED, True  # the pool itself is being cancelled
        outcome = self._outcome(run, value, error)
        if run.finish is not None:
            outcome = _finish_that_stands(run, run.finish, outcome)
            value = None if outcome.result is None else decode(outcome.result)
        if outcome.ending not in FAILED:
            error = None
        elif run.stop is not None and run.stop.kind is StopKind.TIMEOUT and self._gave_way(run, error):
            error = timed_out(run.claim, error)
        elif error is None:
            error = why_unstorable(value)
        run.conclusion = Conclusion(outcome, value, error)
        self._deadlines.disarm(run.attempt_id)
        if in_thread:
            self._deadlines.arm(run.attempt_id, self._clock.monotonic() + self.time_for_hooks)
        return run.conclusion

    def hook_failed(self, run: Run, hook: str, error: BaseException | None) -> None:
        """Tell it: the attempt is what it was without the hook. Without an error it took longer than its grace."""
        text = f"it took longer than {self._hook_grace:g} s" if error is None else error_text(error)
        log.error("the %s of %r fails: %s", hook, run, text)
        if self._emit.listening:
            self._emit.emit(events.HookFailed(at=self._clock.now(), hook=hook, error=text, **_facts(run)))

    def spawn(self, context: Context, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what a hook in a thread has to await. Raises `RuntimeError` when the pool ends."""
        if self._group is None:
            raise RuntimeError("the worker pool has ended")
        context.run(self._group.start_soon, task)

    # ---- Telling

    def _tell_abandoned(self, run: Run) -> None:
        log.warning("%r did not stop in time; its thread is abandoned (%d are)", run, self._threads.abandoned)
        if self._emit.listening:
            now, abandoned = self._clock.now(), self._threads.abandoned
            self._emit.emit(events.ThreadAbandoned(at=now, abandoned=abandoned, **_facts(run)))

    def _tell_end(self, run: Run, outcome: Outcome) -> None:
        facts = _facts(run)
        took = self._duration(run)
        match outcome.ending:
            case Ending.FAILED | Ending.RETRY:
                will_retry = outcome.ending is Ending.RETRY
                kind, error = failure_kind(run.error, run.stop, self._cancelled), outcome.error or ""
                self._emit.emit(
                    events.ExecutionFailed(
                        at=outcome.at, duration=took, kind=kind, error=error, will_retry=will_retry, **facts
                    )
                )
                if will_retry:
                    facts["attempt"] += 1
                    self._emit.emit(events.ExecutionRetried(at=outcome.at, not_before=outcome.not_before, **facts))
            case Ending.SUCCEEDED | Ending.CANCELLED | Ending.SNOOZED | Ending.GIVEN_BACK:
                state = state_after(outcome.ending)
                self._emit.emit(events.ExecutionStopped(at=outcome.at, duration=took, state=state, **facts))
            case _:
                assert_never(outcome.ending)

    def _duration(self, run: Run) -> Micros:
        if run.started is None:  # nobody listened when it began
            return max(0, self._clock.now() - (run.started_at or 0))
        return round((self._clock.monotonic() - run.started) * SECOND)


def _finish_that_stands(run: Run, finish: Outcome, late: Outcome) -> Outcome:
    """It has ended in a transaction of its own; how it ends now comes too late to be recorded."""
    if late.ending is not Ending.SUCCEEDED:
        log.warning(
            "%r has finished in its own transaction, which stands; that it ended as %r afterwards is ignored: %s",
            run,
            late.ending.value,
            late.error or "nothing was raised",
        )
    elif late.result not in (None, finish.result):
        log.warning("%r has finished in its own transaction; what it returned afterwards is not its result", run)
    return finish


def _is_too_late(claim: Claim, now: Instant) -> bool:
    """Whether it was not to start any more when its turn came: of what belongs to no job the store judges it again."""
    start_by = claim.work.start_by
    return start_by is not None and claim.job_id is None and claim.attempt == 1 and now > claim.due_at + start_by


def _facts(run: Run) -> dict[str, Any]:
    """What every event of an execution says."""
    claim = run.claim
    return {
        "execution_id": claim.execution_id,
        "task": claim.work.task,
        "queue": claim.work.queue,
        "attempt": claim.attempt,
        "job": claim.job_name,
        "nominal": claim.nominal,
        "labels": claim.work.labels,
    }


def _take_one(counts: dict[str, int], key: str) -> None:
    """Keys of zero go: queues come and go. (A `Counter` takes twice as long.)"""
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


def _native_task(cancelled: type[BaseException]) -> asyncio.Task[Any] | None:
    """The asyncio task that this is, whose count of cancel requests is to be looked after; None on trio."""
    return asyncio.current_task() if cancelled is asyncio.CancelledError else None


def _leave_scopes(task: asyncio.Task[Any], scope: anyio.CancelScope) -> None:
    """Leave those that were forgotten on top of this one, and this one. Trio has done so already.

    anyio refuses to, on asyncio, and to end the task at all; its public face has no other way to those scopes.
    """
    states: Any = getattr(sys.modules.get("anyio._backends._asyncio"), "_task_states", {})
    state = states.get(task)
    while state is not None and state.cancel_scope is not None:
        last = state.cancel_scope
        last.cancel()
        last.__exit__(None, None, None)
        if last is scope:
            return


def _nobody() -> None:
    """Nobody is told."""
