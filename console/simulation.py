"""A scheduler's jobs run by the real engine on a virtual clock, their tasks pretended; and a tally of what happened.

Each task sleeps for as long as it is assumed to take, or has been recorded to take. Settings, queues, overlap and
misfire policies are the user's own. Nothing of the user's code runs, and the store is memory: a year passes in seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from heapq import heappush, heappushpop
from typing import Any, Final

from attrs import Factory, define, evolve, frozen

from .. import (
    Call,
    Instant,
    Job,
    JobState,
    Kind,
    MemoryStorage,
    Scheduler,
    Task,
    current_execution,
    events,
    to_datetime,
    to_instant,
)
from ..testing import VirtualClock
from .words import SECOND

MINUTE: Final = 60 * SECOND
_HOUR: Final = 60 * MINUTE
_KEPT: Final = 1000
"""Executions that the store of a simulation remembers: it needs none."""
_TOLD_EACH: Final = timedelta(hours=6)
_MOST_COMBINATIONS: Final = 1000


# --- what is assumed ------------------------------------------------------------------------------------------------


@frozen
class Durations:
    """How long runs take: by job or task, in microseconds; several for one name are taken in turn."""

    otherwise: int = 0
    by_name: Mapping[str, Sequence[int]] = Factory(dict[str, Sequence[int]])
    """Of a job, or of a task."""

    def of(self, job: str | None, task: str, number: int) -> int:
        """Of the run of this number."""
        known = self.by_name.get(job or "") or self.by_name.get(task)
        return known[number % len(known)] if known else self.otherwise


# --- what happened --------------------------------------------------------------------------------------------------


@define
class JobTally:
    """What became of a job's times."""

    runs: int = 0
    overlapping: int = 0
    """Runs that began while another of the job was going."""
    late: int = 0
    """The latest start, in microseconds after it was due."""
    failed: int = 0
    """Ended by their timeout."""
    settled: Counter[Kind] = Factory(Counter[Kind])
    """Times that did not run, by verdict."""
    going: int = 0
    most_at_once: int = 0


@frozen(order=True)
class Busy:
    """A minute, and how many runs began in it."""

    runs: int
    minute: Instant


@frozen
class Collision:
    """Jobs that fell on the same instants."""

    jobs: tuple[str, ...]
    times: int
    first: Instant


class Tally:
    """Counts what telemetry tells. Bounded, however long the span."""

    def __init__(self, zone: tzinfo, *, busiest: int = 10) -> None:
        self.jobs: dict[str, JobTally] = defaultdict(JobTally)
        self.week = [[0] * 24 for _ in range(7)]
        """Runs by day of the week, Monday first, and hour, in the zone."""
        self.most_at_once = 0
        self.colliding_instants = 0
        self.combinations_left_out = 0
        self._going = 0
        self._zone, self._kept = zone, busiest
        self._busiest: list[Busy] = []
        self._minute, self._in_minute = 0, 0
        self._by_nominal: dict[Instant, set[str]] = {}
        self._nominals: deque[Instant] = deque()
        self._together: dict[tuple[str, ...], tuple[int, Instant]] = {}

    def hear(self, event: events.TelemetryEvent) -> None:
        """Something has happened."""
        match event:
            case events.ExecutionStarted():
                self._started(event)
            case events.ExecutionStopped() | events.ExecutionFailed():
                self._ended(event)
            case events.ExecutionSkipped() if event.job is not None:
                self.jobs[event.job].settled[event.kind] += 1
            case events.ExecutionsMissed():
                self.jobs[event.job].settled[event.kind] += event.count or 1
            case _:
                return

    def finish(self) -> None:
        """Nothing more will be told."""
        self._end_minute(0)
        self._forget_nominals(2**62)

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(job.runs for job in self.jobs.values())

    @property
    def busiest(self) -> list[Busy]:
        """The minutes in which most runs began, the busiest first."""
        return sorted(self._busiest, key=lambda busy: (-busy.runs, busy.minute))

    @property
    def collisions(self) -> list[Collision]:
        """Jobs that fell on the same instants, the most frequent first."""
        found = [Collision(jobs, times, first) for jobs, (times, first) in self._together.items()]
        return sorted(found, key=lambda one: (-one.times, -len(one.jobs), one.jobs))

    def _started(self, event: events.ExecutionStarted) -> None:
        if event.job is None:
            return
        job = self.jobs[event.job]
        job.runs += 1
        job.going += 1
        job.overlapping += job.going > 1
        job.most_at_once = max(job.most_at_once, job.going)
        job.late = max(job.late, event.late_by)
        self._going += 1
        self.most_at_once = max(self.most_at_once, self._going)
        local = to_datetime(event.at, self._zone)
        self.week[local.weekday()][local.hour] += 1
        minute = event.at - event.at % MINUTE
        if minute != self._minute:
            self._end_minute(minute)
        self._in_minute += 1
        if event.nominal is not None:
            self._note_nominal(event.nominal, event.job)

    def _ended(self, event: events.ExecutionStopped | events.ExecutionFailed) -> None:
        if event.job is None:
            return
        job = self.jobs[event.job]
        job.going -= 1
        self._going -= 1
        job.failed += isinstance(event, events.ExecutionFailed)

    def _end_minute(self, following: Instant) -> None:
        if self._in_minute:
            busy = Busy(self._in_minute, self._minute)
            if len(self._busiest) < self._kept:
                heappush(self._busiest, busy)
            elif self._busiest[0].runs < busy.runs:
                heappushpop(self._busiest, busy)
        self._minute, self._in_minute = following, 0

    def _note_nominal(self, nominal: Instant, job: str) -> None:
        if nominal not in self._by_nominal:
            self._forget_nominals(nominal - _HOUR)
            self._by_nominal[nominal] = set()
            self._nominals.append(nominal)
        self._by_nominal[nominal].add(job)

    def _forget_nominals(self, before: Instant) -> None:
        """Count what fell on instants that are long past."""
        while self._nominals and self._nominals[0] < before:
            nominal = self._nominals.popleft()
            jobs = tuple(sorted(self._by_nominal.pop(nominal)))
            if len(jobs) < 2:
                continue
            self.colliding_instants += 1
            if jobs in self._together or len(self._together) < _MOST_COMBINATIONS:
                times, first = self._together.get(jobs, (0, nominal))
                self._together[jobs] = times + 1, first
            else:
                self.combinations_left_out += 1


