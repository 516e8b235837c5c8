"""What a task sees of its execution, and what becomes of what it gives, raises or is stopped by."""

from __future__ import annotations

import asyncio
import gc
import types
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from clepsydra.model.errors import InvalidArgument, NotInExecution, UnknownTask
from clepsydra.model.events import FailureKind
from clepsydra.model.execution import Cause, Ending
from clepsydra.model.instants import SECOND, to_instant
from clepsydra.model.policies import Recovery, Retry
from clepsydra.model.signals import Cancel, Snooze
from clepsydra.model.work import Work
from clepsydra.stages.outcomes import (
    INTERRUPTED,
    LONGEST_ERROR,
    TIMED_OUT,
    OutcomeMaker,
    Stop,
    StopKind,
    error_text,
    failure_kind,
    interrupt_in,
    is_cancellation,
    storable,
)
from clepsydra.stages.running import OnLoop, Run, current_execution, drive
from clepsydra.storage.protocol import Claim
from clepsydra.testing.clock import VirtualClock

DUE = datetime(2026, 1, 1, tzinfo=UTC)
AT = to_instant(DUE)


def claim(**changes: Any) -> Claim:
    values: dict[str, Any] = {
        "execution_id": "e",
        "attempt_id": "a",
        "attempt": 1,
        "work": Work("mail.welcome", queue="mail", labels=(("tenant", "acme"),)),
        "cause": Cause.SCHEDULE,
        "created_at": AT,
        "due_at": AT,
        "job_id": "j",
        "job_name": "welcome",
        "nominal": AT - SECOND,
    }
    return Claim(**(values | changes))


def started(function: Callable[..., Any]) -> tuple[Run, OnLoop, bool]:
    """A run that has taken its first step, and whether it has suspended."""
    run, on_loop = Run(claim(), VirtualClock(DUE)), OnLoop()
    run.context = copy_context()
    return run, on_loop, run.begin(on_loop, function, (), {})


@types.coroutine
def suspend(value: object) -> Generator[Any, Any, Any]:
    return (yield value)


def driven(run: Run, on_loop: OnLoop) -> Generator[Any, Any, None]:
    """What an event loop has in its hands."""
    return cast(Generator[Any, Any, None], drive(run, on_loop, asyncio.CancelledError))


# ---- current_execution()


def test_outside_of_a_task_there_is_no_current_execution() -> None:
    with pytest.raises(NotInExecution, match="current_execution"):
        current_execution()


def test_a_task_sees_what_it_runs_for() -> None:
    async def look() -> Run:
        return current_execution()

    run, _, _ = started(look)
    run.started_at = AT + 2 * SECOND

    assert run.value is run
    assert (run.id, run.attempt_id, run.lease, run.idempotency_key) == ("e", "a", "a", "e")
    assert (run.task, run.job, run.queue, run.labels) == ("mail.welcome", "welcome", "mail", {"tenant": "acme"})
    assert (run.attempt, run.cause, run.key) == (1, Cause.SCHEDULE, None)
    assert (run.nominal, run.due) == (DUE - timedelta(seconds=1), DUE)
    assert run.late_by == timedelta(seconds=2)
    assert not run.cancelled


def test_enqueued_work_has_no_job_and_no_nominal_time() -> None:
    run = Run(claim(job_name=None, job_id=None, nominal=None), VirtualClock(DUE))

    assert (run.job, run.nominal, run.name) == (None, None, "mail.welcome")
    assert "mail.welcome" in repr(run)


def test_the_latest_progress_is_taken_once() -> None:
    run = Run(claim(), VirtualClock(DUE))
    assert run.take_progress() is None

    run.progress({"done": 1})
    run.progress({"done": 2})

    assert run.take_progress() == '{"done":2}'
    assert run.take_progress() is None
    assert run.alive_at == 0


def test_progress_that_is_not_json_is_refused() -> None:
    run = Run(claim(), VirtualClock(DUE))

    with pytest.raises(InvalidArgument, match="value"):
        run.progress(object())


def test_a_task_that_sees_that_it_was_asked_to_stop_has_noticed() -> None:
    run = Run(claim(), VirtualClock(DUE))
    run.stop = TIMED_OUT
    assert not run.noticed

    assert run.cancelled

    assert run.noticed


