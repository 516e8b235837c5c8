"""What is submitted runs, once, apart from everything else that runs, and has an outcome whatever it does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint

from clepsydra.model import events
from clepsydra.model.execution import Cause, Ending, Outcome, State
from clepsydra.model.instants import SECOND
from clepsydra.model.policies import OnLeaseLost, Recovery, Retry
from clepsydra.model.signals import Cancel, Snooze
from clepsydra.model.task import Task
from clepsydra.model.work import Work
from clepsydra.stages.running import current_execution
from clepsydra.stages.worker_pool import TURN, PoolRunning, WorkerPool
from clepsydra.storage.protocol import Claim
from clepsydra.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


class Recorder:
    """Hears all events."""

    listening = True

    def __init__(self) -> None:
        self.heard: list[events.TelemetryEvent] = []

    def emit(self, event: events.TelemetryEvent, /) -> None:
        self.heard.append(event)


class Bench:
    """A pool with tasks, and what a test does with it."""

    def __init__(self, *functions: Callable[..., Any], **options: Any) -> None:
        self.clock = VirtualClock()
        self.tasks: dict[str, Task[..., Any]] = {}
        for function in functions:
            name = getattr(function, "__name__", "partial")
            self.tasks[name] = Task(function, name)
        numbers = itertools.count(1)
        self.pool = WorkerPool(self.tasks, self.clock, lambda: f"new-{next(numbers)}", "node", **options)
        self.nudges = 0
        self.pool.on_ended = self._count_nudge
        self._numbers = itertools.count(1)

    def _count_nudge(self) -> None:
        self.nudges += 1

    def claim(self, task: Callable[..., Any] | str, *, attempt: int = 1, **work: Any) -> Claim:
        name = task if isinstance(task, str) else getattr(task, "__name__", "partial")
        number = next(self._numbers)
        now = self.clock.now()
        return Claim(
            execution_id=f"execution-{number}",
            attempt_id=f"attempt-{number}",
            attempt=attempt,
            work=Work(name, **work),
            cause=Cause.ENQUEUE,
            created_at=now,
            due_at=now,
        )

    def submit(self, *claims: Claim) -> list[str]:
        self.pool.submit(claims)
        return [claim.attempt_id for claim in claims]

    async def outcomes(self) -> list[Outcome]:
        """All outcomes, acknowledged, when everything has ended."""
        await self.pool.wait_idle()
        found = self.pool.outcomes(1_000_000)
        self.pool.acknowledge([outcome.attempt_id for outcome in found])
        return found

    async def outcome(self, task: Callable[..., Any] | str, **work: Any) -> Outcome:
        """Run it and give its only outcome."""
        self.submit(self.claim(task, **work))
        (found,) = await self.outcomes()
        return found

    def cancel(self, attempt_id: str, reason: str = "on request") -> bool:
        return self.pool.cancel(attempt_id, reason)


@asynccontextmanager
async def bench(*functions: Callable[..., Any], **options: Any) -> AsyncGenerator[Bench]:
    made = Bench(*functions, **options)
    async with anyio.create_task_group() as group:
        await group.start(made.pool.run)
        yield made
        group.cancel_scope.cancel()
    assert made.clock.activity.count == 0, "everything that began has ended"


async def until(happened: Callable[[], bool]) -> None:
    """Let the loop turn until something has happened."""
    with anyio.fail_after(10):
        while not happened():
            await checkpoint()


async def nothing() -> None:
    pass


async def wait_for_ever() -> None:
    await anyio.sleep_forever()


async def sleep_on_the_clock(seconds: float) -> None:
    await current_execution().sleep(seconds)


# ---- Draining


async def test_runs_that_do_not_wait_are_drained_in_order_by_one_worker_without_a_task_switch() -> None:
    log: list[str] = []

    async def note(number: int) -> None:
        log.append(str(number))

    async def tick() -> None:
        while True:
            log.append("tick")
            await checkpoint()

    async with bench(note) as it, anyio.create_task_group() as group:
        group.start_soon(tick)
        it.submit(*(it.claim(note, args=f'{{"number":{number}}}') for number in range(10)))
        await it.outcomes()
        group.cancel_scope.cancel()

        first = log.index("0")
        assert log[first : first + 10] == [str(number) for number in range(10)]
        assert it.pool.statistics().workers == 1


async def test_the_loop_turns_at_least_once_every_64_runs_of_all_workers(anyio_backend_name: str) -> None:
    log: list[str] = []

    async def start() -> None:
        log.append("run")

    async def start_and_wait() -> None:
        log.append("run")
        await checkpoint()

    async def tick() -> None:
        while True:
            log.append("tick")
            await checkpoint()

    async with bench(start, start_and_wait) as it, anyio.create_task_group() as group:
        group.start_soon(tick)
        it.submit(*(it.claim(start if number % 3 else start_and_wait) for number in range(1_000)))
        await it.outcomes()
        group.cancel_scope.cancel()

    stretches = [len(list(same)) for what, same in itertools.groupby(log) if what == "run"]
    assert sum(stretches) == 1_000
    # Trio shuffles who runs when within a turn, so the ticks of two turns may have two turns' runs between them.
    assert max(stretches) <= (TURN if anyio_backend_name == "asyncio" else 2 * TURN)


async def test_a_whole_batch_is_begun_in_one_turn_also_after_a_smaller_one() -> None:
    begun: list[str] = []

    async def note() -> None:
        begun.append(current_execution().id)

    async with bench(note) as it:
        it.submit(*(it.claim(note) for _ in range(TURN // 2)))
        await it.outcomes()
        for _ in range(5):
            await checkpoint()  # until the worker rests
        begun.clear()

        it.submit(*(it.claim(note) for _ in range(TURN)))
        await until(lambda: bool(begun))

        assert len(begun) == TURN


async def test_a_run_that_waits_does_not_hold_up_the_others() -> None:
    async with bench(nothing, wait_for_ever) as it:
        (waiting,) = it.submit(it.claim(wait_for_ever))
        it.submit(*(it.claim(nothing) for _ in range(100)))
        await until(lambda: it.pool.statistics().unrecorded == 100)

        assert list(it.pool.running()) == [waiting]
        it.cancel(waiting)
        await it.outcomes()


async def test_a_wave_of_waiting_runs_is_all_under_way_and_its_workers_are_used_again() -> None:
    going = anyio.Event()
    begun: list[str] = []

    async def wait() -> None:
        begun.append(current_execution().id)
        await going.wait()

    async with bench(wait) as it:
        it.submit(*(it.claim(wait) for _ in range(200)))
        await until(lambda: len(begun) == 200)
        assert it.pool.statistics().workers == 200
        going.set()
        await it.outcomes()

        it.submit(*(it.claim(wait) for _ in range(200)))
        await it.outcomes()

        assert it.pool.statistics().workers == 200


async def test_what_is_submitted_before_the_pool_runs_waits_for_it() -> None:
    it = Bench(nothing)
    it.submit(it.claim(nothing))

    async with anyio.create_task_group() as group:
        await group.start(it.pool.run)
        assert [outcome.ending for outcome in await it.outcomes()] == [Ending.SUCCEEDED]
        group.cancel_scope.cancel()


async def test_a_pool_runs_once_at_a_time_and_again_afterwards() -> None:
    it = Bench(nothing)
    for _ in range(2):
        async with anyio.create_task_group() as group:
            await group.start(it.pool.run)
            with pytest.raises(PoolRunning):
                await it.pool.run()
            assert (await it.outcome(nothing)).ending is Ending.SUCCEEDED
            group.cancel_scope.cancel()


async def test_an_attempt_that_is_in_the_pool_already_is_not_run_twice() -> None:
    runs: list[str] = []

    async def count() -> None:
        runs.append("run")

    async with bench(count) as it:
        claim = it.claim(count)
        it.submit(claim, claim)
        await it.pool.wait_idle()
        it.submit(claim)  # its outcome is not recorded yet
        await it.pool.wait_idle()

    assert runs == ["run"]


# ---- Counting


async def test_slots_and_outcomes_are_counted_by_queue() -> None:
    async with bench(nothing, wait_for_ever) as it:
        slow = it.submit(it.claim(wait_for_ever, queue="slow"), it.claim(wait_for_ever, queue="slow"))
        it.submit(it.claim(nothing, queue="quick"))
        assert it.pool.busy_queues() == {"slow": 2, "quick": 1}
        await until(lambda: it.pool.unrecorded("quick") == 1)

        assert (it.pool.busy("slow"), it.pool.busy("quick"), it.pool.busy("other")) == (2, 0, 0)
        assert it.pool.busy_queues() == {"slow": 2, "quick": 0}
        assert it.pool.claim_of(slow[0]).work.queue == "slow"
        for attempt_id in slow:
            it.cancel(attempt_id)
        await it.outcomes()
        assert it.pool.busy_queues() == {}
        assert it.pool.known_attempts() == set()


class Crowd:
    """Tasks of all sorts, each in the queue of its name, counted."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {"quick": 0, "yields": 0, "rests": 0, "plain": 0}
        self.most = dict(self.running)
        self.begun: dict[str, list[str]] = {queue: [] for queue in self.running}
        self.lock = threading.Lock()

    def enter(self) -> None:
        run = current_execution()
        with self.lock:
            self.begun[run.queue].append(run.id)
            self.running[run.queue] += 1
            self.most[run.queue] = max(self.most[run.queue], self.running[run.queue])

    def leave(self) -> None:
        with self.lock:
            self.running[current_execution().queue] -= 1

    async def quick(self) -> None:
        self.enter()
        self.leave()

    async def yields(self) -> None:
        self.enter()
        await checkpoint()
        self.leave()

    async def rests(self) -> None:
        self.enter()
        await current_execution().sleep(0.01)
        self.leave()

    def plain(self) -> None:
        self.enter()
        self.leave()


