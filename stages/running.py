"""One run: an attempt while it runs, what its task sees of it, and how its coroutine is driven.

A coroutine is driven step by step in a context of its own, inside whichever worker has it, instead of in a task of its
own: spawning a task costs ten times what a short run does. Whatever it awaits is handed on to the event loop as it is,
so cancel scopes, task groups and timeouts of asyncio, anyio and trio work inside as they do in a task. A `Run` knows
its claim and its clock; it knows neither the pool nor the store.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import Context, ContextVar
from datetime import datetime, timedelta
from typing import Any, overload

import anyio

from ..model.clock import Clock
from ..model.errors import NotInExecution
from ..model.execution import Cause, Outcome, State
from ..model.instants import SECOND, Instant, to_datetime, to_micros, to_timedelta
from ..model.payload import JsonText, encode
from ..storage.joining import AsyncConnection, Connection
from ..storage.protocol import Claim
from ..storage.threads import Errand
from .outcomes import Conclusion, Stop, state_after
from .own_transaction import Finish, FinishDesk

PATIENT_FOR = 1000
"""Cancellations that a task may swallow while it is to stop. Then it is closed, as Python closes a coroutine."""

_current: ContextVar[Run] = ContextVar("clepsydra_execution")


def current_execution() -> Run:
    """The execution that this code runs in, in an `async def` task, a plain one, or what they have called.

    Raises `NotInExecution` elsewhere.
    """
    run = _current.get(None)
    if run is None:
        raise NotInExecution("current_execution() is for code that runs in a task of a scheduler; nothing runs here")
    return run


class Run:
    """An attempt at an execution while it runs: what `current_execution()` gives."""

    __slots__ = (
        "_clock",
        "_counted",
        "_desk",
        "_resting",
        "_taken_progress",
        "ahead_since",
        "alive_at",
        "claim",
        "conclusion",
        "context",
        "coroutine",
        "errand",
        "error",
        "finish",
        "finishing",
        "latest_progress",
        "noticed",
        "over",
        "scope",
        "started",
        "started_at",
        "stop",
        "swallowed",
        "value",
        "yielded",
    )

    def __init__(self, claim: Claim, clock: Clock, desk: FinishDesk | None = None) -> None:
        self.claim = claim
        self.started_at: Instant | None = None
        """None until its first line."""
        self.started: float | None = None
        """The same on the monotonic clock, where somebody will ask: it has a timeout, or there are listeners."""
        self.alive_at: float | None = None
        """When the task last called `heartbeat()`, on the monotonic clock."""
        self.latest_progress: JsonText | None = None
        self._taken_progress: JsonText | None = None
        self._clock = clock
        self._desk = desk
        self._counted = True
        self._resting = 0
        self.ahead_since: float | None = None
        """While it waits for a slot: since when, on the monotonic clock."""
        # For the pool.
        self.stop: Stop | None = None
        self.noticed = False
        """Whether the stop has reached the task. What ends without having noticed has simply ended."""
        self.swallowed = 0
        """How many cancellations were delivered to it since: each but the last it has swallowed."""
        self.conclusion: Conclusion | None = None
        """What it has come to, while the hooks at its end are called."""
        self.over = False
        """Whether its outcome is made."""
        self.finishing = False
        """Whether its end is on its way into the store, or there, in a transaction of the task's own."""
        self.finish: Outcome | None = None
        """Its end, if that is recorded in such a transaction."""
        self.scope: anyio.CancelScope | None = None
        self.errand: Errand | None = None
        self.context: Context | None = None
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.yielded: Any = None
        self.value: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<execution {self.id} of {self.name}, attempt {self.attempt}>"

    # What the task sees.

    @property
    def id(self) -> str:
        """The execution's id, the same for all its attempts."""
        return self.claim.execution_id

    @property
    def attempt_id(self) -> str:
        """This attempt's id: the fence of everything that it reports."""
        return self.claim.attempt_id

    @property
    def lease(self) -> str:
        """The same: the lease that this attempt holds."""
        return self.claim.attempt_id

    @property
    def idempotency_key(self) -> str:
        """A text that is the same for all attempts and different for all executions, for services that take one."""
        return self.claim.execution_id

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self.claim.attempt

    @property
    def task(self) -> str:
        """The task's name."""
        return self.claim.work.task

    @property
    def job(self) -> str | None:
        """The job's name; None for enqueued work."""
        return self.claim.job_name

    @property
    def name(self) -> str:
        """The job's name, or else the task's."""
        return self.claim.job_name or self.claim.work.task

    @property
    def queue(self) -> str:
        """The queue in whose slot it runs."""
        return self.claim.work.queue

    @property
    def key(self) -> str | None:
        """The key it was enqueued with."""
        return self.claim.key

    @property
    def cause(self) -> Cause:
        """Why it exists: a schedule, a `run_job`, an `enqueue`."""
        return self.claim.cause

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.claim.work.labels)

    @property
    def nominal(self) -> datetime | None:
        """The time that the schedule named; None for manual and enqueued work."""
        return None if self.claim.nominal is None else to_datetime(self.claim.nominal)

    @property
    def due(self) -> datetime:
        """When it was to start: the nominal time with its jitter, or what `enqueue` was told."""
        return to_datetime(self.claim.due_at)

    @property
    def late_by(self) -> timedelta:
        """How long after that this attempt started."""
        start = self.claim.due_at if self.started_at is None else self.started_at
        return to_timedelta(start - self.claim.due_at)

    @property
    def cancelled(self) -> bool:
        """Whether it has been asked to stop: cancelled, timed out, or interrupted by a shutdown. For plain functions,
        which nothing else can stop; who reads True here is taken to heed it."""
        if self.stop is None:
            return False
        self.noticed = True
        return True

    @property
    def state(self) -> State:
        """`running`; in the hooks at its end what the execution is then: `pending` if another attempt follows."""
        return State.RUNNING if self.conclusion is None else state_after(self.conclusion.outcome.ending)

    def heartbeat(self) -> None:
        """Say that it is alive and getting on. From any thread; never waits."""
        self.alive_at = self._clock.monotonic()

    def progress(self, value: Any) -> None:
        """Tell how far it is: any JSON value; the last one is kept, in the store from the next heartbeat on.

        From any thread; never waits.
        """
        self.latest_progress = encode(value, "value")
        self.heartbeat()

    @overload
    def transaction(self, connection: Connection) -> AbstractContextManager[Finish]: ...
    @overload
    def transaction(self, connection: AsyncConnection) -> AbstractAsyncContextManager[Finish]: ...
    def transaction(self, connection: Connection | AsyncConnection) -> object:
        """End this execution in a transaction of the task's own, so that its effects happen exactly once.

        The connection is one to the database in which the scheduler keeps its work: `with`, or `async with` where its
        methods are awaited. What it does in the block, and that the execution has succeeded, commit together when the
        block ends; if it raises, neither does. The block's value takes the result. Raises `LeaseLost`, and undoes all,
        if the execution is not this attempt's any more. After the block it has ended: what the task then returns,
        raises or is asked for changes nothing.
        """
        if self._desk is None:
            raise NotInExecution("this run belongs to no scheduler, so there is no store to finish it in")
        return self._desk.transaction(self, connection)

    async def sleep(self, seconds: timedelta | float) -> None:
        """Sleep on the scheduler's clock, so that a virtual one can pass the time. For `async def` tasks."""
        delay = to_micros(seconds, "seconds") / SECOND
        self._resting += 1
        self.rest()
        try:
            await self._clock.sleep(delay)
        finally:
            self._resting -= 1
            if not self._resting:
                self.wake()

    # Being counted as under way. A run rests while any branch of it sleeps: which others there are cannot be known.

    def rest(self) -> None:
        """It waits for the clock: let that move."""
        if self._counted:
            self._counted = False
            self._clock.activity.ended()

    def wait_for_slot(self, now: float) -> None:
        """It was claimed ahead. What it waits for is the end of other runs, which are counted."""
        self.ahead_since = now
        self._counted = False

    def wake(self) -> None:
        """It has something to do again."""
        if not self._counted and not self.over:
            self._counted = True
            self._clock.activity.began()

    # Being run.

    def begin(
        self, on_loop: OnLoop, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Call the function and take the first step. True: it has suspended, and is to be driven."""
        assert self.context is not None
        on_loop.steps += 1
        on_loop.run = self
        try:
            if self.context.run(_begin, self, function, args, kwargs):
                return True
        except BaseException as error:
            self.value, self.error = None, error
        finally:
            on_loop.run = None
        self.coroutine = None
        return False

    def call(
        self, context: Context, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, BaseException | None]:
        """Call a plain function here, in this thread; gives its value and its error."""
        try:
            return context.run(_call, self, function, args, kwargs), None
        except BaseException as error:
            return None, error

    def await_value(self, on_loop: OnLoop) -> bool:
        """Take the first step of what the function has given, if that is awaitable. True: it has suspended."""
        self.coroutine = _as_coroutine(self.value)
        return self.coroutine is not None and self.step(on_loop, self.coroutine.send, None)

    def step(self, on_loop: OnLoop, advance: Callable[[Any], Any], argument: Any) -> bool:
        """One step of the coroutine. True: it has suspended; otherwise `value` or `error` are what it came to."""
        assert self.context is not None
        on_loop.steps += 1
        on_loop.run = self
        try:
            self.yielded = self.context.run(advance, argument)
            return True
        except StopIteration as stop:
            self.value = stop.value
        except BaseException as error:
            self.value, self.error = None, error
        finally:
            on_loop.run = None
        self.coroutine = self.yielded = None
        return False

    def is_deaf(self) -> bool:
        """A cancellation reaches it. True: it has swallowed so many that no other will end it."""
        self.noticed = True
        self.swallowed += 1
        return self.swallowed > PATIENT_FOR

    def take_progress(self) -> JsonText | None:
        """The latest progress, if it was not taken before."""
        latest = self.latest_progress
        if latest is self._taken_progress:
            return None
        self._taken_progress = latest
        return latest

    def close(self) -> None:
        """Let go of everything that could keep other things alive."""
        if self.coroutine is not None and self.context is not None:
            self.context.run(self.coroutine.close)
        if self.value is not None:
            discard(self.value)
        self.coroutine = self.yielded = self.context = self.scope = self.errand = self.value = self.error = None


class OnLoop:
    """Which run has the event loop just now, and how many steps were taken so far. Read by the watchdog's thread."""

    __slots__ = ("run", "steps")

    def __init__(self) -> None:
        self.run: Run | None = None
        self.steps = 0


@types.coroutine
def drive(run: Run, on_loop: OnLoop, cancelled: type[BaseException]) -> Generator[Any, Any, None]:
    """Carry a suspended run to its end. Raises nothing of the run's own: see `value` and `error`."""
    going = True
    while going:
        coroutine = run.coroutine
        assert coroutine is not None
        try:
            sent = yield run.yielded
        except GeneratorExit:
            run.close()  # the event loop has gone away
            raise
        except BaseException as error:
            if run.stop is not None and isinstance(error, cancelled) and run.is_deaf():
                error = GeneratorExit()
            going = run.step(on_loop, coroutine.throw, error)
        else:
            # Trio sends what asyncio throws: an outcome with the error in it.
            if run.stop is not None and isinstance(getattr(sent, "error", None), cancelled) and run.is_deaf():
                going = run.step(on_loop, coroutine.throw, GeneratorExit())
            else:
                going = run.step(on_loop, coroutine.send, sent)


def discard(value: object) -> None:
    """Nobody will await what a run has given, if it is there to be awaited."""
    if inspect.iscoroutine(value):
        value.close()


def _call(run: Run, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _current.set(run)
    return function(*args, **kwargs)


def _begin(run: Run, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """The call and the first step at once: entering a context twice costs as much as either."""
    _current.set(run)
    value = function(*args, **kwargs)
    coroutine = run.coroutine = _as_coroutine(value)
    if coroutine is None:
        run.value = value
        return False
    try:
        run.yielded = coroutine.send(None)
    except StopIteration as stop:
        run.value = stop.value
        return False
    return True


def _as_coroutine(value: Any) -> Coroutine[Any, Any, Any] | None:
    if _is_coroutine(value):
        coroutine: Coroutine[Any, Any, Any] = value
        return coroutine
    return _await(value) if inspect.isawaitable(value) else None


def _is_coroutine(value: object) -> bool:
    return type(value) is types.CoroutineType or isinstance(value, Coroutine)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