# ---- Driving


def test_what_a_coroutine_awaits_is_handed_on_and_what_comes_back_is_handed_in() -> None:
    async def task() -> list[Any]:
        return [await suspend("first"), await suspend("second")]

    run, on_loop, suspended = started(task)
    driving = driven(run, on_loop)

    assert suspended
    assert next(driving) == "first"
    assert driving.send(1) == "second"
    with pytest.raises(StopIteration):
        driving.send(2)
    assert run.value == [1, 2]


def test_an_error_of_the_event_loop_is_thrown_into_the_coroutine() -> None:
    async def task() -> str:
        try:
            await suspend("wait")
        except LookupError as error:
            return f"saw {error!r}"
        return "saw nothing"

    run, on_loop, _ = started(task)
    driving = driven(run, on_loop)
    next(driving)
    with pytest.raises(StopIteration):
        driving.throw(LookupError("lost"))

    assert run.value == "saw LookupError('lost')"


def test_a_cancellation_is_noticed_only_when_a_stop_was_asked_for() -> None:
    async def task() -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await suspend("wait")

    run, on_loop, _ = started(task)
    driving = driven(run, on_loop)
    next(driving)
    driving.throw(asyncio.CancelledError())
    assert not run.noticed
    run.stop = TIMED_OUT
    with pytest.raises(StopIteration):
        driving.throw(asyncio.CancelledError())

    assert run.noticed


def test_a_coroutine_is_closed_when_the_event_loop_goes_away() -> None:
    cleaned: list[Run] = []

    async def task() -> None:
        try:
            await suspend("wait")
        finally:
            cleaned.append(current_execution())

    run, on_loop, _ = started(task)
    driving = driven(run, on_loop)
    next(driving)
    driving.close()

    assert cleaned == [run]


def test_the_watchdog_sees_which_run_has_the_loop_and_that_steps_follow() -> None:
    seen: list[tuple[Run | None, int]] = []

    async def task() -> None:
        seen.append((on_loop_of_test[0].run, on_loop_of_test[0].steps))

    on_loop_of_test = [OnLoop()]
    run = Run(claim(), VirtualClock(DUE))
    run.context = copy_context()
    run.begin(on_loop_of_test[0], task, (), {})

    assert seen == [(run, on_loop_of_test[0].steps)]
    assert on_loop_of_test[0].run is None


def test_a_run_that_was_closed_keeps_nothing_alive() -> None:
    class Large:
        pass

    async def task() -> Large:
        return Large()

    run, _, _ = started(task)
    large = weakref.ref(run.value)
    run.close()
    gc.collect()

    assert large() is None


# ---- Outcomes

MAKER = OutcomeMaker("node", lambda: "next")


def test_a_timeout_follows_the_retry_policy() -> None:
    work = Work("t", timeout=1_500_000, retry=Retry(attempts=2, backoff=1, jitter=0, on=[TimeoutError]))

    outcome = MAKER.stopped(claim(work=work), TIMED_OUT, AT)

    assert (outcome.ending, outcome.not_before) == (Ending.RETRY, AT + SECOND)
    assert outcome.error == "TimeoutError: timed out after 1.5 s"


def test_an_interrupted_attempt_is_given_back_unless_it_must_not_run_twice() -> None:
    given_back = MAKER.stopped(claim(), INTERRUPTED, AT)
    failed = MAKER.stopped(claim(work=Work("t", recovery=Recovery.FAIL)), INTERRUPTED, AT)

    assert (given_back.ending, given_back.next_attempt_id, given_back.not_before) == (Ending.GIVEN_BACK, "next", AT)
    assert (failed.ending, failed.next_attempt_id) == (Ending.FAILED, "")


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800", {1: 2}, [[...]], {"a": b""}])
def test_what_json_cannot_carry_is_a_failure(value: Any) -> None:
    assert MAKER.returned(claim(), value, AT).ending is Ending.FAILED