@pytest.mark.parametrize("seed", range(4))
async def test_never_do_more_runs_of_a_queue_run_at_once_than_it_has_slots(seed: int) -> None:
    crowd, random = Crowd(), Random(seed)
    slots = {queue: random.choice([1, 2, 7]) for queue in crowd.running}
    submitted: dict[str, list[str]] = {queue: [] for queue in slots}
    async with bench(crowd.quick, crowd.yields, crowd.rests, crowd.plain, slots=slots.__getitem__) as it:
        for _ in range(10):
            claims = [it.claim(queue, queue=queue) for queue in random.choices(list(slots), k=40)]
            for claim in claims:
                submitted[claim.work.queue].append(claim.execution_id)
            it.submit(*claims)
            assert all(it.pool.busy(queue) <= most for queue, most in slots.items())
            for _ in range(random.randrange(4)):
                await checkpoint()
        done = anyio.Event()

        async def wait_idle() -> None:
            await it.pool.wait_idle()
            done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(wait_idle)
            await it.clock.pass_until(done)

        assert all(crowd.most[queue] <= most for queue, most in slots.items())
        assert (crowd.most["yields"], crowd.most["rests"]) == (slots["yields"], slots["rests"])
        assert all(sorted(crowd.begun[queue]) == sorted(submitted[queue]) for queue in slots)
        assert all(crowd.begun[queue] == submitted[queue] for queue in ("quick", "yields", "rests"))
        assert it.pool.ahead_since() == {}
        assert len(await it.outcomes()) == 400


def one_slot(_: str) -> int:
    return 1


async def test_more_slots_are_taken_at_once_and_fewer_only_as_runs_end() -> None:
    slots = {"default": 1}
    async with bench(wait_for_ever, slots=slots.__getitem__) as it:
        ids = it.submit(*(it.claim(wait_for_ever) for _ in range(5)))
        assert (it.pool.busy("default"), it.pool.ahead("default")) == (1, 4)

        slots["default"] = 3
        it.pool.slots_changed()
        assert (it.pool.busy("default"), it.pool.ahead("default")) == (3, 2)
        slots["default"] = 2
        it.cancel(ids[0])
        assert (it.pool.busy("default"), it.pool.ahead("default")) == (2, 2)
        it.cancel(ids[1])
        assert (it.pool.busy("default"), it.pool.ahead("default")) == (2, 1)
        for attempt_id in ids:
            it.cancel(attempt_id)
        assert it.pool.busy_queues() == {"default": 0}


