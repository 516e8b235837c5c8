"""The virtual clock moves when told, only at rest, and says why when it cannot."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.lowlevel import checkpoint

from clepsydra.model.clock import Clock
from clepsydra.model.errors import InvalidArgument
from clepsydra.testing.clock import ClockInUse, ClockMiscounted, ClockStalled, VirtualClock

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


async def started(group: anyio.abc.TaskGroup, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start a task and let it run to its first wait."""
    group.start_soon(run)
    for _ in range(3):
        await checkpoint()


async def test_it_is_a_clock() -> None:
    clock: Clock = VirtualClock()

    assert clock.monotonic() == 0


async def test_it_starts_where_it_is_told() -> None:
    at = datetime(2024, 2, 29, 12, tzinfo=UTC)

    assert VirtualClock(at).time == at
    assert VirtualClock().time == START


async def test_a_naive_start_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="start="):
        VirtualClock(datetime(2024, 1, 1))


async def test_advance_moves_both_clocks_by_the_length() -> None:
    clock = VirtualClock()

    await clock.advance(timedelta(hours=1))
    await clock.advance(0.5)

    assert clock.time == START + timedelta(hours=1, seconds=0.5)
    assert clock.monotonic() == 3600.5


async def test_advance_to_moves_to_the_wall_time() -> None:
    clock = VirtualClock()

    await clock.advance_to(START + timedelta(days=1))

    assert clock.time == START + timedelta(days=1)


async def test_advance_to_holds_although_the_wall_clock_is_stepped_on_the_way() -> None:
    clock = VirtualClock()

    async def step_back() -> None:
        await clock.sleep(60)
        clock.step(timedelta(minutes=-5))

    async with anyio.create_task_group() as group:
        await started(group, step_back)
        await clock.advance_to(START + timedelta(minutes=10))

    assert clock.time == START + timedelta(minutes=10)
    assert clock.monotonic() == 15 * 60


async def test_time_does_not_go_back() -> None:
    clock = VirtualClock()

    with pytest.raises(InvalidArgument, match="length="):
        await clock.advance(-1)
    with pytest.raises(InvalidArgument, match="at="):
        await clock.advance_to(START - timedelta(seconds=1))


async def test_step_moves_the_wall_clock_only_and_wakes_nobody() -> None:
    clock = VirtualClock()
    woken: list[float] = []

    async def sleeper() -> None:
        await clock.sleep(10)
        woken.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        await started(group, sleeper)
        clock.step(timedelta(minutes=1))
        await clock.settle()
        assert woken == []
        await clock.advance(10)

    assert woken == [10]
    assert clock.time == START + timedelta(seconds=70)


async def test_suspend_moves_the_wall_clock_only_and_forward_only() -> None:
    clock = VirtualClock()

    clock.suspend(timedelta(hours=8))

    assert (clock.time, clock.monotonic()) == (START + timedelta(hours=8), 0)
    with pytest.raises(InvalidArgument, match="length="):
        clock.suspend(-1)


async def test_sleepers_wake_at_their_times_in_order_of_deadline_then_of_registration() -> None:
    clock = VirtualClock()
    woken: list[tuple[str, float]] = []

    def sleeper(name: str, seconds: float) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            with clock.wake_after(seconds) as waiting:
                await anyio.sleep_forever()
            woken.append((name, clock.monotonic()))
            assert waiting.fired
            clock.activity.ended()

        return run

    async with anyio.create_task_group() as group:
        await started(group, sleeper("third", 3))
        await started(group, sleeper("first", 1))
        await started(group, sleeper("second", 2))
        await clock.advance(2.5)
        assert woken == [("first", 1), ("second", 2)]
        await clock.advance(0.5)

    assert woken == [("first", 1), ("second", 2), ("third", 3)]


async def test_everything_due_has_happened_when_advance_returns() -> None:
    clock = VirtualClock()
    turns: list[float] = []

    async def every_second() -> None:
        while True:
            await clock.sleep(1)
            turns.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        await started(group, every_second)
        await clock.advance(5)
        assert turns == [1, 2, 3, 4, 5]
        group.cancel_scope.cancel()


async def test_time_stands_still_while_something_is_under_way() -> None:
    clock = VirtualClock()
    seen: list[float] = []
    may_end = anyio.Event()

    async def worker() -> None:
        clock.activity.began()
        await may_end.wait()
        seen.append(clock.monotonic())
        clock.activity.ended()

    async def mover() -> None:
        await clock.advance(10)
        seen.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        await started(group, worker)
        await started(group, mover)
        may_end.set()

    assert seen == [0, 10]


async def test_time_stands_still_while_a_thread_works() -> None:
    clock = VirtualClock()
    seen: list[float] = []

    async def call_the_store() -> None:
        clock.activity.began()
        seen.append(await anyio.to_thread.run_sync(clock.monotonic))
        clock.activity.ended()

    async with anyio.create_task_group() as group:
        await started(group, call_the_store)
        await clock.advance(10)

    assert seen == [0]


