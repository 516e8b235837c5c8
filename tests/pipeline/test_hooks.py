"""Stories of hooks: setup, the function, success or failure, teardown, inside the slot, their failures contained."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from functools import wraps
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import Factory, define

from clepsydra import (
    Call,
    Cancel,
    Cause,
    ExecutorSettings,
    Retry,
    Run,
    Snooze,
    Stages,
    State,
    Task,
    current_execution,
)
from clepsydra.model.events import HookFailed, StageRestarted
from clepsydra.model.job import make_work
from clepsydra.stages.worker_pool import WorkerPool
from clepsydra.storage.protocol import NewExecution

from .support import Heard, World, chain_of, slots

pytestmark = pytest.mark.anyio


def nothing() -> None:
    """A task that does nothing."""


KINDS = ["async, async hooks", "async, plain hooks", "plain, plain hooks", "plain, async hooks"]


@define(eq=False)
class Diary:
    """A task with all four hooks, of one of the kinds, that writes down what happens."""

    kind: str
    world: World = Factory(World)
    lines: list[str] = Factory(list[str])
    raising: dict[str, BaseException] = Factory(dict[str, BaseException])
    """What a hook, or `perform`, is to raise."""
    result: Any = 42
    threads: set[int] = Factory(set[int])

    def write(self, line: str) -> Any:
        assert current_execution().task == "task"
        self.lines.append(line)
        self.threads.add(threading.get_ident())
        if (error := self.raising.get(line.split()[0])) is not None:
            raise error
        return self.result

    def task(self, **options: Any) -> Task[..., Any]:
        hooks: Any = {
            "on_setup": of_run(lambda run: self.write(f"setup {run.state}")),
            "on_success": with_more(lambda run, result: self.write(f"success {result} {run.state}")),
            "on_failure": with_more(lambda run, error: self.write(f"failure {type(error).__name__} {run.state}")),
            "on_teardown": of_run(lambda run: self.write(f"teardown {run.state}")),
        }
        if self.kind.endswith("async hooks"):
            hooks = {name: in_async(hook) for name, hook in hooks.items()}

        def perform() -> Any:
            return self.write("perform")

        return Task(in_async(perform) if self.kind.startswith("async") else perform, "task", **hooks, **options)

    async def run(self, **options: Any) -> tuple[State, str | None, Heard]:
        """Enqueue it, and see it through."""
        task = self.task()
        scheduler = self.world.scheduler(tasks=[task])
        heard = Heard(scheduler)
        async with scheduler:
            handle = await scheduler.enqueue(task.call(), **options)
            await self.world.pass_time(60)
            return await handle.state(), await handle.error(), heard


def of_run(hook: Callable[[Run], Any]) -> Callable[[Run], Any]:
    return hook


def with_more(hook: Callable[[Run, Any], Any]) -> Callable[[Run, Any], Any]:
    return hook


def in_async(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same as a coroutine function that suspends; a wrapper takes what the wrapped one takes."""

    @wraps(function)
    async def suspending(*args: Any) -> Any:
        await checkpoint()
        return function(*args)

    return suspending


async def test_hooks_of_what_has_ended_at_once_have_their_own_time() -> None:
    world = World()
    ended: list[str] = []

    async def teardown() -> None:
        await current_execution().sleep(3)
        ended.append("teardown")

    async def quick() -> None:
        ended.append("quick")

    task = Task(quick, "quick", on_teardown=teardown)
    scheduler = world.scheduler(tasks=[task])
    heard = Heard(scheduler)
    async with scheduler:
        handle = await scheduler.enqueue(task.call(), timeout=1)
        await world.pass_time(10)
        assert await handle.state() is State.SUCCEEDED

    assert ended == ["quick", "teardown"]
    assert heard.of(StageRestarted) == []


@pytest.fixture(params=KINDS)
def diary(request: pytest.FixtureRequest) -> Diary:
    return Diary(request.param)


async def test_qu17_the_hooks_of_a_success_are_called_in_order_and_the_last_sees_the_final_state(diary: Diary) -> None:
    state, error, heard = await diary.run()

    assert diary.lines == ["setup running", "perform", "success 42 succeeded", "teardown succeeded"]
    assert (state, error) == (State.SUCCEEDED, None)
    assert heard.of(HookFailed) == []