async def test_what_waits_for_a_slot_is_withdrawn_cancelled_or_given_back_without_freeing_one() -> None:
    async with bench(wait_for_ever, slots=one_slot) as it:
        runs, *line = it.submit(*(it.claim(wait_for_ever) for _ in range(7)))
        await until(lambda: it.pool.statistics().running == 1)

        it.cancel(line[0])
        it.pool.withdraw(lambda claim: claim.attempt_id == line[1])
        assert (it.pool.give_back_ahead("default", 3), it.pool.ahead("default")) == (3, 1)

        assert (it.pool.busy("default"), it.pool.statistics().waiting) == (1, 1)
        endings = {outcome.attempt_id: (outcome.ending, outcome.unbegun) for outcome in it.pool.outcomes(10)}
        assert endings == {
            line[0]: (Ending.CANCELLED, False),
            line[1]: (Ending.CANCELLED, False),
            **dict.fromkeys(line[3:], (Ending.GIVEN_BACK, True)),
        }
        it.cancel(runs)
        await until(lambda: it.pool.running()[line[2]].started_at is not None)
        it.cancel(line[2])
        await it.outcomes()


async def test_what_waits_for_a_slot_holds_no_clock_and_is_not_begun_too_late() -> None:
    begun: list[float] = []

    async def rest() -> None:
        begun.append(it.clock.monotonic())
        await current_execution().sleep(2)

    async with bench(rest, slots=one_slot) as it:
        it.submit(it.claim(rest), it.claim(rest, start_by=SECOND), it.claim(rest), it.claim(rest, start_by=9 * SECOND))
        since = it.pool.ahead_since()["default"]

        await it.clock.advance(10)

        assert [at - since for at in begun] == [0, 2, 4]
        outcomes = await it.outcomes()
        assert [outcome.ending for outcome in outcomes].count(Ending.SUCCEEDED) == 3
        (late,) = [outcome for outcome in outcomes if outcome.ending is Ending.GIVEN_BACK]
        assert (late.execution_id, late.unbegun) == ("execution-2", True)
        waited, took = it.pool.take_stock()
        assert (waited, took) == ({"default": 4.0}, {"default": 2.0})


async def test_outcomes_are_kept_in_order_until_they_are_acknowledged() -> None:
    async with bench(nothing) as it:
        ids = it.submit(*(it.claim(nothing) for _ in range(3)))
        await it.pool.wait_idle()

        assert [outcome.attempt_id for outcome in it.pool.outcomes(2)] == ids[:2]
        it.pool.acknowledge([ids[0], "unknown"])
        assert [outcome.attempt_id for outcome in it.pool.outcomes(2)] == ids[1:]
        assert it.pool.known_attempts() == set(ids[1:])


async def test_the_executor_is_nudged_once_until_it_has_read() -> None:
    async with bench(nothing) as it:
        it.submit(it.claim(nothing), it.claim(nothing))
        await it.pool.wait_idle()
        assert it.nudges == 1

        await it.outcomes()
        await it.outcome(nothing)
        assert it.nudges == 2


# ---- Apart from each other


async def test_no_run_sees_the_context_of_another() -> None:
    variable = ContextVar("variable", default="outside")
    seen: list[str] = []

    async def change() -> None:
        seen.append(variable.get())
        variable.set("changed")
        await checkpoint()
        seen.append(variable.get())

    async with bench(change) as it:
        variable.set("of the test")
        await it.outcome(change)
        await it.outcome(change)

    assert seen == ["outside", "changed", "outside", "changed"]


async def test_a_run_sees_the_context_in_which_the_pool_was_started() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("of the app")

    async def look() -> str:
        return variable.get()

    async with bench(look) as it:
        assert (await it.outcome(look)).result == '"of the app"'


async def test_plain_functions_and_child_tasks_see_their_own_execution() -> None:
    def plain() -> str:
        return current_execution().id

    async def in_children() -> list[str]:
        found: list[str] = []

        async def child() -> None:
            await checkpoint()
            found.append(current_execution().id)

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            found.append(await anyio.to_thread.run_sync(plain))
        return found

    async with bench(plain, in_children) as it:
        assert (await it.outcome(plain)).result == '"execution-1"'
        assert (await it.outcome(in_children)).result == '["execution-2","execution-2"]'


async def uses_anyio() -> None:
    with anyio.move_on_after(0) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0):
            await anyio.sleep_forever()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()
        group.cancel_scope.cancel()
    assert anyio.get_current_task().id


async def uses_asyncio() -> None:
    assert asyncio.current_task() is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.sleep(3600)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    with pytest.raises(ExceptionGroup):  # noqa: PT012
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(3600)
    assert list(await asyncio.gather(asyncio.to_thread(str, 1), asyncio.sleep(0, "2"))) == ["1", "2"]
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def fails() -> None:
    raise ValueError("it fails")


async def uses_trio() -> None:
    with trio.move_on_after(0) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(0):
            await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        assert await trio.to_thread.run_sync(str, 1) == "1"
        nursery.cancel_scope.cancel()
    with pytest.raises(ExceptionGroup):  # noqa: PT012
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            await trio.sleep_forever()


async def test_timeouts_task_groups_and_threads_work_inside_of_a_run(anyio_backend_name: str) -> None:
    native = uses_asyncio if anyio_backend_name == "asyncio" else uses_trio
    async with bench(uses_anyio, native) as it:
        it.submit(*(it.claim(task) for task in (uses_anyio, native) for _ in range(5)))
        outcomes = await it.outcomes()

        assert [outcome.error for outcome in outcomes] == [None] * 10
        assert it.pool.statistics().replaced_workers == 0


# ---- What a run comes to


async def test_a_value_is_kept_as_json_and_none_as_none() -> None:
    async def value() -> Any:
        return {"b": [1, None], "a": "ü"}

    async with bench(value, nothing) as it:
        outcome = await it.outcome(value)
        assert (outcome.ending, outcome.result, outcome.node) == (Ending.SUCCEEDED, '{"a":"ü","b":[1,null]}', "node")
        assert (await it.outcome(nothing)).result is None


