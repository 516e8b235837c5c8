"""Jobs: a named definition of what runs when, and the record that the store keeps of it.

`Job` is what users write: a value, checked when it is made. All of it but the name is its `Definition`, which jobs
that are else alike share. `JobRecord` is a job with its life: id, state, generation, cursor. A real change of the
definition gives a new generation; the cursor says up to which nominal time (that one included) everything is accounted
for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Generic, Self, TypeVar, overload

from attrs import define, evolve, field, frozen

from .errors import InvalidArgument
from .instants import Instant, Micros
from .payload import JsonText, to_labels
from .policies import (
    DEFAULT_MISFIRE,
    NO_RETRY,
    Misfire,
    OnLeaseLost,
    Overlap,
    Recovery,
    Retry,
    TimeoutFrom,
    count_of,
    misfire_from_json,
    misfire_to_json,
    one_of,
    optional_count,
    optional_length,
)
from .schedule import BoundSchedule, Schedule, schedule_from_json
from .strategies import LOCAL, RunOn, run_on_from_json, run_on_to_json, to_run_on
from .task import Call, to_call
from .work import DEFAULT_QUEUE, Work, labels_text, work_from_row

T = TypeVar("T")

_LONGEST_NAME = 200
_MOST_PRIORITY = 2**31 - 1
_SHORT = 1000
"""Characters of arguments up to which equal works are looked for."""


# Made once: enqueueing uses them for every call.
_TIMEOUT = optional_length("timeout", least=1)
_START_BY = optional_length("start_by")
_RECOVERY = one_of("recovery", Recovery)
_RECOVERIES = count_of("recoveries", least=0)
_ON_LEASE_LOST = one_of("on_lease_lost", OnLeaseLost)
_TIMEOUT_FROM = one_of("timeout_from", TimeoutFrom)


class JobState(StrEnum):
    """The life of a job. `stopped` is final: a schedule that is exhausted, a limit reached, or `stop_job`."""

    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"


RUN_OUT = frozenset(("exhausted", "limit"))
"""Reasons for which a job has stopped by itself: what it has fired still runs."""


def check_name(name: object, argument: str = "name") -> str:
    """A job's or a queue's name: printable text of reasonable length."""
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidArgument(argument, name, f"must be printable text of 1 to {_LONGEST_NAME} characters")
    return name


def to_priority(priority: object) -> int:
    """A priority: any 32-bit whole number; higher ones start first."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > _MOST_PRIORITY:
        raise InvalidArgument("priority", priority, "must be a whole number of 32 bits; higher ones start first")
    return priority


@frozen(weakref_slot=False, cache_hash=True)
class Definition:
    """All of a job but its name: what runs when, and under which rules. Jobs with equal ones share one value."""

    work: Work
    schedule: Schedule | None
    misfire: Misfire
    overlap: Overlap
    max_running: int
    jitter: Micros
    limit: int | None
    run_on: RunOn
    state: JobState
    immediate: bool = False
    says_recovery: bool = field(default=True, eq=False, repr=False)
    """Whether `recovery` was given: where it was not, the scheduler that takes the job up says what it is."""


