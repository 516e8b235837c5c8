"""Threads reach the loop, and a pool of them runs errands, grows to its limit, and leaves alone what hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra.model.errors import InvalidArgument, SchedulerNotRunning
from clepsydra.storage.threads import ErrandState, EventLoopHandle, ThreadPool, start_daemon

pytestmark = pytest.mark.anyio


class Gate:
    """An errand that waits until the test lets it through."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.entered.set()
        assert self.opened.wait(10)

    def wait_until_entered(self) -> Gate:
        assert self.entered.wait(10)
        return self

    def wait_until_its_thread_has_ended(self) -> None:
        self.opened.set()
        assert self.thread is not None
        self.thread.join(10)
        assert not self.thread.is_alive()


def run(pool: ThreadPool, function: Callable[[], object]) -> None:
    """Submit it and wait until it has been run."""
    done = threading.Event()

    def errand() -> None:
        function()
        done.set()

    pool.submit(errand)
    assert done.wait(10)


# ---- The loop


async def test_a_thread_has_functions_run_on_the_loop_in_order() -> None:
    loop = EventLoopHandle.current()
    here: list[tuple[threading.Thread, str]] = []
    done = anyio.Event()

    def tell(text: str) -> None:
        here.append((threading.current_thread(), text))

    def work() -> None:
        assert loop.call_soon(tell, "first")
        assert loop.call_soon(tell, "second")
        assert loop.call_soon(done.set)

    start_daemon("teller", work)
    with anyio.fail_after(5):
        await done.wait()

    assert here == [(threading.current_thread(), "first"), (threading.current_thread(), "second")]


def test_a_loop_that_has_ended_is_no_error(anyio_backend_name: str) -> None:
    async def current() -> EventLoopHandle:
        await checkpoint()
        return EventLoopHandle.current()

    loop = anyio.run(current, backend=anyio_backend_name)

    assert loop.call_soon(print, "nobody hears this") is False


def test_a_daemon_does_not_keep_the_process_alive() -> None:
    gate = Gate()

    thread = start_daemon("a name", gate)

    assert thread.daemon
    assert thread.name == "a name"
    gate.wait_until_entered().wait_until_its_thread_has_ended()


# ---- The pool


def test_an_idle_thread_is_used_before_a_new_one() -> None:
    pool = ThreadPool("pool", limit=2)
    threads: list[threading.Thread] = []

    for _ in range(10):
        run(pool, lambda: threads.append(threading.current_thread()))
        while not pool.idle:
            pass

    assert len(set(threads)) == 1
    assert pool.threads == 1


def test_the_pool_grows_to_its_limit_and_then_errands_wait_in_order() -> None:
    pool = ThreadPool("pool", limit=2)
    gates = [Gate(), Gate()]
    order: list[int] = []

    for gate in gates:
        pool.submit(gate)
        gate.wait_until_entered()
    for number in range(3):
        pool.submit(partial(order.append, number))
    assert (pool.threads, pool.waiting, order) == (2, 3, [])
    gates[0].opened.set()
    run(pool, lambda: None)

    assert order == [0, 1, 2]
    gates[1].opened.set()


def test_an_errand_that_raises_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool = ThreadPool("pool", limit=1)

    def bad() -> None:
        raise SystemExit(3)

    pool.submit(bad)
    run(pool, lambda: None)

    assert pool.threads == 1
    assert "let an error escape" in caplog.text


def test_a_withdrawn_errand_never_runs() -> None:
    pool = ThreadPool("pool", limit=1)
    gate = Gate()
    running = pool.submit(gate)
    gate.wait_until_entered()
    ran: list[str] = []
    waiting = pool.submit(lambda: ran.append("withdrawn"))

    assert waiting.withdraw()
    assert waiting.withdraw()
    assert not running.withdraw()
    gate.opened.set()
    run(pool, lambda: None)

    assert ran == []
    assert running.state is ErrandState.ENDED