async def test_a_value_that_is_not_json_is_a_failure() -> None:
    async def value() -> object:
        return [object()]

    async with bench(value) as it:
        outcome = await it.outcome(value)

    assert outcome.ending is Ending.FAILED
    assert "result[0]" in str(outcome.error)


async def test_an_error_is_a_failure_with_a_traceback_from_the_tasks_first_line_on() -> None:
    async with bench(fails) as it:
        outcome = await it.outcome(fails)

    lines = str(outcome.error).splitlines()
    assert outcome.ending is Ending.FAILED
    assert lines[0] == "Traceback (most recent call last):"
    assert "test_worker_pool.py" in lines[1]
    assert lines[-1] == "ValueError: it fails"


async def test_a_failure_is_tried_again_as_a_new_attempt_while_its_policy_says_so() -> None:
    retry = Retry(attempts=2, backoff=10, jitter=0)
    async with bench(fails) as it:
        now = it.clock.now()
        first = await it.outcome(fails, retry=retry)
        last = await it.outcome(fails, retry=retry, attempt=2)

    assert (first.ending, first.next_attempt_id, first.not_before) == (Ending.RETRY, "new-1", now + 10 * SECOND)
    assert (last.ending, last.next_attempt_id) == (Ending.FAILED, "")


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), BaseException("odd"), StopAsyncIteration()])
@pytest.mark.parametrize("waits", [False, True])
async def test_jq24_an_error_that_is_no_exception_is_a_failure_too(error: BaseException, waits: bool) -> None:
    async def task() -> None:
        if waits:
            await checkpoint()
        raise error

    def plain() -> None:
        raise error

    async with bench(task, plain, nothing) as it:
        assert (await it.outcome(task)).ending is Ending.FAILED
        assert (await it.outcome(plain)).ending is Ending.FAILED
        assert (await it.outcome(nothing)).ending is Ending.SUCCEEDED


async def test_stop_iteration_from_a_plain_function_is_a_failure() -> None:
    def plain() -> Any:
        return next(iter(()))

    async with bench(plain) as it:
        assert "StopIteration" in str((await it.outcome(plain)).error)


@pytest.mark.parametrize("kind", ["at once", "after a wait", "in a group", "in a thread"])
async def test_jq24_a_keyboard_interrupt_is_recorded_and_comes_out_of_the_pool_bare(kind: str) -> None:
    """Decided differently: it is somebody's wish to end the program, and so not the task's failure alone."""

    async def task() -> None:
        if kind == "in a group":
            raise BaseExceptionGroup("group", [KeyboardInterrupt()])
        if kind != "at once":
            await checkpoint()
        raise KeyboardInterrupt

    def plain() -> None:
        raise KeyboardInterrupt

    it = Bench(task, plain, wait_for_ever, nothing)
    it.submit(it.claim(wait_for_ever), it.claim(plain if kind == "in a thread" else task))

    with pytest.raises(KeyboardInterrupt):
        await it.pool.run()

    waiting, interrupted = sorted(it.pool.outcomes(9), key=lambda outcome: outcome.attempt_id)
    assert interrupted.ending is Ending.FAILED
    assert "KeyboardInterrupt" in str(interrupted.error)
    assert waiting.ending is Ending.GIVEN_BACK
    assert it.clock.activity.count == 0


async def test_after_a_keyboard_interrupt_nothing_more_begins() -> None:
    begun: list[str] = []

    async def interrupt() -> None:
        begun.append("interrupt")
        raise KeyboardInterrupt

    async def begin() -> None:
        begun.append("more")

    it = Bench(interrupt, begin)
    it.submit(it.claim(interrupt), it.claim(begin))
    with pytest.raises(KeyboardInterrupt):
        await it.pool.run()

    assert begun == ["interrupt"]
    assert [outcome.ending for outcome in it.pool.outcomes(9)] == [Ending.FAILED, Ending.GIVEN_BACK]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_error_raised_by_hand_is_a_failure(waits: bool) -> None:
    async def task() -> None:
        if waits:
            await checkpoint()
        raise asyncio.CancelledError

    recorder = Recorder()
    async with bench(task, nothing, emit=recorder) as it:
        assert (await it.outcome(task)).ending is Ending.FAILED
        assert (await it.outcome(nothing)).ending is Ending.SUCCEEDED

    (failed,) = [event for event in recorder.heard if isinstance(event, events.ExecutionFailed)]
    assert failed.kind is events.FailureKind.CANCELLED


async def snooze_by_value() -> Any:
    return Snooze(60)


async def snooze_by_raising() -> None:
    await checkpoint()
    raise Snooze(60)


async def snooze_in_a_child() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(snooze_by_raising)


def snooze_in_a_thread() -> Any:
    return Snooze(60)


@pytest.mark.parametrize("task", [snooze_by_value, snooze_by_raising, snooze_in_a_child, snooze_in_a_thread])
async def test_a_task_may_ask_to_be_run_later(task: Callable[[], Any]) -> None:
    async with bench(task) as it:
        now = it.clock.now()
        outcome = await it.outcome(task)

    assert (outcome.ending, outcome.next_attempt_id) == (Ending.SNOOZED, "new-1")
    assert (outcome.not_before, outcome.error) == (now + 60 * SECOND, None)


async def test_a_task_may_cancel_its_execution() -> None:
    async def by_value() -> Any:
        return Cancel("the customer has left")

    async def by_raising() -> None:
        raise Cancel("the customer has left")

    async with bench(by_value, by_raising) as it:
        for task in (by_value, by_raising):
            outcome = await it.outcome(task)
            assert (outcome.ending, outcome.error) == (Ending.CANCELLED, "the customer has left")


async def test_a_task_that_is_gone_is_a_failure_that_names_it() -> None:
    recorder = Recorder()
    async with bench(nothing, emit=recorder) as it:
        outcome = await it.outcome("gone")

    assert outcome.ending is Ending.FAILED
    assert "no task is called 'gone'; known tasks: 'nothing'" in str(outcome.error)
    assert [type(event) for event in recorder.heard] == [events.ExecutionStarted, events.ExecutionFailed]


