"""Stories of executions: overlap, retries, snoozing, cancelling, timeouts, limits, concurrency, keys and results."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from clepsydra import (
    DuplicateKey,
    Every,
    ExecutionFailed,
    InvalidArgument,
    Kind,
    Misfire,
    Once,
    Overlap,
    Retry,
    State,
    Task,
    current_execution,
)
from clepsydra.model.events import ExecutionRetried
from clepsydra.model.signals import Cancel, Snooze

from .support import Heard, World, chain_of, executions_of, kinds, slots, states, violations

pytestmark = pytest.mark.anyio


# Overlap.


@pytest.mark.parametrize(
    ("overlap", "starts"),
    [
        (Overlap.SKIP, [2, 6, 10]),
        (Overlap.ALLOW, [2, 4, 6, 8, 10]),
        (Overlap.BUFFER_ONE, [2, 5, 8, 11]),
        (Overlap.BUFFER_ALL, [2, 5, 8, 11, 14]),
    ],
)
async def test_overlap_decides_what_becomes_of_a_time_that_comes_too_early(
    overlap: Overlap, starts: list[float]
) -> None:
    world = World()
    job = world.job("slow", Every(2), "work", args={"seconds": 3}, overlap=overlap, limit=5)
    async with world.running_with(job) as scheduler:
        await world.pass_time(30)
        assert await violations(scheduler) == []

    assert world.times("slow") == starts


async def test_overlap_cancel_running_makes_room_for_the_newest() -> None:
    world = World()
    job = world.job("slow", Every(2), "work", args={"seconds": 3}, overlap=Overlap.CANCEL_RUNNING, limit=3)
    async with world.running_with(job) as scheduler:
        await world.pass_time(15)
        assert await states(scheduler, "slow") == [State.CANCELLED, State.CANCELLED, State.SUCCEEDED]
        assert await violations(scheduler) == []

    assert world.times("slow") == [2, 4, 6]
    assert world.cut == ["slow", "slow"]


async def test_max_running_says_how_many_may_overlap() -> None:
    world = World()
    async with world.running_with(world.job("slow", Every(1), "work", args={"seconds": 5.5}, max_running=2)):
        await world.pass_time(6)

    assert world.times("slow") == [1, 2]


# Attempts.


async def test_a_failing_task_is_tried_again_after_its_backoff() -> None:
    world = World()
    retry = Retry(attempts=4, backoff=10, factor=2, jitter=0)
    async with world.running_with(world.job("job", Once(world.at(1)), "fail", retry=retry)) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(100)
        (execution,) = await executions_of(scheduler, "job")
        assert (execution.state, execution.attempt) == (State.FAILED, 4)
        assert await kinds(scheduler, "job") == [Kind.FIRED]

    assert world.times("job") == [1, 11, 31, 71]
    assert [ran.attempt for ran in world.ran] == [1, 2, 3, 4]
    assert len(heard.of(ExecutionRetried)) == 3


async def test_a_retry_does_not_wait_for_the_next_time_of_its_job_nor_is_it_skipped_by_it() -> None:
    world = World()
    retry = Retry(attempts=2, backoff=3, jitter=0)
    async with world.running_with(world.job("job", Every(10), "fail", retry=retry)):
        await world.pass_time(25)

    assert world.times("job") == [10, 13, 20, 23]


async def test_an_error_to_give_up_on_is_not_tried_again() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["fail"].call(), retry=Retry(attempts=5, give_up_on=[ValueError]))
        with pytest.raises(ExecutionFailed, match="on purpose"):
            await handle.result(timeout=1)


async def play(function: Any, seconds: float, **options: Any) -> tuple[World, State, int]:
    """Enqueue a function once and let time pass; what has become of it."""
    world = World()
    task: Task[..., Any] = Task(function, "played")
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(), **options)
        await world.pass_time(seconds)
        execution = await handle.fetch()
    return world, execution.state, execution.attempt


@pytest.mark.parametrize("raised", [True, False])
async def test_a_task_that_snoozes_runs_again_later_and_uses_no_attempt(raised: bool) -> None:
    seen: list[float] = []

    async def sleepy() -> Snooze | None:
        seen.append(current_execution().late_by.total_seconds())
        if len(seen) == 3:
            return None
        if raised:
            raise Snooze(5)
        return Snooze(5)

    _, state, attempt = await play(sleepy, 20)

    assert (state, attempt) == (State.SUCCEEDED, 1)
    assert seen == [0, 5, 10]


async def test_a_task_may_cancel_itself_with_a_reason() -> None:
    async def gives_up() -> None:
        raise Cancel("the customer has left")

    _, state, _ = await play(gives_up, 1, retry=Retry(attempts=3))

    assert state is State.CANCELLED


async def test_or34_an_async_task_is_stopped_at_its_timeout_and_tried_again() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(
            world.tasks["wait"].call(), timeout=5, retry=Retry(attempts=2, backoff=2, jitter=0)
        )
        await world.pass_time(20)
        execution = await handle.fetch()

    assert execution.state is State.FAILED
    assert "timed out after 5 s" in (execution.error or "")
    assert world.times("wait") == [0, 7]


async def test_a_thread_that_ignores_its_timeout_is_abandoned_and_its_slot_is_free() -> None:
    world = World(stages=slots(1))
    release = threading.Event()

    def deaf() -> None:
        # Virtual time stands still while a thread is at work, unless it rests; this one is let go by the next task.
        release.wait(timeout=10)

    task: Task[..., None] = Task(deaf, "deaf")

    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call())
        while not chain_of(scheduler).pool.statistics().running:
            await world.clock.sleep(0)
        assert await handle.cancel()
        release.set()
        await world.pass_time(1)
        assert await handle.state() is State.CANCELLED
        assert chain_of(scheduler).pool.busy("default") == 0


async def test_a_plain_function_runs_in_a_thread_and_its_result_is_kept() -> None:
    loop_thread = threading.get_ident()

    def plain(count: int) -> dict[str, object]:
        return {
            "count": count,
            "elsewhere": threading.get_ident() != loop_thread,
            "attempt": current_execution().attempt,
        }

    world = World()
    task: Task[..., Any] = Task(plain, "plain")
    async with world.scheduler(tasks=[task]) as scheduler:
        handle = await scheduler.enqueue(task.call(3))
        assert await handle.result() == {"count": 3, "elsewhere": True, "attempt": 1}


async def test_what_is_not_started_by_its_start_by_expires() -> None:
    world = World(stages=slots(1))
    async with world.running_with(world.job("late", Once(world.at(2)), start_by=3)) as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=10))
        handle = await scheduler.enqueue(world.tasks["note"].call(), start_by=5)
        await world.pass_time(12)
        assert await handle.state() is State.EXPIRED
        # Its job is judged when a slot is free: then it is long past.
        assert await kinds(scheduler, "late") == [Kind.EXPIRED]

    assert world.names() == ["work"]


# Limit, jitter.


async def test_a_job_with_a_limit_is_finished_after_so_many_fires() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1), limit=3)) as scheduler:
        await world.pass_time(10)
        record = scheduler.get_job("job")
        assert (record.state, record.reason, record.fired) == ("stopped", "limit", 3)

    assert world.times("job") == [1, 2, 3]


async def test_the_limit_holds_over_restarts() -> None:
    world = World()
    for _ in range(4):
        async with world.scheduler(world.job("job", Every(1), limit=5)):
            await world.pass_time(2)

    assert world.times("job") == [1, 2, 3, 4, 5]


async def test_jitter_moves_the_start_and_not_the_nominal_time_the_same_way_each_time() -> None:
    runs: list[list[float]] = []
    for _ in range(2):
        world = World()
        async with world.running_with(world.job("job", Every(60), jitter=30)):
            await world.pass_time(60 * 20)
        assert world.nominals("job") == [60 * (index + 1) for index in range(len(world.ran))]
        assert all(0 <= ran.at - 60 * (index + 1) <= 30 for index, ran in enumerate(world.ran))
        runs.append(world.times("job"))

    assert runs[0] == runs[1]
    assert len({round(at % 60) for at in runs[0]}) > 5


# Concurrency.


async def test_each_queue_has_slots_of_its_own() -> None:
    world = World(stages=slots(1, queues={"mail": 2}))
    async with world.running_with() as scheduler:
        work = world.tasks["work"]
        await scheduler.enqueue([work.call(seconds=1) for _ in range(4)])
        await scheduler.enqueue([work.call(seconds=1) for _ in range(4)], queue="mail")
        await world.clock.settle()
        pool = chain_of(scheduler).pool
        assert (pool.busy("default"), pool.busy("mail")) == (1, 2)
        await world.pass_time(4)

    assert len(world.ended) == 8


async def test_a_limit_binds_all_queues_together() -> None:
    world = World(stages=slots(5, limit=3))
    async with world.running_with() as scheduler:
        for queue in ("a", "b", "c"):
            await scheduler.enqueue([world.tasks["work"].call(seconds=1) for _ in range(5)], queue=queue)
        await world.pass_time(10)

    assert world.most_running == 3
    assert len(world.ended) == 15


async def test_tune_takes_effect_at_once_for_what_starts() -> None:
    world = World(stages=slots(1))
    async with world.running_with() as scheduler:
        await scheduler.enqueue([world.tasks["work"].call(seconds=10) for _ in range(20)])
        await world.pass_time(1)
        assert world.running == 1
        scheduler.tune(concurrency=5)
        await world.clock.settle()
        assert world.running == 5
        scheduler.tune(concurrency=2)
        await world.pass_time(10)
        assert world.running == 2
        with pytest.raises(InvalidArgument, match="concurrency"):
            scheduler.tune(concurrency=0)
        scheduler.stop(hard=True)


async def test_tune_takes_all_that_it_is_given_or_none() -> None:
    world = World(stages=slots(1))
    async with world.running_with() as scheduler:
        await scheduler.enqueue([world.tasks["work"].call(seconds=10) for _ in range(20)])
        await world.pass_time(1)
        every_wrong: list[dict[str, Any]] = [{"queues": {"other": 0}}, {"limit": -1}, {"tasks": {"work": 0}}]
        for wrong in every_wrong:
            with pytest.raises(InvalidArgument):
                scheduler.tune(concurrency=5, **wrong)
        await world.pass_time(1)
        assert world.running == 1
        scheduler.stop(hard=True)


async def test_jq12_a_higher_priority_starts_first() -> None:
    world = World(stages=slots(1))
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=1))
        await world.clock.settle()
        for text, priority in (("low", 1), ("high", 5), ("middle", 3)):
            await scheduler.enqueue(world.tasks["say"].call(text), priority=priority)
        await world.pass_time(2)

    assert world.names() == ["work", "high", "middle", "low"]


async def test_overdue_jobs_and_enqueued_work_share_the_slots_by_priority() -> None:
    world = World(stages=slots(1))
    async with world.running_with(world.job("job", Once(world.at(1)), priority=3)) as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=2))
        await world.clock.settle()
        for text, priority in (("low", 1), ("high", 5)):
            await scheduler.enqueue(world.tasks["say"].call(text), priority=priority)
        await world.pass_time(3)

    assert world.names() == ["work", "high", "job", "low"]


# Enqueued work.


async def test_an_enqueued_call_runs_once_and_gives_its_result() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["say"].call("hello"))
        assert await handle.result(timeout=1) == "hello"
        assert handle.created


async def test_a_handle_gives_the_error_with_its_traceback_or_none() -> None:
    world = World()
    async with world.running_with() as scheduler:
        failing = await scheduler.enqueue(world.tasks["fail"].call())
        good = await scheduler.enqueue(world.tasks["note"].call())
        put_off = await scheduler.enqueue(world.tasks["note"].call(), after=60)
        await put_off.cancel()

        error = await failing.error(timeout=1)
        assert error is not None
        assert error.startswith("Traceback (most recent call last):")
        assert 'raise ValueError("on purpose")' in error
        assert error.endswith("ValueError: on purpose")
        assert await good.error(timeout=1) is None
        assert await put_off.error() == "cancelled on request"
        with pytest.raises(ExecutionFailed, match="ValueError: on purpose"):
            await failing.result()


async def test_a_call_for_a_time_that_has_passed_runs_now() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["note"].call(), at=world.at(-3600))
        await world.clock.settle()

    assert world.times("note") == [0]


async def test_a_call_may_be_put_off() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await scheduler.enqueue(world.tasks["say"].call("after"), after=10)
        await scheduler.enqueue(world.tasks["say"].call("at"), at=world.at(5))
        await world.pass_time(20)

    assert (world.times("at"), world.times("after")) == ([5], [10])


async def test_waiting_for_an_execution_times_out_on_the_virtual_clock() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["say"].call("late"), after=100)
        with pytest.raises(TimeoutError):
            await world.clock_moves(handle.wait(timeout=3))
        assert world.clock.monotonic() == 3


async def test_a_key_is_unique_among_the_unfinished() -> None:
    world = World()
    async with world.running_with() as scheduler:
        say = world.tasks["say"]
        first = await scheduler.enqueue(say.call("first"), key="k", after=5)
        kept = await scheduler.enqueue(say.call("kept"), key="k")
        replaced = await scheduler.enqueue(say.call("replaced"), key="k", on_conflict="replace", after=2)
        with pytest.raises(DuplicateKey):
            await scheduler.enqueue(say.call("refused"), key="k", on_conflict="raise")
        await world.pass_time(10)
        again = await scheduler.enqueue(say.call("again"), key="k")
        await world.pass_time(1)

    assert (first.id, first.created, kept.created) == (kept.id, True, False)
    assert (replaced.id, again.created) == (first.id, True)
    assert world.names() == ["replaced", "again"]


async def test_a_task_may_enqueue_and_wait_for_another() -> None:
    world = World()

    async def outer() -> str:
        handle = await scheduler.enqueue(world.tasks["say"].call("inner"))
        return f"outer of {await handle.result()}"

    task: Task[[], Any] = Task(outer, "outer")
    scheduler = world.scheduler(tasks=[task])
    async with scheduler:
        handle = await scheduler.enqueue(task.call())
        assert await handle.result(timeout=5) == "outer of inner"


async def test_failed_executions_can_be_given_another_try() -> None:
    world = World()
    async with world.running_with() as scheduler:
        handle = await scheduler.enqueue(world.tasks["fail"].call())
        await handle.wait(timeout=1)
        assert await scheduler.retry_executions(ids=[handle.id]) == [handle.id]
        await world.pass_time(1)
        assert await handle.state() is State.FAILED

    assert len(world.times("fail")) == 2


@pytest.mark.parametrize("command", ["remove_job", "cancel"])
async def test_who_waits_for_an_execution_hears_that_it_was_settled_by_a_command(command: str) -> None:
    world = World(stages=slots(1))
    async with world.running_with(world.job("job")) as scheduler:
        await scheduler.enqueue(world.tasks["work"].call(seconds=50))
        await world.clock.settle()
        handle = await scheduler.run_job("job")

        async def end_it() -> None:
            await (scheduler.remove_job("job") if command == "remove_job" else handle.cancel())

        execution = await waited_while(world, handle.wait(timeout=20), end_it)
        assert execution.finished
        assert world.clock.monotonic() == 0


async def waited_while(world: World, waiting: Any, then: Any) -> Any:
    answer: list[Any] = []

    async def wait() -> None:
        answer.append(await waiting)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await world.clock.settle()
        await then()
        await world.clock.settle()
        if not answer:
            await world.pass_time(30)
    return answer[0]


async def test_who_waits_for_an_execution_hears_that_no_node_takes_it() -> None:
    world = World()
    async with world.running_with(world.job("job", run_on="nowhere"), strategies={"nowhere": Nowhere()}) as scheduler:
        handle = await scheduler.run_job("job")
        execution = await world.clock_moves(handle.wait(timeout=20))
        assert execution.state is State.SKIPPED
        assert world.clock.monotonic() < 1


class Nowhere:
    def choose(self, candidate: object, nodes: object) -> list[str]:
        return []


# Misfire, beyond a downtime (which the QE cases tell).


async def test_a_saturated_queue_is_judged_like_a_downtime() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("tick", Every(1)), world.job("wall", Once(world.at(2.5)), "work", args={"seconds": 10})
    ) as scheduler:
        await world.pass_time(15)
        assert await violations(scheduler) == []
        assert (await kinds(scheduler, "tick")).count(Kind.COALESCED) == 9

    assert world.nominals("tick") == [1, 2, 12, 13, 14, 15]


async def test_a_window_makes_older_times_missed_and_a_limit_keeps_the_last_few() -> None:
    for misfire, expected in (
        (Misfire("all", window=5, grace=0), [1, 2, 8, 9, 10, 11, 12, 13, 14]),
        (Misfire("all", limit=2, grace=0), [1, 2, 11, 12, 13, 14]),
        (Misfire("latest", window=5, grace=0), [1, 2, 12, 13, 14]),
    ):
        world = World()
        job = world.job("tick", Every(1), misfire=misfire)
        async with world.scheduler(job):
            await world.pass_time(2)
        world.clock.suspend(10.5)
        async with world.scheduler(job) as scheduler:
            await world.pass_time(2)
            assert await violations(scheduler) == []
            assert Kind.MISSED in await kinds(scheduler, "tick") or misfire.take == "latest"
        assert world.nominals("tick") == expected


async def test_a_completion_driven_job_waits_its_interval_after_each_end() -> None:
    world = World()
    async with world.running_with(
        world.job("job", Every(5, after_completion=True), "work", args={"seconds": 3})
    ) as scheduler:
        await world.pass_time(30)
        assert await violations(scheduler) == []

    assert world.times("job") == [5, 13, 21, 29]


async def test_a_completion_driven_job_goes_on_after_a_failure_and_a_restart() -> None:
    world = World()
    for _ in range(2):
        async with world.scheduler(world.job("job", Every(5, after_completion=True), "fail")):
            await world.pass_time(12)

    assert world.times("job") == [5, 10, 15, 20]