# --- the run --------------------------------------------------------------------------------------------------------


async def simulate(
    scheduler: Scheduler,
    jobs: Iterable[Job],
    start: datetime,
    end: datetime,
    durations: Durations,
    tally: Tally,
    tell: Callable[[datetime, int], None] = lambda at, runs: None,
) -> None:
    """Let these of the scheduler's jobs run from `start` to `end`. `tell` hears now and then how far it is."""
    clock = VirtualClock(start)
    engine = Scheduler(
        MemoryStorage(keep=_KEPT),
        name=scheduler.name,
        stages=evolve(scheduler.stages, loop_blocked=None),
        jobs=[_pretended(job) for job in jobs],
        tasks=_pretended_tasks(scheduler.tasks.values(), durations),
        clock=clock,
    )
    engine.attach(tally.hear)
    async with engine:
        while (left := end - clock.time) > timedelta(0):
            await clock.advance(min(left, _TOLD_EACH))
            tell(clock.time, tally.runs)
        engine.stop(hard=True)
    tally.finish()


def _pretended_tasks(tasks: Iterable[Task[..., Any]], durations: Durations) -> list[Task[..., Any]]:
    numbers: Counter[str] = Counter()
    return [
        Task(_pretence(durations, numbers), task.name, task.aliases, concurrency=task.concurrency)
        for task in {task.name: task for task in tasks}.values()
    ]


def _pretence(durations: Durations, numbers: Counter[str]) -> Callable[..., Any]:
    async def pretend(**arguments: Any) -> None:
        run = current_execution()
        micros = durations.of(run.job, run.task, numbers[run.name])
        numbers[run.name] += 1
        if micros:
            await run.sleep(micros / SECOND)

    return pretend


def _pretended(job: Job) -> Job:
    """The same job, run here whatever nodes it would be run on."""
    work = job.work
    return Job(
        job.name,
        Call(work.task, work.args),
        job.schedule,
        misfire=job.misfire,
        overlap=job.overlap,
        max_running=job.max_running,
        timeout=_seconds(work.timeout),
        timeout_from=work.timeout_from,
        start_by=_seconds(work.start_by),
        queue=work.queue,
        priority=work.priority,
        immediate=job.immediate,
        jitter=job.jitter / SECOND,
        limit=job.limit,
        paused=job.state is JobState.PAUSED,
    )


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / SECOND


def expected_runs(jobs: Iterable[Job], start: datetime, end: datetime, most: int) -> dict[str, int]:
    """How many nominal times each job has in the span, counted up to `most`; only those that time drives."""
    first, last = to_instant(start), to_instant(end)
    found: dict[str, int] = {}
    for job in jobs:
        bound = job.bind("", first)
        if bound is not None and bound.driven_by == "time":
            found[job.name] = bound.count(first + 1, last + 1, most)
    return found