async def test_qu18_on_failure_gets_the_error_of_each_attempt_and_then_comes_the_teardown(diary: Diary) -> None:
    diary.raising["perform"] = ValueError("on purpose")

    state, error, _ = await diary.run(retry=Retry(2))

    attempt = ["setup running", "perform", "failure ValueError {0}", "teardown {0}"]
    assert diary.lines == [line.format(end) for end in ("pending", "failed") for line in attempt]
    assert state is State.FAILED
    assert error is not None
    assert error.endswith("ValueError: on purpose")


async def test_qu19_a_setup_that_raises_is_the_failure_of_the_attempt(diary: Diary) -> None:
    diary.raising["setup"] = ConnectionError("no database")

    state, error, heard = await diary.run()

    assert diary.lines == ["setup running", "failure ConnectionError failed", "teardown failed"]
    assert state is State.FAILED
    assert error is not None
    assert error.endswith("ConnectionError: no database")
    assert heard.of(HookFailed) == []


@pytest.mark.parametrize(
    ("hook", "perform", "state"),
    [
        ("success", None, State.SUCCEEDED),
        ("failure", ValueError("on purpose"), State.FAILED),
        ("teardown", None, State.SUCCEEDED),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError("in the hook"), SystemExit(3)])
async def test_qu20_a_hook_that_raises_changes_nothing_and_the_teardown_runs(
    diary: Diary, hook: str, perform: BaseException | None, state: State, error: BaseException
) -> None:
    diary.raising[hook] = error
    if perform is not None:
        diary.raising["perform"] = perform

    ended, said, heard = await diary.run()

    assert (ended, diary.lines[-1]) == (state, f"teardown {state}")
    assert said is None or said.endswith("ValueError: on purpose")
    (told,) = heard.of(HookFailed)
    assert (told.hook, told.task) == (f"on_{hook}", "task")
    assert type(error).__name__ in told.error


async def test_or39_a_result_that_is_no_json_is_a_failure_for_the_hooks_and_is_tried_again(diary: Diary) -> None:
    diary.result = object()

    state, error, _ = await diary.run(retry=Retry(2))

    assert diary.lines[-2:] == ["failure InvalidArgument failed", "teardown failed"]
    assert diary.lines.count("perform") == 2
    assert state is State.FAILED
    assert error is not None
    assert "is a object; give JSON values" in error


@pytest.mark.parametrize(
    ("signal", "end"), [(Cancel("enough"), State.CANCELLED), (Snooze(timedelta(hours=1)), State.PENDING)]
)
async def test_what_is_neither_success_nor_failure_has_only_its_teardown(
    diary: Diary, signal: BaseException, end: State
) -> None:
    diary.raising["perform"] = signal
    task = diary.task()
    async with diary.world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call())
        await diary.world.pass_time(1)

        assert await handle.state() is end
    assert diary.lines == ["setup running", "perform", f"teardown {end}"]


async def test_a_plain_task_and_its_plain_hooks_have_one_thread() -> None:
    diary = Diary("plain, plain hooks")

    await diary.run()

    assert len(diary.threads) == 1
    assert diary.threads.isdisjoint({threading.get_ident()})


async def test_the_hooks_are_inside_the_slot(diary: Diary) -> None:
    diary.world.stages = slots(1)
    task = diary.task()
    async with diary.world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue([task.call()] * 3)
        await diary.world.pass_time(1)

    assert diary.lines == ["setup running", "perform", "success 42 succeeded", "teardown succeeded"] * 3


async def test_what_a_setup_puts_into_the_context_is_there_for_the_task_and_its_teardown() -> None:
    connection: ContextVar[str] = ContextVar("connection")
    seen: list[str] = []

    def look() -> None:
        seen.append(connection.get())

    task: Task[..., Any] = Task(look, "task")
    task.on_setup(lambda: connection.set("open"))
    task.on_teardown(look)
    world = World()
    async with world.scheduler(tasks=[task]) as scheduler:
        await (await scheduler.enqueue(task.call())).result(timeout=5)

    assert seen == ["open", "open"]


# Time.