@frozen(init=False, weakref_slot=False)
class Job:
    """A task with its arguments, schedule and policies, under a name. Raises `InvalidArgument` for what cannot work.

    `task` is `task.call(...)`, a registered task or a name with `args`. `schedule=None` makes a job that only `run_job`
    runs. `max_running` is how many of its executions may run at once before `overlap` decides. `jitter` moves each
    start by a fixed share of itself, deterministic by job and nominal time and never past the next one; `limit` is the
    number of fires after which the job is finished. `start_by` is how long after it is due an execution may still
    start; `timeout_from` is what `timeout` is counted from. `immediate` is one run more, at once, when the job is new.
    `recovery` is the scheduler's where it is not said. Durations are `timedelta` or seconds.
    """

    name: str
    definition: Definition

    def __init__(
        self,
        name: str,
        task: object,
        schedule: Schedule | None = None,
        *,
        args: Mapping[str, Any] | None = None,
        misfire: Misfire = DEFAULT_MISFIRE,
        overlap: Overlap | str = Overlap.SKIP,
        max_running: int = 1,
        retry: Retry = NO_RETRY,
        timeout: timedelta | float | None = None,
        timeout_from: TimeoutFrom | str = TimeoutFrom.START,
        start_by: timedelta | float | None = None,
        recovery: Recovery | str | None = None,
        recoveries: int = 3,
        on_lease_lost: OnLeaseLost | str = OnLeaseLost.CONTINUE,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
        immediate: bool = False,
        jitter: timedelta | float = 0,
        limit: int | None = None,
        run_on: RunOn | str = LOCAL,
        paused: bool = False,
    ) -> None:
        call: Call = to_call(task, args)
        if schedule is not None and not isinstance(schedule, Schedule):
            raise InvalidArgument(
                "schedule", schedule, "must be a schedule such as Cron('0 3 * * *') or Every(minutes=5)"
            )
        if not isinstance(misfire, Misfire):
            raise InvalidArgument("misfire", misfire, "must be a Misfire(...)")
        work = make_work(
            call,
            queue=queue,
            priority=priority,
            labels=labels,
            retry=retry,
            timeout=timeout,
            timeout_from=timeout_from,
            start_by=start_by,
            recovery=Recovery.RETRY if recovery is None else recovery,
            recoveries=recoveries,
            on_lease_lost=on_lease_lost,
        )
        definition = Definition(
            work,
            schedule,
            misfire,
            one_of("overlap", Overlap)(overlap),
            count_of("max_running")(max_running),
            optional_length("jitter")(jitter) or 0,
            optional_count("limit")(limit),
            to_run_on(run_on),
            JobState.PAUSED if paused else JobState.ACTIVE,
            bool(immediate),
            recovery is not None,
        )
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            check_name(name), shared_definition(definition)
        )

    @property
    def work(self) -> Work:
        """What runs, where it waits, and what is done when it fails."""
        return self.definition.work

    @property
    def schedule(self) -> Schedule | None:
        """When it runs."""
        return self.definition.schedule

    @property
    def misfire(self) -> Misfire:
        """What becomes of times that passed while nobody could run them."""
        return self.definition.misfire

    @property
    def overlap(self) -> Overlap:
        """What becomes of a run while others of the job are running."""
        return self.definition.overlap

    @property
    def max_running(self) -> int:
        """How many of its executions may run at once."""
        return self.definition.max_running

    @property
    def jitter(self) -> Micros:
        """By how much at most its starts are moved."""
        return self.definition.jitter

    @property
    def limit(self) -> int | None:
        """After how many fires it is finished."""
        return self.definition.limit

    @property
    def run_on(self) -> RunOn:
        """On which nodes it runs."""
        return self.definition.run_on

    @property
    def state(self) -> JobState:
        """The state in which it is added."""
        return self.definition.state

    @property
    def immediate(self) -> bool:
        """Whether it runs once at once when it is new."""
        return self.definition.immediate

    @property
    def says_recovery(self) -> bool:
        """Whether it says itself how it is recovered."""
        return self.definition.says_recovery

    def bind(self, job_id: str, anchor: Instant) -> BoundSchedule | None:
        """The schedule as this job's own, or None where there is none."""
        schedule = self.definition.schedule
        return None if schedule is None else schedule.bind(job_id, self.name, anchor)


def job_of(name: str, definition: Definition) -> Job:
    """The job of this name that is defined like this: both have been checked before."""
    job = object.__new__(Job)
    job.__attrs_init__(name, definition)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    return job


def shared_definition(definition: Definition) -> Definition:
    """One value for equal definitions: thousands of jobs that do the same under other names hold one between them."""
    if len(definition.work.args) >= _SHORT:
        return definition
    return _equal_definition(definition, definition.says_recovery)