async def test_a_message_is_dealt_with_before_time_goes_on() -> None:
    clock = VirtualClock()
    received: list[tuple[int, float]] = []
    send, receive = anyio.create_memory_object_stream[int](10)

    async def sender() -> None:
        for number in range(3):
            await clock.sleep(1)
            clock.activity.began()
            send.send_nowait(number)
        send.close()

    async def receiver() -> None:
        async for number in receive:
            await checkpoint()
            received.append((number, clock.monotonic()))
            clock.activity.ended()

    async with anyio.create_task_group() as group:
        await started(group, receiver)
        await started(group, sender)
        await clock.advance(10)
    receive.close()

    assert received == [(0, 1), (1, 2), (2, 3)]


async def test_a_wait_that_the_clock_ends_is_fired_and_expired_and_counted() -> None:
    clock = VirtualClock()
    ends: list[tuple[bool, bool, int]] = []

    async def waiter() -> None:
        with clock.wake_after(1) as waiting:
            await anyio.sleep_forever()
        ends.append((waiting.fired, waiting.expired, clock.activity.count))
        clock.activity.ended()

    async with anyio.create_task_group() as group:
        await started(group, waiter)
        await clock.advance(1)

    assert ends == [(True, True, 1)]
    assert clock.activity.count == 0


async def test_a_wait_that_ends_before_its_time_is_never_fired() -> None:
    clock = VirtualClock()
    ready = anyio.Event()
    ends: list[tuple[bool, bool]] = []

    async def waiter() -> None:
        with clock.wake_after(10) as waiting:
            await ready.wait()
        ends.append((waiting.fired, waiting.expired))

    async with anyio.create_task_group() as group:
        await started(group, waiter)
        ready.set()
        await clock.advance(20)

    assert ends == [(False, False)]
    assert clock.activity.count == 0


async def test_a_wait_without_end_is_ended_by_what_it_waits_for() -> None:
    clock = VirtualClock()
    ready = anyio.Event()

    async def waiter() -> None:
        for seconds in (None, float("inf")):
            with clock.wake_after(seconds) as waiting:
                await ready.wait()
            assert not waiting.fired

    async with anyio.create_task_group() as group:
        await started(group, waiter)
        await clock.advance(timedelta(days=1000))
        ready.set()


async def test_a_wait_of_nothing_ends_at_once_although_nobody_moves_the_clock() -> None:
    clock = VirtualClock()

    with clock.wake_after(0) as waiting:
        await anyio.sleep_forever()

    assert (waiting.fired, waiting.expired, clock.activity.count) == (True, True, 1)


async def test_a_sleep_of_nothing_returns_although_nobody_moves_the_clock() -> None:
    clock = VirtualClock()

    await clock.sleep(0)
    await clock.sleep(-1)

    assert clock.activity.count == 0


async def test_a_wait_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="seconds="):
        await VirtualClock().sleep(float("nan"))


async def test_a_wait_shorter_than_a_microsecond_is_still_a_wait() -> None:
    clock = VirtualClock()

    async def sleeper() -> None:
        await clock.sleep(1e-9)

    async with anyio.create_task_group() as group:
        await started(group, sleeper)
        await clock.advance(0.000001)

    assert clock.monotonic() == 0.000001


async def test_a_waiter_cancelled_from_outside_after_the_clock_fired_leaves_nothing_counted() -> None:
    clock = VirtualClock()
    waiting = clock.wake_after(0)

    with anyio.CancelScope() as outside:
        with waiting:
            outside.cancel()
            await anyio.sleep_forever()
        pytest.fail("the outer cancellation goes on")

    assert outside.cancelled_caught
    assert not waiting.fired
    assert clock.activity.count == 0


async def test_a_waiter_that_fails_after_the_clock_fired_leaves_nothing_counted() -> None:
    clock = VirtualClock()

    with pytest.raises(EOFError), clock.wake_after(0):
        raise EOFError

    assert clock.activity.count == 0


async def test_a_message_that_comes_as_the_clock_fires_is_not_lost() -> None:
    clock = VirtualClock()
    send, receive = anyio.create_memory_object_stream[str](1)
    received: list[str] = []

    async def waiter() -> None:
        owed = 0
        while len(received) < 1:
            clock.activity.ended(owed)
            owed = 0
            with clock.wake_after(1) as waiting:
                received.append(await receive.receive())
                owed += 1
            owed += waiting.fired
        clock.activity.ended(owed)

    async def sender() -> None:
        await clock.sleep(1)
        clock.activity.began()
        send.send_nowait("now")

    async with anyio.create_task_group() as group:
        await started(group, sender)
        await started(group, waiter)
        await clock.advance(1)
    send.close()
    receive.close()

    assert received == ["now"]
    assert clock.activity.count == 0