def slow(world: World, seconds: float, lines: list[str], **hooks: Any) -> Task[..., Any]:
    async def perform() -> None:
        await current_execution().sleep(seconds)
        lines.append("performed")

    task = Task(perform, "slow", **hooks)

    @task.on_failure
    async def tell(run: Run, error: BaseException) -> None:
        await run.sleep(1)
        lines.append(f"{type(error).__name__}: {error}")

    @task.on_teardown
    async def clean_up(run: Run) -> None:
        await run.sleep(1)
        lines.append(f"teardown {run.state} at {(world.clock.time - world.start).total_seconds():g}")

    return task


async def test_a_task_that_times_out_has_its_hooks_and_its_slot_until_they_are_done() -> None:
    lines: list[str] = []
    world = World(stages=slots(1))
    task = slow(world, 60, lines)
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), timeout=5)
        await scheduler.enqueue(world.tasks["note"].call())
        await world.pass_time(10)

        assert await handle.state() is State.FAILED
    assert lines == ["TimeoutError: timed out after 5 s", "teardown failed at 7"]
    assert world.times("note") == [7]


async def test_a_setup_is_within_the_timeout() -> None:
    lines: list[str] = []
    world = World()
    task = slow(world, 1, lines, on_setup=of_run(lambda run: run.sleep(60)))
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue(task.call(), timeout=5)
        await world.pass_time(10)

    assert lines == ["TimeoutError: timed out after 5 s", "teardown failed at 7"]


async def test_a_setup_of_a_plain_task_that_waits_on_the_loop_is_within_the_timeout() -> None:
    lines: list[str] = []

    def perform() -> None:
        lines.append("performed")

    task: Task[..., Any] = Task(perform, "task", on_setup=of_run(lambda run: run.sleep(60)))
    task.on_failure(with_more(lambda run, error: lines.append(str(error))))
    world = World()
    async with world.scheduler(tasks=[task]) as scheduler:
        await scheduler.enqueue(task.call(), timeout=5)
        await world.pass_time(10)

    assert lines == ["timed out after 5 s"]


async def test_a_task_that_is_cancelled_has_its_teardown() -> None:
    lines: list[str] = []
    world = World()
    task = slow(world, 60, lines)
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(5)
        await handle.cancel()
        await world.pass_time(5)

        assert await handle.state() is State.CANCELLED
    assert lines == ["teardown cancelled at 6"]


async def test_cancelling_while_the_hooks_are_called_does_not_cut_them_short() -> None:
    lines: list[str] = []
    world = World()
    task = slow(world, 1, lines)
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), timeout=1.5)
        await world.pass_time(1.2)
        await handle.cancel()
        await world.pass_time(5)

        assert chain_of(scheduler).pool.statistics().running == 0
    assert lines == ["performed", "teardown succeeded at 2"]


async def test_a_shutdown_leaves_a_task_that_it_interrupts_its_teardown() -> None:
    lines: list[str] = []
    world = World(stages=Stages(grace=10, loop_blocked=None))
    task = slow(world, 60, lines)
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        await scheduler.enqueue(task.call())
        await world.pass_time(5)

    assert lines == ["teardown pending at 16"]


async def test_a_hook_that_takes_longer_than_its_grace_is_left_and_the_next_one_called() -> None:
    lines: list[str] = []
    world = World(stages=Stages(executor=ExecutorSettings(concurrency=1, hook_grace=3), loop_blocked=None))
    task = slow(world, 1, lines, on_success=of_run(lambda run: run.sleep(60)))
    scheduler = world.scheduler(tasks=[task])
    heard = Heard(scheduler)
    async with scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(10)

        assert await handle.state() is State.SUCCEEDED
    assert lines == ["performed", "teardown succeeded at 5"]
    (told,) = heard.of(HookFailed)
    assert (told.hook, told.error) == ("on_success", "it took longer than 3 s")


async def until(world: World, happened: Callable[[], bool]) -> None:
    """Let the loop turn until something has happened in a thread."""
    with anyio.fail_after(10):
        while not happened():
            await world.clock.sleep(0)