@lru_cache(maxsize=4096)
def _equal_definition(definition: Definition, says_recovery: bool) -> Definition:
    return definition


def make_work(
    call: Call,
    *,
    queue: str = DEFAULT_QUEUE,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
    group: str | None = None,
    correlation: str | None = None,
    retry: Retry = NO_RETRY,
    timeout: timedelta | float | None = None,
    timeout_from: TimeoutFrom | str = TimeoutFrom.START,
    start_by: timedelta | float | None = None,
    recovery: Recovery | str = Recovery.RETRY,
    recoveries: int = 3,
    on_lease_lost: OnLeaseLost | str = OnLeaseLost.CONTINUE,
) -> Work:
    """The work of a job or of an enqueued call, each option checked under its own name."""
    if not isinstance(retry, Retry):
        raise InvalidArgument("retry", retry, "must be a Retry(...)")
    work = Work(
        task=call.task,
        args=call.args,
        queue=check_name(queue, "queue"),
        priority=to_priority(priority),
        labels=to_labels(labels, group=group, correlation=correlation),
        retry=retry,
        timeout=_TIMEOUT(timeout),
        start_by=_START_BY(start_by),
        recovery=_RECOVERY(recovery),
        recoveries=_RECOVERIES(recoveries),
        on_lease_lost=_ON_LEASE_LOST(on_lease_lost),
        timeout_from=_TIMEOUT_FROM(timeout_from),
    )
    return _shared(work) if len(work.args) < _SHORT else work


def alike(work: Work, call: Call) -> Work:
    """Another call under the same rules, which need not be checked again."""
    if call.args == work.args and call.task == work.task:
        return work
    other = work.of_call(call.task, call.args)
    return _shared(other) if len(other.args) < _SHORT else other


@lru_cache(maxsize=4096)
def _shared(work: Work) -> Work:
    """One value for equal works: thousands of jobs that run the same task hold one between them."""
    return work


@frozen(weakref_slot=False)
class JobStatus:
    """What commands have made of a job: all of its record that stays while it is fired again and again.

    Jobs that were added together hold one between them, until a command changes one of them.
    """

    state: JobState
    generation: int
    revision: int
    anchor: Instant
    schedule_generation: int
    created_at: Instant
    updated_at: Instant
    reason: str | None = None
    declared: bool = False


status_of = lru_cache(maxsize=1024)(JobStatus)
"""A `JobStatus` of these values; equal ones are mostly one."""


def run_out(status: JobStatus, reason: str, revision: int, at: Instant) -> JobStatus:
    """The status of a job once it will not be fired any more; those that end together hold one between them."""
    epoch = status.schedule_generation
    since = status.created_at
    return status_of(
        JobState.STOPPED, status.generation, revision, status.anchor, epoch, since, at, reason, status.declared
    )


class OfStatus(Generic[T]):
    """A field of a record's status, read and changed as if it were the record's own."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._value_in = name, attrgetter(name)

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...
    @overload
    def __get__(self, record: JobRecord, owner: type) -> T: ...
    def __get__(self, record: JobRecord | None, owner: type) -> T | Self:
        return self if record is None else self._value_in(record.status)

    def __set__(self, record: JobRecord, value: T) -> None:
        changes: dict[str, Any] = {self._name: value}
        record.status = evolve(record.status, **changes)


@define(weakref_slot=False)
class JobRecord:
    """A job as the store keeps it. Handed out as a snapshot: changing one changes nothing."""

    id: str
    job: Job
    status: JobStatus
    cursor: Instant
    """Every nominal time up to and including this one is accounted for."""
    horizon: Instant
    """Verdicts are kept from here on."""
    fired: int = 0
    """How many nominal times have fired, for `limit`."""

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def schedule(self) -> Schedule | None:
        """The job's schedule."""
        return self.job.definition.schedule

    state = OfStatus[JobState]()
    generation = OfStatus[int]()
    """Grows by one with each real change of the definition."""
    revision = OfStatus[int]()
    """The store's revision of its last change; grows over all jobs."""
    anchor = OfStatus[Instant]()
    """Where `Every` counts from: the first add, or the last change of the schedule."""
    schedule_generation = OfStatus[int]()
    """The generation in which the present schedule came."""
    created_at = OfStatus[Instant]()
    updated_at = OfStatus[Instant]()
    reason = OfStatus[str | None]()
    """Why it is paused or stopped, where a rule and not a person did it: `exhausted`, `limit`, ..."""
    declared = OfStatus[bool]()
    """Whether code declares it (as opposed to `add_job` at run time)."""

    def bind(self) -> BoundSchedule | None:
        """The schedule bound to this job."""
        return self.job.bind(self.id, self.status.anchor)


