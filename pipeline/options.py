"""The options of jobs and of enqueued calls, as keyword arguments with their types; and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypedDict, cast

from ..model.errors import InvalidArgument
from ..model.execution import Cause
from ..model.instants import LAST, Instant, to_instant, to_micros
from ..model.job import alike, check_name, make_work
from ..model.policies import NO_RETRY, Misfire, OnLeaseLost, Overlap, Recovery, Retry, TimeoutFrom, one_of
from ..model.strategies import RunOn
from ..model.task import Call
from ..model.work import Work
from ..storage.protocol import NewExecution


class TaskOptions(TypedDict, total=False):
    """The options of `Task` beside its function and names."""

    concurrency: int | None
    """How many may run at once in this process; None: as many as their queue allows."""
    backoff: Callable[..., timedelta | float] | None
    """`backoff(attempt, error)`: the wait before the next try, where `retry` allows one."""
    on_setup: Callable[..., Any] | None
    """`on_setup(execution)`: before the function."""
    on_success: Callable[..., Any] | None
    """`on_success(execution, result)`"""
    on_failure: Callable[..., Any] | None
    """`on_failure(execution, error)`"""
    on_teardown: Callable[..., Any] | None
    """`on_teardown(execution)`: at the end, whatever has happened."""


class JobOptions(TypedDict, total=False):
    """The options of `Job` beside its name, task, schedule and arguments."""

    misfire: Misfire
    overlap: Overlap | str
    max_running: int
    retry: Retry
    timeout: timedelta | float | None
    timeout_from: TimeoutFrom | str
    start_by: timedelta | float | None
    recovery: Recovery | str | None
    recoveries: int
    on_lease_lost: OnLeaseLost | str
    queue: str
    priority: int
    labels: Mapping[str, str] | None
    immediate: bool
    jitter: timedelta | float
    limit: int | None
    run_on: RunOn | str
    paused: bool


class EnqueueOptions(TypedDict, total=False):
    """The options of `enqueue`."""

    after: timedelta | float | None
    """Delay from now."""
    at: datetime | None
    """An aware time; one that has passed means now."""
    key: str | None
    """Unique among the task's unfinished executions."""
    on_conflict: Literal["keep", "replace", "raise"]
    """What to do when the key is taken."""
    priority: int
    queue: str
    labels: Mapping[str, str] | None
    group: str | None
    """A correlation group, to look the execution up by: kept as a reserved label, as is the next."""
    correlation: str | None
    """A correlation id: any number of executions may share it."""
    retry: Retry
    timeout: timedelta | float | None
    """Per attempt, from its start, unless `timeout_from` says otherwise."""
    timeout_from: TimeoutFrom | str
    """`"nominal"`: from when it is due, for all attempts together."""
    start_by: timedelta | float | None
    """How long after it is due it may still start."""
    recovery: Recovery | str | None
    """None: what the scheduler says."""
    recoveries: int
    on_lease_lost: OnLeaseLost | str


_NO_RULES = frozenset(("after", "at", "key", "on_conflict"))
"""Options that say nothing of how the work is done."""
_ON_CONFLICT = one_of("on_conflict", ("keep", "replace", "raise"))


def new_executions(
    calls: Sequence[Call],
    options: EnqueueOptions,
    now: Instant,
    make_id: Callable[[], str],
    recovery: Recovery = Recovery.RETRY,
) -> Iterator[NewExecution]:
    """The executions that calls come to, one by one. Raises `InvalidArgument` naming the option that cannot be used.

    `recovery` is for calls that say none.
    """
    if options.get("recovery") is None:
        options = {**options, "recovery": recovery}
    due_at = _due_at(options.get("after"), options.get("at"), now)
    key = options.get("key")
    if key is not None:
        check_name(key, "key")
        if len(calls) > 1:
            raise InvalidArgument("key", key, "names one execution; enqueue calls with keys one at a time")
    conflict = _ON_CONFLICT(options.get("on_conflict", "keep"))
    work: Work | None = None
    for call in calls:
        if not isinstance(call, Call):
            raise InvalidArgument("call", call, "must be task.call(...)")
        work = _work_of(call, options) if work is None else alike(work, call)
        start_by = None if work.start_by is None else due_at + work.start_by
        yield NewExecution(make_id(), work, Cause.ENQUEUE, due_at, start_by, key, conflict)


def _work_of(call: Call, options: EnqueueOptions) -> Work:
    """Options come again and again, and are checked once. By their types as well: what equals 1 may be no number."""
    rules = [(name, type(value), value) for name, value in options.items() if name not in _NO_RULES]
    try:
        latest = _latest(tuple(rules))
    except TypeError:  # labels cannot be looked up by
        return _checked_work(call, options)
    latest[0] = work = alike(latest[0], call)
    return work


@lru_cache(maxsize=256)
def _latest(rules: tuple[tuple[str, type, Any], ...]) -> list[Work]:
    """In a list of one, the work of the latest call under these options; mostly the next is the same."""
    return [_checked_work(Call("any"), cast(EnqueueOptions, {name: value for name, _, value in rules}))]


def _checked_work(call: Call, options: EnqueueOptions) -> Work:
    return make_work(
        call,
        queue=options.get("queue", "default"),
        priority=options.get("priority", 0),
        labels=options.get("labels"),
        group=options.get("group"),
        correlation=options.get("correlation"),
        retry=options.get("retry", NO_RETRY),
        timeout=options.get("timeout"),
        timeout_from=options.get("timeout_from", TimeoutFrom.START),
        start_by=options.get("start_by"),
        recovery=options.get("recovery") or Recovery.RETRY,
        recoveries=options.get("recoveries", 3),
        on_lease_lost=options.get("on_lease_lost", OnLeaseLost.CONTINUE),
    )


def _due_at(after: timedelta | float | None, at: datetime | None, now: Instant) -> Instant:
    if after is not None and at is not None:
        raise InvalidArgument("at", at, "give either `after` or `at`, not both")
    if at is not None:
        return to_instant(at, "at")
    delay = 0 if after is None else to_micros(after, "after")
    if delay < 0:
        raise InvalidArgument("after", after, "must not be negative")
    return min(now + delay, LAST)


def check_options(call: str, options: Mapping[str, Any], known: type) -> None:
    """Raises `InvalidArgument` for an option that there is not."""
    for name in options:
        if name not in known.__annotations__:
            raise InvalidArgument(
                name, options[name], f"is no option of {call}; known: {', '.join(known.__annotations__)}"
            )