@pytest.mark.parametrize("in_a_hook", [False, True])
async def test_a_thread_that_hangs_costs_a_thread_and_its_hooks_are_called_when_it_comes_back(in_a_hook: bool) -> None:
    began, gate, lines = threading.Event(), threading.Event(), list[str]()

    def hang() -> int:
        began.set()
        gate.wait(10)
        return 42

    def perform() -> int:
        return 42 if in_a_hook else hang()

    task: Task[..., Any] = Task(perform, "task", on_success=hang if in_a_hook else None)
    task.on_failure(with_more(lambda run, error: lines.append(f"{type(error).__name__} {run.state}")))
    task.on_teardown(of_run(lambda run: lines.append(f"teardown {run.state}")))
    world = World(stages=Stages(executor=ExecutorSettings(concurrency=1, hook_grace=3), loop_blocked=None))
    scheduler = world.scheduler(tasks=[task])
    heard = Heard(scheduler)
    async with scheduler:
        handle = await scheduler.enqueue(task.call(), timeout=None if in_a_hook else 6)
        await until(world, began.is_set)
        (run,) = chain_of(scheduler).pool.running().values()
        run.rest()  # it waits for the test, so time may pass
        await world.pass_time(8)
        state, abandoned = await handle.state(), chain_of(scheduler).pool.statistics().abandoned
        gate.set()
        await until(world, lambda: bool(lines) and lines[-1].startswith("teardown"))

    assert abandoned == 1
    if in_a_hook:
        assert (state, lines) == (State.SUCCEEDED, ["teardown succeeded"])
        assert [told.hook for told in heard.of(HookFailed)] == ["on_success"]
    else:
        assert (state, lines) == (State.FAILED, ["TimeoutError failed", "teardown failed"])


async def test_a_call_that_fits_no_more_has_failed_for_the_hooks_too(diary: Diary) -> None:
    task = diary.task()
    async with diary.world.scheduler(tasks=[task]) as scheduler:
        runtime = chain_of(scheduler)
        work = make_work(Call("task", '{"gone":1}'))
        now = diary.world.clock.now()
        await runtime.lane.write(
            lambda store: store.add_executions([NewExecution("old", work, Cause.ENQUEUE, now)], now), counted=False
        )
        runtime.look_into_store()
        await diary.world.pass_time(1)

    assert diary.lines == ["failure InvalidArgument failed", "teardown failed"]


async def test_a_plain_function_that_gives_an_awaitable_has_its_hooks_after_that() -> None:
    lines: list[str] = []

    async def inner() -> int:
        await current_execution().sleep(1)
        lines.append("inner")
        return 42

    def perform() -> Any:
        return inner()

    task: Task[..., Any] = Task(perform, "task", on_setup=lambda: lines.append("setup"))
    task.on_success(with_more(lambda run, result: lines.append(f"success {result}")))
    task.on_teardown(of_run(lambda run: lines.append(f"teardown {run.state}")))
    world = World()
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(2)
        assert await handle.result() == 42

    assert lines == ["setup", "inner", "success 42", "teardown succeeded"]


async def test_nothing_of_a_failed_attempt_stays_alive(diary: Diary) -> None:
    class Heavy(Exception):
        pass

    errors: list[weakref.ref[Heavy]] = []

    def perform() -> None:
        error = Heavy()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    hooks = diary.task()
    task: Task[..., Any] = Task(in_async(perform) if diary.kind.startswith("async") else perform, "task")
    task.hooks = hooks.hooks
    gc.disable()
    try:
        async with diary.world.scheduler(tasks=[task]) as scheduler:
            handle = await scheduler.enqueue(task.call())
            await diary.world.pass_time(1)
            assert await handle.state() is State.FAILED
        for thread in [thread for thread in threading.enumerate() if thread.name.startswith("clepsydra-task")]:
            thread.join(30)  # it lets go of the error after it has told of it
        assert [error() for error in errors] == [None]
    finally:
        gc.enable()


async def test_hooks_of_a_plain_function_whose_time_was_over_before_it_began_are_waited_for() -> None:
    world = World()
    seen: list[tuple[str, int]] = []

    def look(run: Run) -> None:
        pool = chain_of(scheduler).pool
        seen.append((run.task, pool.statistics().abandoned))

    task: Task[..., Any] = Task(print, "task", on_failure=look, on_teardown=look)
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), at=world.at(-60), timeout=30, timeout_from="nominal")
        await world.clock.settle()
        assert await handle.state() is State.FAILED

    assert seen == [("task", 0)] * 2