@frozen(weakref_slot=False)
class ScheduleEpoch:
    """A span of a job's life under one schedule: what ledger ranges of that span are read with."""

    job_id: str
    generation: int
    name: str
    schedule: Schedule
    anchor: Instant
    since: Instant
    """Exclusive: its times count after this."""
    until: Instant | None = field(default=None)
    """Inclusive; None while it lasts."""


def first_epoch(record: JobRecord, schedule: Schedule) -> ScheduleEpoch:
    """The epoch of a job that has had this schedule since it was added."""
    anchor = record.anchor
    return ScheduleEpoch(record.id, record.schedule_generation, record.name, schedule, anchor, anchor)


def job_to_json(job: Job) -> JsonText:
    """The definition as JSON text: what the store keeps of it."""
    return _definition_to_json(job.definition)


@lru_cache(maxsize=4096)
def _definition_to_json(job: Definition) -> JsonText:
    work = job.work
    data: dict[str, Any] = {
        "task": work.task,
        "args": work.args,
        "queue": work.queue,
        "priority": work.priority,
        "labels": labels_text(work.labels),
        "rules": work.to_json(),
        "schedule": None if job.schedule is None else job.schedule.to_json(),
        "misfire": misfire_to_json(job.misfire),
        "overlap": job.overlap.value,
        "max_running": job.max_running,
        "jitter": job.jitter,
        "limit": job.limit,
        "run_on": run_on_to_json(job.run_on),
    }
    if job.immediate:
        data["immediate"] = True
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def job_from_json(name: str, text: JsonText) -> Job:
    """The inverse of `job_to_json`. Raises `ClepsydraError`, `KeyError` or `ValueError` on a damaged text."""
    return job_of(name, definition_from_json(text))


def definition_from_json(text: JsonText) -> Definition:
    """What a stored text defines, under whatever name. Jobs that differ by their schedule alone share the rest."""
    # Quotes inside of texts are escaped and keys are sorted, so this is the key.
    before, found, after = text.partition('"schedule":')
    if len(text) >= _SHORT or not after.startswith("{"):
        return _whole_definition(text)
    schedule, end = _DECODER.raw_decode(after)
    rest = _definition_without_schedule(f"{before}{found}null{after[end:]}")
    return Definition(
        rest.work,
        schedule_from_json(schedule),
        rest.misfire,
        rest.overlap,
        rest.max_running,
        rest.jitter,
        rest.limit,
        rest.run_on,
        rest.state,
        rest.immediate,
    )


def _whole_definition(text: JsonText) -> Definition:
    data = json.loads(text)
    work = work_from_row(data["task"], data["args"], data["queue"], data["priority"], data["labels"], data["rules"])
    return Definition(
        work,
        None if data["schedule"] is None else schedule_from_json(data["schedule"]),
        misfire_from_json(data["misfire"]),
        Overlap(data["overlap"]),
        data["max_running"],
        data["jitter"],
        data["limit"],
        run_on_from_json(data["run_on"]),
        JobState.ACTIVE,
        data.get("immediate", False),
    )


_DECODER = json.JSONDecoder()
_definition_without_schedule = lru_cache(maxsize=4096)(_whole_definition)
