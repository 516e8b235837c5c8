"""Queues of store calls, each with the threads that work it off: what stands behind the `StorageLane`.

A thread takes whatever is pending as its batch, runs it, and has the event loop told once for all of it. Writes go down
in one transaction per batch, commands first; when a call fails by itself, the transaction is rolled back and its calls
run one by one, that one behind the others, so that it fails alone. Reads run one by one, outside transactions.

All that the loop and the threads both touch is behind the queue's lock, which nobody holds for longer than a few lines.
Nothing here waits on the loop, retries, or knows what a call does.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import groupby
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

import anyio

from ..model.clock import Clock
from ..model.errors import StoreBusy, StoreContended, StoreError
from .protocol import Quarantined, Storage
from .threads import EventLoopHandle, start_daemon

log = logging.getLogger("clepsydra.storage")

COMMANDS_A_FLUSH = 64
CALLS_A_FLUSH = 64
"""How many commands, and how many other calls behind them, go down in one transaction."""
READS_A_DRAIN = 16
"""How many reads are answered together at most."""
SLOW_READ = 0.001
"""Seconds. A read that took longer is answered at once, with those before it."""
ABANDONED_AT_MOST = 8
"""Hanging threads that a queue leaves behind; then it waits for one to come back: threads are bounded too (law 5)."""
STORE_IS_DOWN = 2
"""Transient failures in a row after which the rest of a batch need not find out one by one."""


class Kind(Enum):
    """How a call is run."""

    COMMAND = "command"
    """Before other calls."""
    WORK = "work"
    ALONE = "alone"
    """Outside any transaction: opening and closing."""


One = TypeVar("One")
Answer = TypeVar("Answer")


class OneOfMany(Generic[One, Answer]):
    """A call that can be made together with others of its kind: `many(storage, ones)` gives an answer for each."""

    __slots__ = ("many", "one")

    def __init__(self, many: Callable[[Storage, list[One]], Sequence[Answer]], one: One) -> None:
        self.many, self.one = many, one

    def __call__(self, storage: Storage) -> Answer:
        (answer,) = self.many(storage, [self.one])
        return answer


def told(what: str, function: Callable[..., object]) -> str:
    """A call as messages tell it. Made for a message only: hardly any call needs one."""
    inner = getattr(function, "func", None) or getattr(function, "many", None) or function
    # Never its arguments: they may be thousands.
    return what or f"the store call {getattr(inner, '__qualname__', None) or type(inner).__qualname__}"


class Call:
    """A call on its way.

    `begun`, `given_up` and the answer (`settled`, `result`, `error`, `trace`, `lost`) are behind the queue's lock until
    the call is delivered; the rest is the loop's.
    """

    __slots__ = (
        "begun",
        "counted",
        "delivered",
        "done",
        "error",
        "function",
        "given_up",
        "kind",
        "lost",
        "patience",
        "result",
        "settled",
        "submitted_at",
        "take_answer",
        "trace",
        "what",
    )

    def __init__(
        self, function: Callable[[Storage], object], kind: Kind, what: str, patience: float, done: anyio.Event
    ) -> None:
        self.function = function
        self.kind = kind
        self.what = what
        self.patience = patience  # seconds after which it is taken to hang
        self.done = done
        self.submitted_at = 0.0
        self.begun = False
        self.given_up = False
        self.settled = False
        self.result: object = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.lost = False
        self.delivered = False
        self.counted = False
        self.take_answer: Callable[[object, BaseException | None], None] | None = None

    def settle(self, result: object, error: BaseException | None, lost: bool = False) -> None:
        """This is the answer. `lost`: it may have been done, although the answer is an error."""
        self.settled = True
        self.result = result
        self.error = error
        self.trace = None if error is None else error.__traceback__
        self.lost = lost

    def answer(self) -> object:
        """Return or raise it. The error may be shared with other calls of its batch, hence the traceback beside it."""
        if self.error is not None:
            raise self.error.with_traceback(self.trace)
        return self.result


class Delivery(Protocol):
    """What the loop does with the answers of a batch."""

    def __call__(self, queue: CallQueue, calls: Sequence[Call], quarantined: Sequence[Quarantined], /) -> None:
        """On the loop; must not raise."""
        ...


class ThreadGivenUp(BaseException):
    """Raised in a thread that was given up on, so that it leaves its transaction without committing and ends."""


class Worker:
    """One thread of a queue, and where it is.

    `current` is the call that it is in. When that is None and the worker is busy, it is in the transaction itself, its
    beginning or its commit, and its whole batch hangs on that. `since` is when it got there.
    """

    def __init__(self, queue: CallQueue, interrupt_first: bool) -> None:
        self.queue = queue
        self.interrupt_first = interrupt_first
        self.batch: list[Call] = []
        self.current: Call | None = None
        self.busy = interrupt_first
        self.since = queue.watch.monotonic()
        self.patience = queue.patience
        self.given_up = False

    def run(self) -> None:
        """Work off batches until the queue is stopped, the loop has ended, or this thread is given up on."""
        queue = self.queue
        try:
            if self.interrupt_first:
                self._interrupt()
            while queue.take(self):
                queue.run_batch(self)
                quarantined = queue.take_quarantined()
                if not queue.deliver(self.finished(), quarantined):
                    break
        except ThreadGivenUp:
            pass
        finally:
            queue.leave(self)

    def _interrupt(self) -> None:
        # Here, because the loop must not block; and before anything else, so that what is discarded is the connection
        # of the thread that hangs, and not the one that this thread is about to open.
        try:
            self.queue.storage.interrupt()
        except Exception:
            log.exception("the store could not be interrupted; its hanging connection may linger")

    def enter(self, call: Call | None) -> bool:
        """From now on it is in this call, or in the transaction itself. False: nobody waits for the call any more."""
        with self.queue.lock:
            self._check()
            self.current = call
            self.since = self.queue.watch.monotonic()
            if call is None:
                return True
            call.begun = not call.given_up
            return call.begun

    def enter_together(self, calls: Sequence[Call]) -> list[Call]:
        """From now on it is in these calls, which are made as one; gives those that somebody still waits for."""
        with self.queue.lock:
            self._check()
            entered = [call for call in calls if not call.given_up]
            for call in entered:
                call.begun = True
            self.current = calls[-1]
            self.since = self.queue.watch.monotonic()
            return entered

    def settle(
        self, calls: Sequence[Call], results: Sequence[object], error: BaseException | None = None, lost: bool = False
    ) -> None:
        """These are the answers, unless the thread was given up on in the meantime."""
        with self.queue.lock:
            self._check()
            self.current = None
            self.since = self.queue.watch.monotonic()
            for call, result in zip(calls, results, strict=True):
                call.settle(result, error, lost)

    def put_last(self, calls: Sequence[Call]) -> list[Call]:
        """The batch, with these behind the others."""
        with self.queue.lock:
            self._check()
            self.batch = [*(call for call in self.batch if call not in calls), *calls]
            return self.batch

    def finished(self) -> list[Call]:
        """The calls of the batch that are settled; they are the worker's no more."""
        with self.queue.lock:
            self._check()
            done = [call for call in self.batch if call.settled]
            self.batch = self.batch[len(done) :]
            self.busy = bool(self.batch)
            return done

    def _check(self) -> None:
        if self.given_up:
            raise ThreadGivenUp