async def test_a_cancelled_sleeper_leaves_nothing_behind() -> None:
    clock = VirtualClock()

    async with anyio.create_task_group() as group:
        await started(group, lambda: clock.sleep(5))
        group.cancel_scope.cancel()
    await clock.advance(10)

    assert clock.activity.count == 0


async def test_waits_that_ended_early_do_not_pile_up() -> None:
    clock = VirtualClock()

    for _ in range(5_000):
        with clock.wake_after(3600):
            pass

    assert len(clock._timers._heap) < 1_000  # pyright: ignore[reportPrivateUsage]


async def test_dropped_waits_do_not_stop_the_clock_at_their_times() -> None:
    clock = VirtualClock()
    woken: list[float] = []

    async def sleeper() -> None:
        await clock.sleep(3)
        woken.append(clock.monotonic())

    for seconds in (1, 2, 3, 4):
        with clock.wake_after(seconds):
            pass
    async with anyio.create_task_group() as group:
        await started(group, sleeper)
        await clock.advance(5)

    assert woken == [3]


async def test_settle_waits_for_rest_and_does_not_move_time() -> None:
    clock = VirtualClock()
    done: list[str] = []

    async def worker() -> None:
        clock.activity.began()
        for _ in range(50):
            await checkpoint()
        done.append("work")
        clock.activity.ended()

    async with anyio.create_task_group() as group:
        await started(group, worker)
        await clock.settle()
        assert done == ["work"]

    assert clock.monotonic() == 0


async def test_advance_sees_what_the_test_has_just_set_off() -> None:
    clock = VirtualClock()
    go = anyio.Event()
    seen: list[float] = []

    async def worker() -> None:
        await go.wait()
        clock.activity.began()
        seen.append(clock.monotonic())
        clock.activity.ended()

    async with anyio.create_task_group() as group:
        group.start_soon(worker)
        go.set()
        await clock.advance(60)

    assert seen == [0]


async def test_an_execution_resting_for_an_event_lets_time_go_on() -> None:
    clock = VirtualClock()
    go = anyio.Event()
    resumed_at: list[float] = []

    async def execution() -> None:
        clock.activity.began()
        with clock.resting():
            await go.wait()
        resumed_at.append(clock.monotonic())
        clock.activity.ended()

    async with anyio.create_task_group() as group:
        await started(group, execution)
        await clock.advance(10)
        go.set()
        await clock.advance(10)

    assert resumed_at == [10]
    assert clock.activity.count == 0


async def test_only_one_task_moves_the_clock() -> None:
    clock = VirtualClock()
    clock.activity.began()

    async def other() -> None:
        with pytest.raises(ClockInUse):
            await clock.settle()
        clock.activity.ended()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await clock.advance(1)


async def test_a_clock_that_cannot_move_says_what_is_under_way() -> None:
    clock = VirtualClock(patience=0.01)
    clock.activity.began(2)

    with pytest.raises(ClockStalled, match=r"^2 things have been under way at 2026-01-01T00:00:00") as stalled:
        await clock.advance(1)

    assert stalled.value.under_way == 2
    assert clock.monotonic() == 0


async def test_a_stage_that_never_rests_is_noticed_too() -> None:
    clock = VirtualClock(patience=0.01)

    async def spin() -> None:
        while True:
            with clock.wake_after(0):
                await anyio.sleep_forever()
            clock.activity.ended()

    async with anyio.create_task_group() as group:
        await started(group, spin)
        with pytest.raises(ClockStalled):
            await clock.advance(1)
        group.cancel_scope.cancel()


async def test_a_clock_that_stalled_can_be_moved_again() -> None:
    clock = VirtualClock(patience=0.01)
    clock.activity.began()
    with pytest.raises(ClockStalled):
        await clock.settle()

    clock.activity.ended()
    await clock.advance(1)

    assert clock.monotonic() == 1


async def test_patience_is_for_standing_still_not_for_long_advances() -> None:
    clock = VirtualClock(patience=0.1)
    turns = 0

    async def every_second() -> None:
        nonlocal turns
        while True:
            await clock.sleep(1)
            turns += 1

    async with anyio.create_task_group() as group:
        await started(group, every_second)
        await clock.advance(20_000)
        group.cancel_scope.cancel()

    assert turns == 20_000


async def test_ending_more_than_began_is_an_error_there_and_in_the_test() -> None:
    clock = VirtualClock()
    clock.activity.began()

    with pytest.raises(ClockMiscounted, match=r"2 things ended while only 1 were under way"):
        clock.activity.ended(2)
    clock.activity.ended()

    with pytest.raises(ClockMiscounted):
        await clock.settle()


async def test_time_passes_at_a_shutdown_even_when_something_does_not_come_to_rest() -> None:
    clock = VirtualClock(patience=0.01)
    done = anyio.Event()

    async def wait() -> None:
        await clock.sleep(60)
        clock.activity.ended()
        done.set()

    clock.activity.began()
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await clock.pass_until(done)

    assert clock.monotonic() == 60