async def test_an_awaited_hook_of_a_plain_function_that_takes_too_long_is_told_once() -> None:
    async def endless(run: Run) -> None:
        await run.sleep(60)

    task: Task[..., Any] = Task(nothing, "task", on_success=endless)
    world = World(stages=Stages(executor=ExecutorSettings(hook_grace=3), loop_blocked=None))
    scheduler = world.scheduler(tasks=[task])
    heard = Heard(scheduler)
    async with scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(10)
        assert await handle.state() is State.SUCCEEDED

    assert [(event.hook, event.error) for event in heard.of(HookFailed)] == [("on_success", "it took longer than 3 s")]


async def test_a_plain_function_is_not_called_when_its_setup_ends_just_as_it_is_stopped() -> None:
    lines: list[str] = []

    async def setup(run: Run) -> None:
        chain_of(scheduler).pool.cancel(run.attempt_id, "enough")  # and no more is waited for

    def perform() -> None:
        lines.append("performed")

    task: Task[..., Any] = Task(perform, "task", on_setup=setup)
    task.on_teardown(of_run(lambda run: lines.append(f"teardown {run.state}")))
    world = World()
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(1)
        assert await handle.state() is State.CANCELLED

    assert lines == ["teardown cancelled"]


@pytest.mark.parametrize("when", ["while it is made", "as it comes to the loop", "before it goes on there"])
async def test_what_a_plain_function_gives_is_not_awaited_once_it_is_stopped_and_its_hooks_are_called(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    back = WorkerPool._back_from_thread  # pyright: ignore[reportPrivateUsage]

    async def inner() -> None:
        lines.append("inner")

    def stop(moment: str, run: Run) -> None:
        if moment == when:
            chain_of(scheduler).pool.cancel(run.attempt_id, "enough")

    def on_its_way(pool: WorkerPool, run: Run, value: Any, error: BaseException | None) -> None:
        stop("as it comes to the loop", run)
        back(pool, run, value, error)
        stop("before it goes on there", run)

    def perform() -> Any:
        run, told = current_execution(), threading.Event()
        chain_of(scheduler).loop.call_soon(stop, "while it is made", run)
        chain_of(scheduler).loop.call_soon(told.set)
        told.wait(10)
        return inner()

    monkeypatch.setattr(WorkerPool, "_back_from_thread", on_its_way)
    task: Task[..., Any] = Task(perform, "task", on_setup=lambda: lines.append("setup"))
    task.on_teardown(of_run(lambda run: lines.append(f"teardown {run.state}")))
    world = World()
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(1)
        assert await handle.state() is State.CANCELLED

    assert lines == ["setup", "teardown cancelled"]


async def test_two_awaited_hooks_of_a_plain_function_may_each_take_their_whole_grace() -> None:
    async def endless(run: Run) -> None:
        await run.sleep(60)

    task: Task[..., Any] = Task(nothing, "task", on_success=endless, on_teardown=endless)
    world = World(stages=Stages(executor=ExecutorSettings(hook_grace=3), loop_blocked=None))
    scheduler = world.scheduler(tasks=[task])
    heard = Heard(scheduler)
    async with scheduler:
        await scheduler.enqueue(task.call())
        await world.pass_time(10)
        assert chain_of(scheduler).pool.statistics().abandoned == 0

    assert [event.hook for event in heard.of(HookFailed)] == ["on_success", "on_teardown"]


@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_shutdown_waits_for_hooks_as_long_as_they_have(is_plain: bool) -> None:
    lines: list[str] = []
    world = World(stages=Stages(executor=ExecutorSettings(hook_grace=30), grace=1, loop_blocked=None))

    async def long(run: Run) -> None:
        await run.sleep(25)
        lines.append(f"{run.state}")

    def plain() -> None:
        pass

    task: Task[..., Any] = Task(plain if is_plain else in_async(plain), "task", on_success=long, on_teardown=long)
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        handle = await scheduler.enqueue(task.call())
        await world.pass_time(1)

    assert lines == ["succeeded", "succeeded"]
    assert world.storage.get_executions([handle.id])[handle.id].state is State.SUCCEEDED
