"""The one door from the event loop to a store.

Writes queue up for one thread, which puts whatever is pending when its last flush returns into one transaction (no
timer: an idle store answers at once, a busy one gets larger batches). Reads have a thread of their own and never wait
for the writer. While the store fails, callers wait and try again, and the lane says that it is degraded. A call that
hangs is given up on together with its thread. How threads and batches work is in `call_queue.py`.

    claims = await lane.write(lambda storage: storage.start(node_id, now, items=ids), what="starting executions")

A call is a function of the storage. It runs in another thread, perhaps more than once, so it touches nothing else and
is idempotent by the ids that it carries. A store that cannot block is called directly, on the loop, without a
checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, cast

import anyio
from anyio.abc import TaskStatus
from attrs import define, frozen

from ..model.clock import Clock, SystemClock
from ..model.errors import InvalidArgument, SchedulerNotRunning, StoreBusy, StoreContended, StoreError
from ..model.events import SILENCE, RowQuarantined, StoreDegraded, StoreRecovered, TelemetryEvent
from ..model.instants import SECOND, Instant
from ..model.strategies import Node
from .call_queue import Call, CallQueue, Kind, ReadQueue, WriteQueue, told
from .deadlines import Deadlines
from .protocol import Quarantined, Storage
from .threads import EventLoopHandle

log = logging.getLogger("clepsydra.storage")

T = TypeVar("T")

FIRST_BACKOFF, LONGEST_BACKOFF = 0.05, 2.0
"""Seconds between tries while the store fails; each doubles."""
_CONTENDED_FOR_LONG = 5
"""Calls in a row that find others in their way before that counts as an outage."""
BATCHES_A_CALL = 16
"""How many batches, of 64 items each, one call of a store in a thread may carry: a commit costs more than they do. What
is behind it in the line waits for some tens of milliseconds.
"""
OPEN_DEADLINE = 300.0
"""Seconds for opening a store, which may have a large schema to migrate."""
STOP_WITHIN = 5.0
"""Seconds that the end of the lane waits for the calls that are in a thread."""
SHORTEST_WATCH = 0.001


@frozen
class LaneStatistics:
    """What the lane is doing, and what it has done."""

    queued: int
    """Calls that no thread has taken yet."""
    in_flight: int
    """Calls in the batches of the threads."""
    longest_wait: float
    """Seconds that the oldest of the queued calls has waited."""
    calls: int
    """Calls that were answered, each try of a repeated one by itself."""
    flushes: int
    """Transactions that were begun."""
    failures: int
    """Answers that were errors; hanging calls are among them."""
    abandoned: int
    """Threads that were given up on and have not come back."""


@frozen
class Companion:
    """A call for which nobody waits: it goes down behind another one, mostly in the same transaction.

    It is tried once. Whatever comes of it is handed over on the loop, before whoever called the other one goes on.
    """

    function: Callable[[Storage], object]
    what: str
    take_answer: Callable[[object, BaseException | None], None]
    """Must not raise."""


@define(eq=False)
class _Order:
    """What a caller wants."""

    queue: CallQueue
    function: Callable[[Storage], object]
    kind: Kind
    what: str
    patience: float
    counted: bool
    retry: bool = True
    bring: Callable[[], Companion | None] | None = None
    error: StoreError | None = None
    """Of the last try."""


class _NotAnswered(Exception):
    """Its deadline has passed, or else nobody watches over that any more."""

    def __init__(self, overdue: bool) -> None:
        super().__init__()
        self.overdue = overdue


class StorageLane:
    """Store calls for coroutines: batched, with deadlines, repeated while the store is away.

    Nothing happens at construction. `run` is a child for a supervisor and may be run again, on another loop too; calls
    that are made while it does not run wait for it.

    Virtual time: while the lane runs, a call counts as under way until its caller has its answer. The caller is taken
    to be counted itself, as a stage is, and is taken off while it backs off; `counted=False` for one that is not.
    Whether a thread hangs is measured on `watch`, real time: a virtual clock stands still while a call is under way.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        *,
        call_deadline: float = 30.0,
        readers: int = 1,
        on_event: Callable[[TelemetryEvent], None] = SILENCE.emit,
        watch: Clock | None = None,
    ) -> None:
        if not call_deadline > 0:
            raise InvalidArgument("call_deadline", call_deadline, "must be longer than nothing")
        if readers < 1:
            raise InvalidArgument("readers", readers, "must be at least 1")
        self._storage = storage
        self._clock = clock
        self._call_deadline = call_deadline
        self._on_event = on_event
        self._watch = SystemClock() if watch is None else watch
        self._direct = not storage.blocking
        self._writes = WriteQueue("writer", storage, self._watch, call_deadline)
        self._reads = ReadQueue("reader", storage, self._watch, call_deadline, readers)
        self._queues: tuple[CallQueue, ...] = (self._writes, self._reads)
        self._watcher_rests: anyio.Event | None = None
        self._make_event: Callable[[], anyio.Event] = anyio.Event
        """While it runs, the event loop's own kind: to ask each time which that is takes longer than to make one."""
        self._deadlines = Deadlines[int](clock, self._expire)
        self._watched: dict[int, Call] | None = None
        """Calls with a deadline, while the lane runs. One task watches over them all: a scope for each costs more."""
        self._last_watched = 0
        self._failing: set[CallQueue] = set()
        self._degraded_at = 0.0
        self._contended = 0
        """How many calls in a row have found others in their way."""
        self._running = False
        self._closed = False
        self._calls = 0
        self._failures = 0
        self.degraded_since: Instant | None = None
        """Wall time; None while the store answers."""
        self.last_error: StoreError | None = None
        """The last transient one, of this outage or an earlier one."""
        self.losses = 0
        """Writes of which nobody knows whether they were done: they hung, failed at commit, or their caller went away.

        It only grows. Who sees it change compares the store with what it believes.
        """

    @property
    def is_direct(self) -> bool:
        """Whether calls are carried out at once, on the loop: a caller of many then has to make room for others."""
        return self._direct

    @property
    def batches(self) -> int:
        """How many batches one call may carry: on the loop itself one, in a thread several (law 6)."""
        return 1 if self._direct else BATCHES_A_CALL

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """Whether the store answers."""
        return "degraded" if self._failing else "ok"

    def statistics(self) -> LaneStatistics:
        """A snapshot."""
        waits = [wait for queue in self._queues if (wait := queue.longest_wait()) is not None]
        return LaneStatistics(
            queued=sum(len(queue.commands) + len(queue.calls) for queue in self._queues),
            in_flight=sum(len(worker.batch) for queue in self._queues for worker in queue.workers),
            longest_wait=max(waits, default=0.0),
            calls=self._calls,
            flushes=self._writes.flushes,
            failures=self._failures,
            abandoned=sum(queue.abandoned for queue in self._queues),
        )

    # Calls.

    async def write(
        self,
        call: Callable[[Storage], T],
        *,
        deadline: float | None = None,
        command: bool = False,
        counted: bool = True,
        what: str = "",
        bring: Callable[[], Companion | None] | None = None,
    ) -> T:
        """Run the call in a transaction, with whatever else is pending, and give what it returns.

        While the store fails it is tried again: without end, or until `deadline` seconds have passed, then `StoreBusy`.
        Any other error is raised at once. A command goes before other calls. `what` is for messages: "adding jobs".

        Given up on (cancelled, or past its deadline), a call that has not begun never runs, and one that has goes on.

        `bring` is asked when the call joins the line for a thread: what it gives goes down behind the call.
        """
        kind = Kind.COMMAND if command else Kind.WORK
        order = _Order(self._writes, call, kind, what, self._call_deadline, counted, bring=bring)
        return cast(T, await self._carry_out(order, deadline))

    async def read(
        self,
        call: Callable[[Storage], T],
        *,
        deadline: float | None = None,
        retry: bool = True,
        counted: bool = True,
        what: str = "",
    ) -> T:
        """As `write`, but beside the writer and in no transaction. Without `retry` every error is raised at once."""
        order = _Order(self._reads, call, Kind.WORK, what, self._call_deadline, counted, retry)
        return cast(T, await self._carry_out(order, deadline))

    async def open(self, node: Node, *, deadline: float = OPEN_DEADLINE, counted: bool = True) -> None:
        """Open the store for this node, in the writer's thread."""
        self._closed = False

        def open_store(storage: Storage) -> None:
            storage.open(node, self._clock.now())

        order = _Order(self._writes, open_store, Kind.ALONE, "opening the store", deadline, counted)
        await self._carry_out(order, deadline)

    async def close(self, *, deadline: float | None = None, counted: bool = True) -> None:
        """Close the store, after what is queued. Later calls raise `SchedulerNotRunning`."""
        patience = self._call_deadline if deadline is None else deadline
        order = _Order(self._writes, _close, Kind.ALONE, "closing the store", patience, counted)
        try:
            await self._carry_out(order, patience)
        finally:
            self._closed = True

    async def _carry_out(self, order: _Order, deadline: float | None) -> object:
        if self._closed:
            raise SchedulerNotRunning(f"{told(order.what, order.function)}: the store is closed")
        if self._direct:
            try:
                return self._call_directly(order)
            except StoreError as error:
                if not (error.transient and order.retry):
                    raise
                order.error = error
        if deadline is None:
            return await self._insist(order)
        until = self._clock.monotonic() + deadline
        if not self._direct and self._watched is not None:
            try:
                return await self._call_in_thread(order, until)
            except _NotAnswered as end:
                if end.overdue:
                    raise _busy(order, deadline) from None
            except StoreError as error:
                if not (error.transient and order.retry):
                    raise
                order.error = error
        result: object = None
        with self._clock.wake_after(until - self._clock.monotonic()) as waiting:
            result = await self._insist(order)
        if waiting.fired:
            self._clock.activity.ended()
        if waiting.expired:
            raise _busy(order, deadline) from order.error
        return result

    async def _insist(self, order: _Order) -> object:
        """Try until the store answers."""
        backoff = FIRST_BACKOFF
        while True:
            if order.error is not None:
                await self._back_off(backoff, order.counted)
                backoff = min(2 * backoff, LONGEST_BACKOFF)
            try:
                return self._call_directly(order) if self._direct else await self._call_in_thread(order)
            except StoreError as error:
                if not (error.transient and order.retry):
                    raise
                order.error = error

    async def _back_off(self, seconds: float, counted: bool) -> None:
        if not counted:
            return await self._clock.sleep(seconds)
        self._clock.activity.ended()  # the caller waits on the clock now, and time may pass
        try:
            await self._clock.sleep(seconds)
        finally:
            self._clock.activity.began()

    def _call_directly(self, order: _Order) -> object:
        self._calls += 1
        try:
            result = self._run_here(order)
        except BaseException as error:
            self._failures += 1
            if isinstance(error, StoreError) and error.transient:
                self.losses += order.queue is self._writes  # it may have been done, for all that is known here
                self._store_fails(order.queue, error)
            raise
        finally:
            self._tell_quarantined(self._storage.take_quarantined())
        self._store_answers(order.queue)
        return result

    def _run_here(self, order: _Order) -> object:
        if order.queue is self._reads or order.kind is Kind.ALONE:
            return order.function(self._storage)
        with self._storage.transaction():
            return order.function(self._storage)

    async def _call_in_thread(self, order: _Order, until: float | None = None) -> object:
        call = Call(order.function, order.kind, order.what, order.patience, self._make_event())
        if self._running:
            self._count_in(call)
        order.queue.submit(call, self._companion(order))
        if self._watcher_rests is not None:
            self._watcher_rests.set()
        watched = self._watched
        try:
            await (call.done.wait() if until is None else self._wait_until(until, call))
        finally:
            if call.delivered or order.queue.give_up(call):
                self._count_out(call)
            elif order.queue is self._writes:
                self.losses += 1
        if not call.delivered:
            raise _NotAnswered(overdue=watched is self._watched)
        return call.answer()

    async def _wait_until(self, until: float, call: Call) -> None:
        """Until it is answered, its deadline has passed, or nobody watches over that."""
        watched = self._watched
        assert watched is not None
        self._last_watched = key = self._last_watched + 1
        watched[key] = call
        self._deadlines.arm(key, until)
        try:
            await call.done.wait()
        finally:
            self._deadlines.disarm(key)
            del watched[key]

    def _expire(self, key: int) -> None:
        if self._watched is not None:
            self._watched[key].done.set()

    def _companion(self, order: _Order) -> Call | None:
        bring, order.bring = order.bring, None
        companion = None if bring is None else bring()
        if companion is None:
            return None
        call = Call(companion.function, Kind.WORK, companion.what, self._call_deadline, self._make_event())
        call.take_answer = companion.take_answer
        if self._running:
            self._count_in(call)
        return call

    # Answers.

    def _deliver(self, queue: CallQueue, calls: Sequence[Call], quarantined: Sequence[Quarantined]) -> None:
        """Wake those who wait. Whoever does not wait any more is counted out here."""
        answers, failure = False, None
        for call in calls:
            self._calls += 1
            if call.error is None:
                answers = answers or (call.begun and call.settled)
            else:
                self._failures += 1
                if isinstance(call.error, StoreError) and call.error.transient:
                    failure = call.error
            if call.lost and queue is self._writes:
                self.losses += 1
            call.delivered = True
            if call.given_up:
                self._count_out(call)
            call.done.set()
            if call.take_answer is not None:
                call.take_answer(call.result, call.error)
                self._count_out(call)
        if answers:
            self._store_answers(queue)
        elif failure is not None:
            self._store_fails(queue, failure)
        self._tell_quarantined(quarantined)

    def _count_in(self, call: Call) -> None:
        if not call.counted:
            call.counted = True
            self._clock.activity.began()

    def _count_out(self, call: Call) -> None:
        if call.counted:
            call.counted = False
            self._clock.activity.ended()

    def _store_fails(self, queue: CallQueue, error: StoreError) -> None:
        self.last_error = error
        if isinstance(error, StoreContended):
            self._contended += 1
            if self._contended < _CONTENDED_FOR_LONG:
                return
        first = not self._failing
        self._failing.add(queue)
        if first:
            self.degraded_since = self._clock.now()
            self._degraded_at = self._clock.monotonic()
            log.warning("the store does not answer, its callers wait and try again: %s", error)
            self._on_event(StoreDegraded(at=self.degraded_since, error=str(error), since=self.degraded_since))

    def _store_answers(self, queue: CallQueue) -> None:
        self._contended = 0
        if not self._failing:
            return
        self._failing.discard(queue)
        if not self._failing:
            self.degraded_since = None
            outage = self._clock.monotonic() - self._degraded_at
            log.info("the store answers again after %.3f s", outage)
            self._on_event(StoreRecovered(at=self._clock.now(), outage=round(outage * SECOND)))

    def _tell_quarantined(self, rows: Sequence[Quarantined]) -> None:
        for row in rows:
            log.warning("row %s of %s cannot be understood and is left alone: %s", row.row_id, row.table, row.reason)
            self._on_event(RowQuarantined(at=self._clock.now(), table=row.table, row_id=row.row_id, reason=row.reason))

    # The threads.

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the threads, until cancelled. What is in a thread then is waited for, a little while."""
        if self._direct:
            task_status.started()
            await anyio.sleep_forever()
        loop = EventLoopHandle.current()
        try:
            self._running = True
            self._make_event = type(anyio.Event())
            for queue in self._queues:
                self._count_queued(queue, self._count_in)
                queue.start(loop, self._deliver)
            task_status.started()
            async with anyio.create_task_group() as group:
                self._watched = {}
                group.start_soon(self._deadlines.watch)
                await self._watch_threads()
        finally:
            await self._stop()

    async def _watch_threads(self) -> None:
        while True:
            self._give_up_hanging_threads()
            wait = self._longest_rest()
            if wait is not None:
                await self._watch.sleep(wait)
                continue
            self._watcher_rests = anyio.Event()
            try:
                await self._watcher_rests.wait()
            finally:
                self._watcher_rests = None

    def _give_up_hanging_threads(self) -> None:
        for queue in self._queues:
            for worker in list(queue.workers):
                answered = queue.give_up_thread(worker)
                if answered is not None:
                    log.error(
                        "a call of the store has hung for too long; its %s thread is left to itself (%d such now)",
                        queue.name,
                        queue.abandoned,
                    )
                    self._deliver(queue, answered, ())

    def _longest_rest(self) -> float | None:
        """Seconds in which no thread can turn out to hang; None: nothing is under way."""
        left = [queue.time_left(worker) for queue in self._queues for worker in queue.workers if worker.busy]
        if any(queue.commands or queue.calls for queue in self._queues):
            left.append(self._call_deadline)
        return max(SHORTEST_WATCH, min(*left, self._call_deadline)) if left else None

    async def _stop(self) -> None:
        for queue in self._queues:
            queue.stop()
        # On the watch and shielded: whatever hangs, the lane ends. The clock of the lane may be one that stands still.
        with anyio.CancelScope(shield=True), self._watch.wake_after(STOP_WITHIN) as waiting:
            for queue in self._queues:
                await queue.wait_until_stopped()
        if waiting.fired:
            self._watch.activity.ended()
        self._running = False
        self._make_event = anyio.Event
        watched, self._watched = self._watched, None
        for queue in self._queues:
            for worker in list(queue.workers):
                self._deliver(queue, queue.give_up_thread(worker, hanging=False) or (), ())
            self._count_queued(queue, self._count_out)  # nobody works on them: they are at rest
        for call in (watched or {}).values():
            call.done.set()  # what has no answer waits by itself from here on

    def _count_queued(self, queue: CallQueue, count: Callable[[Call], None]) -> None:
        for call in (*queue.commands, *queue.calls):  # with no thread at work there is nobody to lock out
            count(call)


def _busy(order: _Order, deadline: float) -> StoreBusy:
    tried = "" if order.error is None else f"; the last error: {order.error}"
    return StoreBusy(f"{told(order.what, order.function)}: not done within {deadline:g} s{tried}")


def _close(storage: Storage) -> None:
    storage.close()