def test_a_mapping_that_raises_when_it_is_read_is_a_failure() -> None:
    class Rude(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("do not look")

    assert "do not look" in str(MAKER.returned(claim(), Rude(a=1), AT).error)


def test_the_jitter_of_a_retry_is_that_of_its_execution() -> None:
    work = Work("t", retry=Retry(attempts=9, backoff=60, jitter=1))

    def delays(*claims: dict[str, Any]) -> int:
        return len({MAKER.failed(claim(work=work, **each), OSError(), AT).not_before for each in claims})

    enqueued: list[dict[str, Any]] = [{"execution_id": name, "nominal": None} for name in "aab"]
    assert delays(*enqueued) == 2
    # Ids are random: what a schedule has fired draws by its time, so that a simulation repeats.
    scheduled: list[dict[str, Any]] = [{"execution_id": str(index), "nominal": AT - index // 2} for index in range(4)]
    assert delays(*scheduled) == 2


def test_of_a_long_error_the_end_is_kept() -> None:
    text = error_text(ValueError("é" * LONGEST_ERROR + "the end"))

    assert len(text.encode()) <= LONGEST_ERROR
    assert text.endswith("éthe end")


def test_an_error_that_cannot_be_told_is_told_by_its_type() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "Unspeakable" in error_text(Unspeakable())


def test_an_endless_recursion_makes_a_short_text() -> None:
    def again() -> None:
        again()

    try:
        again()
    except RecursionError as error:
        text = error_text(error)
        assert len(text) < 10_000
        assert "RecursionError" in text


@pytest.mark.parametrize("text", ["\0", "\ud800", "ok\udcff"])
def test_error_texts_hold_nothing_that_a_database_refuses(text: str) -> None:
    safe = storable(text)

    assert "\0" not in safe
    assert safe.encode()


def test_cancellations_in_groups_are_cancellations_only_if_all_are() -> None:
    cancelled = asyncio.CancelledError()
    group = BaseExceptionGroup("g", [cancelled, BaseExceptionGroup("h", [cancelled])])

    assert is_cancellation(cancelled, asyncio.CancelledError)
    assert is_cancellation(group, asyncio.CancelledError)
    assert not is_cancellation(BaseExceptionGroup("g", [cancelled, ValueError()]), asyncio.CancelledError)
    assert not is_cancellation(None, asyncio.CancelledError)


def test_a_keyboard_interrupt_is_found_in_groups() -> None:
    interrupt = KeyboardInterrupt()

    assert interrupt_in(BaseExceptionGroup("g", [ValueError(), BaseExceptionGroup("h", [interrupt])])) is interrupt
    assert interrupt_in(ValueError()) is None


@pytest.mark.parametrize(
    ("error", "stop", "kind"),
    [
        (ValueError(), None, FailureKind.EXCEPTION),
        (None, None, FailureKind.EXCEPTION),
        (SystemExit(), None, FailureKind.EXIT),
        (UnknownTask("t"), None, FailureKind.UNKNOWN_TASK),
        (asyncio.CancelledError(), None, FailureKind.CANCELLED),
        (asyncio.CancelledError(), TIMED_OUT, FailureKind.TIMEOUT),
        (asyncio.CancelledError(), INTERRUPTED, FailureKind.CANCELLED),
    ],
)
def test_each_failure_has_its_kind(error: BaseException | None, stop: Stop | None, kind: FailureKind) -> None:
    assert failure_kind(error, stop, asyncio.CancelledError) is kind


def test_the_reason_of_a_cancellation_is_kept() -> None:
    outcome = MAKER.stopped(claim(), Stop(StopKind.CANCEL, "by\0hand"), AT)

    assert (outcome.ending, outcome.error) == (Ending.CANCELLED, "by\\x00hand")


# ---- Signals


def test_signals_are_values_and_exceptions() -> None:
    assert Snooze(timedelta(minutes=5)).delay == timedelta(minutes=5)
    assert Snooze(1.5).micros == 1_500_000
    assert Cancel("why").reason == "why"
    assert isinstance(Snooze(0), Exception)


@pytest.mark.parametrize("delay", [-1, float("inf"), 1e300, "soon", None, timedelta(days=-1)])
def test_a_snooze_that_makes_no_sense_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidArgument, match="delay"):
        Snooze(delay)


def test_a_reason_is_a_text() -> None:
    with pytest.raises(InvalidArgument, match="reason"):
        Cancel(7)  # type: ignore[arg-type]