def test_an_abandoned_thread_makes_room_and_ends_when_its_call_returns() -> None:
    pool = ThreadPool("pool", limit=1)
    gate = Gate()
    hanging = pool.submit(gate)
    gate.wait_until_entered()
    next_one = Gate()
    waiting = pool.submit(next_one)

    assert hanging.abandon()
    next_one.wait_until_entered()
    assert not hanging.abandon()
    assert (pool.threads, pool.abandoned, pool.waiting) == (1, 1, 0)
    gate.wait_until_its_thread_has_ended()
    assert (pool.threads, pool.abandoned) == (1, 0)
    assert waiting.state is ErrandState.RUNNING
    next_one.opened.set()


def test_what_has_ended_cannot_be_abandoned() -> None:
    pool = ThreadPool("pool", limit=1)
    errand = pool.submit(lambda: None)
    run(pool, lambda: None)

    assert not errand.abandon()
    assert pool.abandoned == 0


def test_idle_threads_end_after_a_while() -> None:
    pool = ThreadPool("pool", limit=1, idle_seconds=0.01)
    gate = Gate()
    gate.opened.set()

    pool.submit(gate)
    gate.wait_until_entered().wait_until_its_thread_has_ended()

    assert (pool.threads, pool.idle) == (0, 0)


def test_a_higher_limit_serves_what_waits_and_a_lower_one_lets_threads_end() -> None:
    pool = ThreadPool("pool", limit=1)
    first, second = Gate(), Gate()
    pool.submit(first)
    pool.submit(second)
    first.wait_until_entered()

    pool.limit = 2
    second.wait_until_entered()
    pool.limit = 1
    first.wait_until_its_thread_has_ended()

    assert pool.threads == 1
    second.opened.set()


def test_a_closed_pool_lets_its_threads_end_and_takes_nothing_more() -> None:
    pool = ThreadPool("pool", limit=1)
    gate = Gate()
    pool.submit(gate)
    gate.wait_until_entered()
    waiting = pool.submit(lambda: None)

    pool.close()

    assert waiting.state is ErrandState.WITHDRAWN
    with pytest.raises(SchedulerNotRunning, match="pool"):
        pool.submit(lambda: None)
    gate.wait_until_its_thread_has_ended()
    assert pool.threads == 0


def test_closing_wakes_idle_threads_and_they_end() -> None:
    pool = ThreadPool("pool", limit=1)
    gate = Gate()
    gate.opened.set()
    pool.submit(gate)
    while not pool.idle:
        pass

    pool.close()

    gate.wait_until_its_thread_has_ended()
    assert (pool.threads, pool.idle) == (0, 0)


def test_when_the_system_has_no_thread_left_errands_wait_for_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool("pool", limit=3)
    gate = Gate()
    pool.submit(gate)
    gate.wait_until_entered()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = threading.Event()
    pool.submit(done.set)
    assert (pool.threads, pool.waiting) == (1, 1)
    gate.opened.set()

    assert done.wait(10)
    with pytest.raises(RuntimeError, match="new thread"):
        ThreadPool("another", limit=1).submit(done.set)


def test_a_pool_without_threads_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="limit=0"):
        ThreadPool("pool", limit=0)


def test_an_idle_pool_keeps_nothing_alive() -> None:
    gone = threading.Event()

    class Held:
        def __call__(self) -> None:
            """Nothing to do."""

        def __del__(self) -> None:
            gone.set()

    ThreadPool("pool", limit=1).submit(Held())

    assert gone.wait(5)


def test_each_errand_runs_once_or_was_withdrawn_whoever_calls_at_the_same_time() -> None:
    pool = ThreadPool("pool", limit=4)
    ran: list[int] = []
    withdrawn: list[int] = []

    def submit_many(start: int) -> None:
        for number in range(start, start + 200):
            errand = pool.submit(partial(ran.append, number))
            if number % 3 == 0:
                errand.abandon()
            elif number % 3 == 1 and errand.withdraw():
                withdrawn.append(number)

    submitters = [start_daemon("submitter", partial(submit_many, start)) for start in (0, 200, 400, 600)]
    for thread in submitters:
        thread.join(10)
    while pool.waiting or pool.abandoned or pool.idle != pool.threads:
        pass

    assert sorted(ran + withdrawn) == list(range(800))
    assert 0 < pool.threads <= 4