class CallQueue(ABC):
    """Calls in the order in which they came, and the threads that work them off.

    Used again after it was stopped: what is queued then waits for the next start. `watch` is the clock that tells
    whether a thread hangs.
    """

    def __init__(self, name: str, storage: Storage, watch: Clock, patience: float, threads: int = 1) -> None:
        self.name = name
        self.storage = storage
        self.watch = watch
        self.patience = patience
        self.threads = threads
        self.lock = Lock()
        self.commands: deque[Call] = deque()
        self.calls: deque[Call] = deque()
        self.workers: list[Worker] = []  # without those given up on; the loop's
        self.abandoned = 0
        self.flushes: int = 0
        self._started = 0
        self._running = False
        self._waiting_threads = 0
        self._bell: SimpleQueue[None] = SimpleQueue()  # rung once for each waiting thread that is to look
        self._loop: EventLoopHandle | None = None
        self._on_delivery: Delivery | None = None
        self._left: anyio.Event | None = None

    # On the loop.

    def start(self, loop: EventLoopHandle, on_delivery: Delivery) -> None:
        """Start the threads."""
        with self.lock:
            self._loop = loop
            self._on_delivery = on_delivery
            self._bell = SimpleQueue()
            self._waiting_threads = 0
            self._running = True
        self._start_missing_threads()

    def stop(self) -> None:
        """Let each thread end after the batch that it is at."""
        with self.lock:
            self._running = False
            for _ in self.workers:
                self._bell.put(None)

    async def wait_until_stopped(self) -> None:
        """Until the last thread has ended that was not given up on."""
        while self.workers:
            self._left = anyio.Event()
            await self._left.wait()

    def submit(self, call: Call, companion: Call | None = None) -> None:
        """Queue the call; and its companion, so that no thread can take the one without the other."""
        call.submitted_at = self.watch.monotonic()
        with self.lock:
            self._queue_of(call).append(call)
            if companion is not None:
                companion.submitted_at = call.submitted_at
                self._queue_of(companion).append(companion)
            if self._waiting_threads:
                self._waiting_threads -= 1
                self._bell.put(None)

    def give_up(self, call: Call) -> bool:
        """Nobody waits for the call any more. True: it has not begun, and never will."""
        with self.lock:
            call.given_up = True
            if call.begun:
                return False
            queue = self._queue_of(call)
            if call in queue:  # else a thread has it in its batch, and will pass it over
                queue.remove(call)
            return True

    def give_up_thread(self, worker: Worker, *, hanging: bool = True) -> list[Call] | None:
        """Leave a thread to itself and start another one. Gives the calls that are answered by that.

        None: it does not hang after all. What it had not come to, and what stands in a transaction that will not be
        committed now, goes back to the head of the queue.
        """
        with self.lock:
            if hanging and not (worker.busy and self.time_left(worker) <= 0):
                return None
            worker.given_up = True
            self.workers.remove(worker)
            self.abandoned += 1
            answered = self._take_over(worker)
        self._start_missing_threads(interrupt_first=True)
        return answered

    def time_left(self, worker: Worker) -> float:
        """Seconds in which a busy thread has to move on."""
        current = worker.current
        return worker.since + (worker.patience if current is None else current.patience) - self.watch.monotonic()

    def longest_wait(self) -> float | None:
        """Seconds that the oldest of the queued calls has waited; None: none is queued."""
        with self.lock:
            heads = [queue[0].submitted_at for queue in (self.commands, self.calls) if queue]
        return self.watch.monotonic() - min(heads) if heads else None

    def _take_over(self, worker: Worker) -> list[Call]:
        answered: list[Call] = []
        back: list[Call] = []
        for call in worker.batch:
            if not call.settled and (call is worker.current or worker.current is None):
                call.settle(None, self._hanging(call), lost=call.begun)
            if call.settled or call.given_up:
                answered.append(call)
            else:
                call.begun = False
                back.append(call)
        for call in reversed(back):
            self._queue_of(call).appendleft(call)
        return answered

    def _hanging(self, call: Call) -> StoreBusy:
        return StoreBusy(
            f"{told(call.what, call.function)}: the store has not answered within {call.patience:g} s; "
            f"the {self.name} thread is left to itself, another one takes over"
        )

    def _start_missing_threads(self, *, interrupt_first: bool = False) -> None:
        while self._running and len(self.workers) < self.threads and self.abandoned < ABANDONED_AT_MOST:
            worker = Worker(self, interrupt_first)
            self._started += 1
            start_daemon(f"clepsydra-{self.name}-{self._started}", worker.run)
            self.workers.append(worker)

    def _thread_left(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        self._start_missing_threads(interrupt_first=worker.given_up)
        if self._left is not None:
            self._left.set()

    def _queue_of(self, call: Call) -> deque[Call]:
        return self.commands if call.kind is Kind.COMMAND else self.calls

    # In the threads.

    def take(self, worker: Worker) -> bool:
        """Give the worker its next batch, when there is something. False: the queue is stopped."""
        while True:
            with self.lock:
                if worker.given_up:
                    raise ThreadGivenUp
                worker.busy = False
                if not self._running:
                    return False
                if self.commands or self.calls:
                    worker.batch = self.next_batch()
                    worker.current = None
                    worker.since = self.watch.monotonic()
                    worker.patience = max(call.patience for call in worker.batch)
                    worker.busy = True
                    return True
                self._waiting_threads += 1
                bell = self._bell
            bell.get()

    def deliver(self, calls: Sequence[Call], quarantined: Sequence[Quarantined] = ()) -> bool:
        """Have the loop wake those who wait, all at once. False: the loop has ended."""
        assert self._loop is not None
        assert self._on_delivery is not None
        return self._loop.call_soon(self._on_delivery, self, calls, quarantined)

    def leave(self, worker: Worker) -> None:
        """The thread ends."""
        with self.lock:
            if worker.given_up:
                self.abandoned -= 1  # here and not on the loop, which may have ended meanwhile
        assert self._loop is not None
        self._loop.call_soon(self._thread_left, worker)

    def take_quarantined(self) -> Sequence[Quarantined]:
        """What the store has put aside during the batch."""
        try:
            return self.storage.take_quarantined()
        except Exception:
            log.exception("the store could not tell which rows it has put aside")
            return ()

    @abstractmethod
    def next_batch(self) -> list[Call]:
        """Under the lock, with something queued."""

    @abstractmethod
    def run_batch(self, worker: Worker) -> None:
        """Run the worker's batch and settle its calls."""


class ReadQueue(CallQueue):
    """Reads, one by one; one that fails concerns nobody else."""

    def next_batch(self) -> list[Call]:
        """A fair share of what is queued."""
        share = -(-len(self.calls) // self.threads)
        return [self.calls.popleft() for _ in range(min(share, READS_A_DRAIN))]

    def run_batch(self, worker: Worker) -> None:
        """In order; what comes before the end of a slow one is answered without waiting for the rest."""
        batch = worker.batch
        for call in batch:
            self._run(worker, call)
            if call is not batch[-1] and self.watch.monotonic() - worker.since > SLOW_READ:
                self.deliver(worker.finished())

    def _run(self, worker: Worker, call: Call) -> None:
        result: object = None
        error: BaseException | None = None
        if worker.enter(call):
            try:
                result = call.function(self.storage)
            except BaseException as failure:
                error = failure
        worker.settle([call], [result], error)


class WriteQueue(CallQueue):
    """Writes: one transaction per batch."""

    def next_batch(self) -> list[Call]:
        """Commands first, then other calls: each with a bound, so that neither waits for long behind the other."""
        commands, calls = self.commands, self.calls
        if not commands and calls[0].kind is Kind.ALONE:
            return [calls.popleft()]
        batch = [commands.popleft() for _ in range(min(len(commands), COMMANDS_A_FLUSH))]
        bound = len(batch) + CALLS_A_FLUSH
        while calls and len(batch) < bound and calls[0].kind is not Kind.ALONE:
            batch.append(calls.popleft())
        return batch

    def run_batch(self, worker: Worker) -> None:
        """All together; if a call fails by itself, one by one."""
        batch = worker.batch
        if batch[0].kind is Kind.ALONE:
            self._run_alone(worker, batch[0])
        elif failed := self._flush(worker, batch):
            self._flush_one_by_one(worker, failed)

    def _run_alone(self, worker: Worker, call: Call) -> None:
        result: object = None
        error: BaseException | None = None
        if worker.enter(call):
            try:
                result = call.function(self.storage)
            except BaseException as failure:
                error = failure
        worker.settle([call], [result], error)

    def _flush(self, worker: Worker, calls: Sequence[Call]) -> Sequence[Call]:
        """One transaction. Gives those of several calls that have failed by themselves; then nothing was done."""
        results: list[object] = []
        together = calls
        in_a_call = committing = False
        self.flushes += 1
        try:
            worker.enter(None)
            with self.storage.transaction():
                in_a_call = True
                for together in _groups(calls):
                    results += self._run_together(worker, together)
                in_a_call = False
                worker.enter(None)
                committing = True
        except ThreadGivenUp:
            raise
        except BaseException as error:
            if in_a_call and len(calls) > 1:
                return together
            # The beginning or the commit has failed: that is everybody's error, and after a commit nobody knows more.
            worker.settle(calls, [None] * len(calls), error, lost=committing)
            return ()
        worker.settle(calls, results)
        return ()

    def _run_together(self, worker: Worker, calls: Sequence[Call]) -> Sequence[object]:
        entered = worker.enter_together(calls)
        if len(entered) == 1:
            answers: Sequence[object] = [entered[0].function(self.storage)]
        elif entered:
            ones = [cast(OneOfMany[Any, Any], call.function) for call in entered]
            answers = ones[0].many(self.storage, [function.one for function in ones])
        else:
            answers = ()
        if len(entered) == len(calls):
            return answers
        answered = dict(zip(entered, answers, strict=True))
        return [answered.get(call) for call in calls]

    def _flush_one_by_one(self, worker: Worker, failed: Sequence[Call]) -> None:
        down = 0
        error: BaseException | None = None
        batch = worker.put_last(failed)
        for call in batch:
            if call is failed[0] is not batch[0]:  # others may be in its way still, and it wait for them
                self.deliver(worker.finished())
            if down < STORE_IS_DOWN:
                self._flush(worker, [call])
                error = call.error
                down = down + 1 if _is_outage(error) else 0
            else:
                worker.settle([call], [None], error)


def _groups(calls: Sequence[Call]) -> Iterator[list[Call]]:
    """The calls in order, those next to each other together that can be made at once."""
    for kind, group in groupby(calls, _kind_of):
        together = list(group)
        if kind is None:
            yield from ([call] for call in together)
        else:
            yield together


def _kind_of(call: Call) -> object:
    return getattr(call.function, "many", None)


def _is_outage(error: BaseException | None) -> bool:
    """Whether it says something of the calls that follow: others in the way of one are not in the way of all."""
    return isinstance(error, StoreError) and error.transient and not isinstance(error, StoreContended)
