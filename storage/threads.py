"""The way between threads and the event loop, the same on asyncio, uvloop and trio.

Threads of our own, because a call that hangs in a worker thread of anyio's would keep the process alive at exit: these
are daemons. A hanging one is abandoned: it no longer counts, and ends itself if the call ever returns. Nothing here
knows of storage or of tasks, and only `EventLoopHandle` knows of a loop.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec

from anyio.lowlevel import current_token

from ..model.errors import InvalidArgument, SchedulerNotRunning

log = logging.getLogger("clepsydra.threads")

P = ParamSpec("P")

IDLE_SECONDS = 10.0
"""How long an idle thread of a pool waits for another errand before it ends."""


class EventLoopHandle:
    """An event loop as its threads see it: something that runs functions soon."""

    __slots__ = ("_run_soon",)

    def __init__(self, run_soon: Callable[..., object]) -> None:
        self._run_soon = run_soon

    @classmethod
    def current(cls) -> EventLoopHandle:
        """The loop that this is called on."""
        token: Any = current_token()
        native: Any = getattr(token, "native_token", token)  # anyio before 4.11 gives the native one itself
        # By what it can do and not by the backend's name: trio need not be installed, uvloop is asyncio.
        run_soon = getattr(native, "call_soon_threadsafe", None) or getattr(native, "run_sync_soon", None)
        assert run_soon is not None, f"neither an asyncio loop nor a trio token: {native!r}"
        return cls(run_soon)

    def call_soon(self, function: Callable[P, object], *args: P.args, **_: P.kwargs) -> bool:
        """Run the function on the loop, from any thread. False: the loop has ended. In order; it must not raise."""
        try:
            self._run_soon(function, *args)
        except RuntimeError:  # asyncio: the loop is closed; trio.RunFinishedError is one too
            return False
        return True


def start_daemon(name: str, target: Callable[[], object]) -> threading.Thread:
    """Run the target in a thread that does not keep the process alive."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class ErrandState(Enum):
    """Where an errand is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    WITHDRAWN = "withdrawn"
    ABANDONED = "abandoned"
    """Still in its call, as far as we know; nobody waits for it."""


class Errand:
    """A function that was given to a `ThreadPool`."""

    __slots__ = ("_pool", "function", "state")

    def __init__(self, pool: ThreadPool, function: Callable[[], object]) -> None:
        self._pool = pool
        self.function = function
        self.state = ErrandState.WAITING

    def withdraw(self) -> bool:
        """Never run it. False: it has begun."""
        return self._pool.withdraw(self)

    def abandon(self) -> bool:
        """Stop counting its thread, which ends when the function returns. False: it was not running."""
        return self._pool.abandon(self)


class ThreadPool:
    """Runs plain functions in daemon threads: in an idle one, else a new one up to `limit`, else later, in order.

    Any thread may call it; nothing in it waits for longer than another thread's few lines under the lock. The functions
    see to their own errors: one that escapes is logged. `abandoned` is not within `limit`; who abandons sets the bound.
    """

    def __init__(self, name: str, limit: int, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.name = name
        self._limit = _at_least_one(limit)
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._waiting: deque[Errand] = deque()
        self._idle: list[SimpleQueue[Errand | None]] = []  # the inboxes of idle threads; the last one is the warmest
        self._threads = 0
        self._abandoned = 0
        self._started = 0
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads there are, idle ones too, abandoned ones not."""
        return self._threads

    @property
    def idle(self) -> int:
        """How many of them have nothing to do."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many errands wait for a thread."""
        return len(self._waiting)

    @property
    def abandoned(self) -> int:
        """How many threads were abandoned and are still in their call."""
        return self._abandoned

    @property
    def limit(self) -> int:
        """How many threads there may be. With a lower one, threads end as their errands do."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = _at_least_one(limit)
            self._serve_waiting()

    def submit(self, function: Callable[[], object]) -> Errand:
        """Run the function in a thread as soon as there is one."""
        errand = Errand(self, function)
        with self._lock:
            if self._closed:
                raise SchedulerNotRunning(f"the thread pool {self.name!r} is closed")
            if self._idle:
                self._idle.pop().put(errand)
            elif self._threads < self._limit:
                self._start_thread(errand)
            else:
                self._waiting.append(errand)
        return errand

    def withdraw(self, errand: Errand) -> bool:
        """See `Errand.withdraw`."""
        with self._lock:
            if errand.state is not ErrandState.WAITING:
                return errand.state is ErrandState.WITHDRAWN
            errand.state = ErrandState.WITHDRAWN
            if errand in self._waiting:  # else an idle thread has it in its inbox and will see the state
                self._waiting.remove(errand)
            return True

    def abandon(self, errand: Errand) -> bool:
        """See `Errand.abandon`."""
        with self._lock:
            if errand.state is not ErrandState.RUNNING:
                return False
            errand.state = ErrandState.ABANDONED
            self._threads -= 1
            self._abandoned += 1
            self._serve_waiting()
            return True

    def close(self) -> None:
        """Withdraw what waits and let the threads end: idle ones now, the others when their errands do. Never waits."""
        with self._lock:
            self._closed = True
            for errand in self._waiting:
                errand.state = ErrandState.WITHDRAWN
            self._waiting.clear()
            for inbox in self._idle:
                inbox.put(None)

    # Under the lock.

    def _serve_waiting(self) -> None:
        while self._waiting and self._threads < self._limit:
            if not self._start_thread(self._waiting.popleft()):
                return

    def _start_thread(self, errand: Errand) -> bool:
        self._threads += 1
        self._started += 1
        try:
            inbox: SimpleQueue[Errand | None] = SimpleQueue()
            inbox.put(errand)
            start_daemon(f"{self.name}-{self._started}", lambda: self._work(inbox))
        except RuntimeError:  # the system has no thread left
            self._threads -= 1
            if not self._threads:
                raise
            log.warning("%s: no further thread can be started, %d go on", self.name, self._threads)
            self._waiting.appendleft(errand)
            return False
        return True

    # In the threads.

    def _work(self, inbox: SimpleQueue[Errand | None]) -> None:
        errand = inbox.get()
        while errand is not None:
            self._run(errand)
            with self._lock:
                if not self._may_go_on(errand):
                    return
                if self._waiting:
                    errand = self._waiting.popleft()
                    continue
                self._idle.append(inbox)
            del errand  # an idle thread must not keep the last function, and what it holds, alive
            errand = self._next(inbox)

    def _run(self, errand: Errand) -> None:
        with self._lock:
            if errand.state is not ErrandState.WAITING:
                return
            errand.state = ErrandState.RUNNING
        try:
            errand.function()
        except BaseException:
            log.exception("%s: an errand let an error escape", self.name)

    def _may_go_on(self, errand: Errand) -> bool:
        if errand.state is ErrandState.ABANDONED:
            self._abandoned -= 1
            return False
        if errand.state is ErrandState.RUNNING:
            errand.state = ErrandState.ENDED
        if self._closed or self._threads > self._limit:
            self._threads -= 1
            return False
        return True

    def _next(self, inbox: SimpleQueue[Errand | None]) -> Errand | None:
        """The next errand for an idle thread; None: the thread is done, and counted out."""
        try:
            errand = inbox.get(timeout=self._idle_seconds)
        except Empty:
            with self._lock:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    self._threads -= 1
                    return None
            errand = inbox.get()  # it came at the last moment
        if errand is None:
            with self._lock:
                self._idle = [other for other in self._idle if other is not inbox]
                self._threads -= 1
        return errand


def _at_least_one(limit: int) -> int:
    if limit < 1:
        raise InvalidArgument("limit", limit, "must be at least 1")
    return limit