@pytest.mark.parametrize("args", ['{"number":1}', "[1]", "not json"])
async def test_arguments_that_do_not_fit_are_a_failure(args: str) -> None:
    async with bench(nothing) as it:
        assert (await it.outcome(nothing, args=args)).ending is Ending.FAILED


async def test_missing_arguments_are_a_failure_each_time() -> None:
    async with bench(sleep_on_the_clock) as it:
        for _ in range(2):
            assert "seconds" in str((await it.outcome(sleep_on_the_clock)).error)


# ---- Being stopped


async def test_cancelling_stops_a_task_and_lets_it_clean_up() -> None:
    cleaned: list[str] = []

    async def task() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(current_execution().id)

    async with bench(task, nothing) as it:
        (attempt_id,) = it.submit(it.claim(task))
        await until(lambda: it.pool.statistics().running == 1)

        assert it.cancel(attempt_id, "not needed")
        (outcome,) = await it.outcomes()

        assert (outcome.ending, outcome.error) == (Ending.CANCELLED, "not needed")
        assert cleaned == [outcome.execution_id]
        assert (await it.outcome(nothing)).ending is Ending.SUCCEEDED
        assert it.pool.statistics().replaced_workers == 0


async def test_cancelling_what_waits_for_a_worker_withdraws_it() -> None:
    async with bench(nothing) as it:
        (attempt_id,) = it.submit(it.claim(nothing))

        assert it.cancel(attempt_id, "not needed")
        (outcome,) = it.pool.outcomes(9)

        assert (outcome.ending, outcome.error) == (Ending.CANCELLED, "not needed")


async def test_cancelling_what_is_not_there_changes_nothing() -> None:
    async with bench(nothing) as it:
        assert not it.cancel("unknown")


async def test_a_task_that_ends_before_it_notices_has_succeeded() -> None:
    async def task() -> str:
        await checkpoint()
        it.cancel(current_execution().attempt_id)
        return "done"

    async with bench(task, nothing) as it:
        assert (await it.outcome(task)).result == '"done"'
        assert (await it.outcome(nothing)).ending is Ending.SUCCEEDED


async def test_a_task_that_swallows_its_cancellation_is_cancelled_and_its_worker_replaced() -> None:
    async def swallow() -> str:
        with suppress(BaseException):
            await anyio.sleep_forever()
        return "I do not care"

    async with bench(swallow, sleep_on_the_clock) as it:
        (attempt_id,) = it.submit(it.claim(swallow))
        await until(lambda: it.pool.statistics().running == 1)
        it.cancel(attempt_id)
        (outcome,) = await it.outcomes()

        assert (outcome.ending, outcome.result) == (Ending.CANCELLED, None)
        await until(lambda: it.pool.statistics().replaced_workers == 1)
        it.submit(it.claim(sleep_on_the_clock, args='{"seconds":5}'))
        await it.clock.advance(5)
        assert [outcome.ending for outcome in await it.outcomes()] == [Ending.SUCCEEDED]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_cancels_the_asyncio_task_it_runs_in_hurts_nobody_else(waits: bool) -> None:
    async def rude() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(3600)

    async def waits_too() -> None:
        await asyncio.sleep(0)

    async with bench(rude, waits_too) as it:
        it.submit(it.claim(rude), it.claim(waits_too), it.claim(waits_too))
        outcomes = {outcome.attempt_id: outcome.ending for outcome in await it.outcomes()}

        assert list(outcomes.values()).count(Ending.SUCCEEDED) == (2 if waits else 3)
        await until(lambda: it.pool.statistics().replaced_workers == 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_cancelled_by_hand_while_it_is_idle_does_not_end_the_pool() -> None:
    async def who() -> None:
        workers.append(asyncio.current_task())

    workers: list[asyncio.Task[Any] | None] = []
    async with bench(who) as it:
        await it.outcome(who)
        await checkpoint()
        assert workers[0] is not None
        workers[0].cancel()
        await until(lambda: it.pool.statistics().workers == 0)

        assert (await it.outcome(who)).ending is Ending.SUCCEEDED
        assert it.pool.statistics().replaced_workers == 1


async def test_a_cancel_scope_that_a_task_has_left_open_does_not_rule_the_next_ones() -> None:
    left_open: list[anyio.CancelScope] = []

    async def forgetful() -> None:
        left_open.append(anyio.CancelScope().__enter__())
        await checkpoint()

    async with bench(forgetful, sleep_on_the_clock) as it:
        assert (await it.outcome(forgetful)).ending is Ending.SUCCEEDED
        await until(lambda: it.pool.statistics().replaced_workers == 1)
        left_open[0].cancel()
        it.submit(it.claim(sleep_on_the_clock, args='{"seconds":5}'))
        await it.clock.advance(5)

        assert [outcome.ending for outcome in await it.outcomes()] == [Ending.SUCCEEDED]


async def test_what_has_not_begun_can_be_withdrawn() -> None:
    async with bench(nothing) as it:
        first, second = it.submit(it.claim(nothing, queue="a"), it.claim(nothing, queue="b"))

        assert it.pool.withdraw(lambda claim: claim.work.queue == "a", reason="its job was removed") == [first]
        outcomes = {outcome.attempt_id: outcome for outcome in await it.outcomes()}

        assert outcomes[first].ending is Ending.CANCELLED
        assert outcomes[first].error == "its job was removed"
        assert outcomes[second].ending is Ending.SUCCEEDED


async def test_what_is_withdrawn_while_claims_are_on_their_way_is_withdrawn_from_each_batch_of_them() -> None:
    async with bench(nothing) as it:
        it.pool.claims_are_asked_for()
        it.pool.withdraw(lambda claim: claim.work.queue == "a")
        it.submit(it.claim(nothing, queue="a"))
        it.pool.withdraw(lambda claim: claim.work.queue == "b")
        it.submit(it.claim(nothing, queue="a"), it.claim(nothing, queue="b"), it.claim(nothing, queue="c"))
        it.pool.claims_have_come()
        it.submit(it.claim(nothing, queue="a"))

        endings = [outcome.ending.value for outcome in await it.outcomes()]

        assert endings == ["cancelled", "cancelled", "cancelled", "succeeded", "succeeded"]


async def test_what_is_cancelled_while_its_claim_is_on_its_way_is_not_begun() -> None:
    async with bench(nothing) as it:
        first, second, third = (it.claim(nothing) for _ in range(3))
        it.pool.claims_are_asked_for()
        it.submit(first)

        it.pool.cancel(third.attempt_id, "not needed")
        it.submit(second, third)
        it.pool.claims_have_come()
        outcomes = {outcome.attempt_id: outcome for outcome in await it.outcomes()}

        assert (outcomes[third.attempt_id].ending, outcomes[third.attempt_id].error) == (Ending.CANCELLED, "not needed")
        assert [outcomes[claim.attempt_id].ending for claim in (first, second)] == [Ending.SUCCEEDED] * 2


async def test_what_runs_is_not_withdrawn() -> None:
    async with bench(wait_for_ever) as it:
        (attempt_id,) = it.submit(it.claim(wait_for_ever))
        await until(lambda: it.pool.statistics().running == 1)

        assert it.pool.withdraw(lambda claim: True) == []
        it.cancel(attempt_id)
        await it.outcomes()


async def test_a_shutdown_gives_back_what_has_not_begun() -> None:
    async with bench(nothing) as it:
        it.submit(it.claim(nothing))

        it.pool.give_back_waiting()
        (outcome,) = await it.outcomes()

        assert (outcome.ending, outcome.next_attempt_id) == (Ending.GIVEN_BACK, "new-1")
        assert outcome.not_before == it.clock.now()


async def test_the_end_of_grace_interrupts_what_runs_and_gives_it_back_unless_it_must_not_run_twice() -> None:
    released = threading.Event()

    def plain() -> None:
        released.wait()

    async with bench(wait_for_ever, plain) as it:
        once = it.claim(wait_for_ever, recovery=Recovery.FAIL)
        it.submit(it.claim(wait_for_ever), once, it.claim(plain))
        await until(lambda: it.pool.statistics().running == 3)

        it.pool.interrupt_all()
        outcomes = {outcome.attempt_id: outcome for outcome in await it.outcomes()}

        failed = outcomes.pop(once.attempt_id)
        assert failed.ending is Ending.FAILED
        assert "interrupted" in str(failed.error)
        assert [outcome.ending for outcome in outcomes.values()] == [Ending.GIVEN_BACK] * 2
        released.set()


async def test_when_the_lease_is_lost_only_what_must_not_run_without_one_is_stopped() -> None:
    async with bench(wait_for_ever) as it:
        careful = it.claim(wait_for_ever, on_lease_lost=OnLeaseLost.CANCEL)
        (other, _) = it.submit(it.claim(wait_for_ever), careful)
        await until(lambda: it.pool.statistics().running == 2)

        it.pool.lease_lost()
        await until(lambda: len(it.pool.running()) == 1)

        (outcome,) = it.pool.outcomes(9)
        assert (outcome.attempt_id, outcome.ending) == (careful.attempt_id, Ending.CANCELLED)
        it.cancel(other)
        await it.outcomes()


async def test_when_the_lease_is_lost_what_has_not_begun_is_given_back() -> None:
    """It may be another node's by now, which begins it too."""
    async with bench(nothing) as it:
        it.submit(it.claim(nothing))

        it.pool.lease_lost()
        (outcome,) = await it.outcomes()

        assert outcome.ending is Ending.GIVEN_BACK


async def test_one_can_wait_until_all_is_recorded() -> None:
    recorded: list[str] = []

    async def wait(pool: WorkerPool) -> None:
        await pool.wait_recorded()
        recorded.append("all")

    async with bench(nothing) as it, anyio.create_task_group() as group:
        first, second = it.submit(it.claim(nothing), it.claim(nothing))
        await it.pool.wait_idle()
        group.start_soon(wait, it.pool)
        it.pool.acknowledge([first])
        await checkpoint()
        assert recorded == []
        it.pool.acknowledge([second])

    assert recorded == ["all"]


async def test_cancelling_the_pool_gives_back_all_that_it_holds() -> None:
    released = threading.Event()

    def plain() -> None:
        released.wait()

    it = Bench(wait_for_ever, plain)
    async with anyio.create_task_group() as group:
        await group.start(it.pool.run)
        it.submit(it.claim(wait_for_ever), it.claim(plain))
        await until(lambda: it.pool.statistics().running == 2)
        it.submit(it.claim(wait_for_ever))
        group.cancel_scope.cancel()
    released.set()

    assert [outcome.ending for outcome in it.pool.outcomes(9)] == [Ending.GIVEN_BACK] * 3
    assert it.clock.activity.count == 0


# ---- Deadlines


async def test_a_task_that_takes_too_long_is_stopped_and_tried_again() -> None:
    cleaned: list[float] = []

    async def task() -> None:
        try:
            await current_execution().sleep(3600)
        finally:
            cleaned.append(it.clock.monotonic())

    recorder = Recorder()
    async with bench(task, emit=recorder) as it:
        it.submit(it.claim(task, timeout=30 * SECOND, retry=Retry(attempts=2, on=[TimeoutError])))
        await it.clock.advance(3600)
        (outcome,) = await it.outcomes()

    assert cleaned == [30]
    assert outcome.ending is Ending.RETRY
    assert str(outcome.error).endswith("TimeoutError: timed out after 30 s")
    assert "current_execution().sleep(3600)" in str(outcome.error), "it says where the task stood"
    (failed,) = [event for event in recorder.heard if isinstance(event, events.ExecutionFailed)]
    assert (failed.kind, failed.took.total_seconds()) == (events.FailureKind.TIMEOUT, 30)


async def test_deadlines_pass_in_their_order_and_not_for_what_has_ended() -> None:
    async with bench(sleep_on_the_clock) as it:
        for timeout, seconds in ((30, 3600), (10, 3600), (20, 5), (15, 3600)):
            it.submit(it.claim(sleep_on_the_clock, timeout=timeout * SECOND, args=f'{{"seconds":{seconds}}}'))
        start = it.clock.now()
        await it.clock.advance(3600)
        ended = [((outcome.at - start) / SECOND, outcome.ending) for outcome in await it.outcomes()]

    assert ended == [(5, Ending.SUCCEEDED), (10, Ending.FAILED), (15, Ending.FAILED), (30, Ending.FAILED)]


async def test_a_thread_that_ignores_its_deadline_is_abandoned_and_its_late_result_ignored() -> None:
    began, released, ended = threading.Event(), threading.Event(), threading.Event()
    stopped: list[bool] = []

    def plain() -> str:
        began.set()
        released.wait()
        stopped.append(current_execution().cancelled)
        ended.set()
        return "too late"

    recorder = Recorder()
    async with bench(plain, nothing, emit=recorder, abandoned_limit=0, threads=1) as it:
        (attempt_id,) = it.submit(it.claim(plain, timeout=30 * SECOND))
        await until(began.is_set)
        it.pool.running()[attempt_id].rest()  # it waits for the test, so time may pass
        await it.clock.advance(30)
        (outcome,) = await it.outcomes()

        assert str(outcome.error) == "TimeoutError: timed out after 30 s"
        assert (it.pool.busy("default"), it.pool.statistics().abandoned) == (0, 1)
        assert it.pool.statistics().degraded
        assert [event.abandoned for event in recorder.heard if isinstance(event, events.ThreadAbandoned)] == [1]
        released.set()
        await until(lambda: it.pool.statistics().abandoned == 0)
        assert ended.is_set()
        assert stopped == [True]
        assert await it.outcomes() == []


# ---- Plain functions


async def test_a_plain_function_runs_in_a_thread_and_occupies_no_worker() -> None:
    def plain(number: int) -> list[int]:
        return [number, threading.get_ident()]

    async with bench(plain) as it:
        outcome = await it.outcome(plain, args='{"number":7}')

        assert str(outcome.result).startswith("[7,")
        assert str(threading.get_ident()) not in str(outcome.result)
        assert it.pool.statistics().workers == 1


async def test_no_more_plain_functions_run_at_once_than_there_are_threads() -> None:
    released = threading.Event()
    begun: list[str] = []

    def plain() -> None:
        begun.append(current_execution().attempt_id)
        released.wait()

    async with bench(plain, nothing, threads=2) as it:
        ids = it.submit(*(it.claim(plain) for _ in range(5)))
        assert (await_first := it.submit(it.claim(nothing)))
        await until(lambda: it.pool.unrecorded("default") == 1)
        await until(lambda: len(begun) == 2)
        assert it.pool.statistics().waiting == 3

        withdrawn = it.pool.withdraw(lambda claim: claim.attempt_id == ids[2])
        released.set()
        endings = {outcome.attempt_id: outcome.ending for outcome in await it.outcomes()}

        assert withdrawn == [ids[2]]
        assert endings.pop(ids[2]) is Ending.CANCELLED
        assert set(endings) == {*ids, *await_first} - {ids[2]}
        assert set(endings.values()) == {Ending.SUCCEEDED}
        assert ids[2] not in begun


async def test_a_thread_that_is_free_goes_to_the_next_although_the_first_in_line_is_withdrawn() -> None:
    released = threading.Event()

    def plain() -> None:
        released.wait()

    async with bench(plain, threads=1) as it:
        _, second, third = it.submit(*(it.claim(plain) for _ in range(3)))
        await until(lambda: it.pool.statistics().running == 1)

        def cancel_the_second() -> None:
            it.cancel(second)

        it.pool.on_ended = cancel_the_second
        released.set()
        await it.pool.wait_idle()

        endings = {outcome.attempt_id: outcome.ending for outcome in it.pool.outcomes(9)}
        assert (endings[second], endings[third]) == (Ending.CANCELLED, Ending.SUCCEEDED)


async def test_when_the_system_has_no_thread_left_the_attempt_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with bench(plain_work) as it:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        outcome = await it.outcome(plain_work)
        monkeypatch.undo()

        assert outcome.ending is Ending.FAILED
        assert "can't start new thread" in str(outcome.error)
        assert (await it.outcome(plain_work)).ending is Ending.SUCCEEDED


async def test_a_plain_function_that_is_asked_to_stop_can_see_it() -> None:
    began = threading.Event()

    def plain() -> str:
        began.set()
        while not current_execution().cancelled:
            pass
        return "stopped halfway"

    async with bench(plain) as it:
        (attempt_id,) = it.submit(it.claim(plain))
        await until(began.is_set)

        it.cancel(attempt_id, "not needed")
        (outcome,) = await it.outcomes()

        assert (outcome.ending, outcome.error) == (Ending.CANCELLED, "not needed")


async def test_what_a_plain_function_gives_to_be_awaited_is_awaited_on_the_loop() -> None:
    async def inner(number: int) -> int:
        await checkpoint()
        return number + len(current_execution().id)

    def plain() -> Awaitable[int]:
        return inner(1)

    partial = functools.partial(inner, 2)
    async with bench(plain, partial) as it:
        assert (await it.outcome(plain)).result == str(1 + len("execution-1"))
        assert (await it.outcome(partial)).result == str(2 + len("execution-1"))


async def test_what_is_to_be_awaited_is_closed_when_it_was_cancelled_meanwhile() -> None:
    began, released = threading.Event(), threading.Event()
    given: list[Coroutine[Any, Any, None]] = []

    def plain() -> Awaitable[None]:
        began.set()
        released.wait()
        given.append(nothing())
        return given[0]

    async with bench(plain) as it:
        (attempt_id,) = it.submit(it.claim(plain))
        await until(began.is_set)
        it.cancel(attempt_id)
        released.set()

        assert [outcome.ending for outcome in await it.outcomes()] == [Ending.CANCELLED]
        assert inspect.getcoroutinestate(given[0]) == inspect.CORO_CLOSED


# ---- Under a virtual clock


async def test_a_task_that_sleeps_on_the_clock_lets_time_pass() -> None:
    async with bench(sleep_on_the_clock) as it:
        it.submit(it.claim(sleep_on_the_clock, args='{"seconds":3600}'))
        start = it.clock.now()
        await it.clock.advance(86_400)
        (outcome,) = await it.outcomes()

    assert outcome.at == start + 3600 * SECOND


async def test_branches_of_a_task_may_sleep_at_the_same_time() -> None:
    async def branches() -> None:
        async with anyio.create_task_group() as group:
            for seconds in (10, 30, 20):
                group.start_soon(sleep_on_the_clock, seconds)

    async with bench(branches) as it:
        start = it.clock.now()
        it.submit(it.claim(branches))
        await it.clock.advance(60)
        (outcome,) = await it.outcomes()

    assert outcome.at == start + 30 * SECOND


async def test_a_sleeping_task_can_be_cancelled() -> None:
    async with bench(sleep_on_the_clock) as it:
        (attempt_id,) = it.submit(it.claim(sleep_on_the_clock, args='{"seconds":3600}'))
        await it.clock.advance(1)
        it.cancel(attempt_id)
        await it.clock.settle()

        assert [outcome.ending for outcome in await it.outcomes()] == [Ending.CANCELLED]


# ---- Telling


async def test_each_attempt_tells_that_it_started_and_how_it_ended() -> None:
    recorder = Recorder()
    async with bench(nothing, fails, snooze_by_value, emit=recorder) as it:
        await it.outcome(nothing)
        await it.outcome(fails)
        await it.outcome(fails, retry=Retry(attempts=2, backoff=1, jitter=0))
        await it.outcome(snooze_by_value)

    match recorder.heard:
        case [
            events.ExecutionStarted(execution_id="execution-1", task="nothing", late_by=0),
            events.ExecutionStopped(execution_id="execution-1", state=State.SUCCEEDED),
            events.ExecutionStarted(),
            events.ExecutionFailed(kind=events.FailureKind.EXCEPTION, will_retry=False) as failed,
            events.ExecutionStarted(attempt=1),
            events.ExecutionFailed(attempt=1, will_retry=True),
            events.ExecutionRetried(attempt=2, not_before=not_before),
            events.ExecutionStarted(),
            events.ExecutionStopped(state=State.PENDING),
        ]:
            assert failed.error.endswith("ValueError: it fails")
            assert not_before == it.clock.now() + SECOND
        case heard:
            pytest.fail(f"{heard}")


async def test_what_never_began_tells_nothing() -> None:
    recorder = Recorder()
    async with bench(nothing, emit=recorder) as it:
        it.submit(it.claim(nothing))
        it.pool.give_back_waiting()
        await it.outcomes()

    assert recorder.heard == []


# ---- All of it at once


async def ends_at_once() -> int:
    return 1


async def turns() -> None:
    for _ in range(3):
        await checkpoint()


async def swallows() -> None:
    with suppress(BaseException):
        await current_execution().sleep(3600)


async def works_in_children() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(sleep_on_the_clock, 7)
        group.start_soon(sleep_on_the_clock, 3)


async def cancels_itself() -> None:
    everybody[0].cancel(current_execution().attempt_id)
    await checkpoint()


async def cancels_its_worker() -> None:
    if (task := asyncio.current_task()) is not None:
        task.cancel()


async def enqueues() -> None:
    it = everybody[0]
    it.submit(it.claim(turns), it.claim(ends_at_once))


async def forgets_a_scope() -> None:
    anyio.move_on_after(2).__enter__()
    await checkpoint()


def plain_work() -> str:
    current_execution().progress(1)
    return "done"


def plain_failure() -> None:
    raise LookupError("plain")


def plain_awaitable() -> Awaitable[None]:
    return turns()


everybody: list[Bench] = []
BEHAVIOURS = [
    ends_at_once,
    turns,
    fails,
    swallows,
    works_in_children,
    cancels_itself,
    enqueues,
    forgets_a_scope,
    plain_work,
    plain_failure,
    plain_awaitable,
    snooze_by_raising,
]


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_each_attempt_has_one_outcome(
    seed: int, anyio_backend_name: str, long_run: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # of forgotten scopes
    random = Random(seed)
    behaviours = [*BEHAVIOURS, cancels_its_worker] if anyio_backend_name == "asyncio" else BEHAVIOURS
    async with bench(*behaviours, threads=2) as it:
        everybody[:] = [it]
        endings: dict[str, Ending] = {}
        for _ in range(2_000 if long_run else 60):
            await disturb(it, random, behaviours)
            for outcome in it.pool.outcomes(random.randrange(100)):
                assert outcome.attempt_id not in endings
                endings[outcome.attempt_id] = outcome.ending
                it.pool.acknowledge([outcome.attempt_id])
        await it.clock.advance(3600)
        endings |= {outcome.attempt_id: outcome.ending for outcome in await it.outcomes()}

        assert set(endings) == {f"attempt-{number}" for number in range(1, len(endings) + 1)}
        assert it.pool.busy_queues() == {}
        assert it.pool.statistics().runs == len(endings)
        assert (await it.outcome(turns)).ending is Ending.SUCCEEDED


async def disturb(it: Bench, random: Random, behaviours: list[Callable[..., Any]]) -> None:
    """Do something to the pool, and give it a moment or not."""
    match random.randrange(10):
        case 0 | 1 | 2 | 3:
            timeout = random.choice([None, SECOND, 5 * SECOND])
            it.submit(*(it.claim(random.choice(behaviours), timeout=timeout) for _ in range(random.randrange(1, 80))))
        case 4:
            for attempt_id in random.sample(running := sorted(it.pool.running()), min(3, len(running))):
                it.cancel(attempt_id)
        case 5:
            it.pool.withdraw(lambda claim: random.random() < 0.5)
        case 6:
            await it.clock.advance(random.random() * 10)
        case 7 if random.random() < 0.1:
            it.pool.interrupt_all()
        case _:
            for _ in range(random.randrange(5)):
                await checkpoint()
