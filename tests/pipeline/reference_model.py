"""A small model of the whole chain: what was commanded and acknowledged, what fired, what runs; what may happen next.

It knows no stage, no channel and no store. It is told of each command before it is given and when it is answered, of
each fire that the store has applied, and of each task that begins and ends; it answers with `wrongs`, the laws that
were broken, in words. A command whose answer was lost may have been done or not: until the store is looked at, both are
believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from attrs import Factory, define, evolve, frozen

from clepsydra import Job, JobRecord, JobState, Once, Overlap
from clepsydra.model.execution import Cause
from clepsydra.model.instants import Instant, to_datetime
from clepsydra.model.job import RUN_OUT
from clepsydra.model.redeploy import evolve_state
from clepsydra.stages.misfire import due_of
from clepsydra.stages.outcomes import StopKind
from clepsydra.stages.running import Run
from clepsydra.storage.protocol import Claim, Fire

# ------------------------------------------------------------------------------------------------- what was commanded

Life: TypeAlias = Literal["absent", "active", "paused", "stopped", "run out"]


@frozen
class Standing:
    """How a job may stand: its definition and where it is in its life."""

    life: Life
    job: Job | None = None


ABSENT = Standing("absent")


@frozen
class Put:
    """Add or replace."""

    job: Job


@frozen
class Change:
    """Pause, resume or stop."""

    state: JobState


@frozen
class Remove:
    """Remove."""


Command: TypeAlias = Put | Change | Remove

_LIVES: dict[JobState, Life] = {JobState.ACTIVE: "active", JobState.PAUSED: "paused", JobState.STOPPED: "stopped"}


def after(standing: Standing, command: Command) -> Standing:
    """How a job stands when a command has been done."""
    match command:
        case Remove():
            return ABSENT
        case Change(state):
            return (
                standing if standing.life in ("absent", "stopped", "run out") else evolve(standing, life=_LIVES[state])
            )
        case Put(job):
            same = standing.job is not None and definition(standing.job) == definition(job)
            ended = standing.life in ("stopped", "run out")
            return standing if same and ended else Standing(_LIVES[job.state], definition(job))


def definition(job: Job) -> Job:
    """What a job is, its state left aside."""
    return evolve_state(job, JobState.ACTIVE)


def may_run_out(standings: Iterable[Standing]) -> set[Standing]:
    """Jobs end by themselves, at any time: a limit reached, a schedule exhausted."""
    known = set(standings)
    return known | {evolve(standing, life="run out") for standing in known if standing.life == "active"}


def standing_of(record: JobRecord | None) -> Standing:
    """How a job stands in the store."""
    if record is None:
        return ABSENT
    ran_out = record.state is JobState.STOPPED and record.reason in RUN_OUT
    return Standing("run out" if ran_out else _LIVES[record.state], definition(record.job))


def version_of(job: Job | None) -> int | None:
    """Each definition bears a number of its own among its task's arguments, so that a run tells which one it is of."""
    return None if job is None else int(json.loads(job.work.args)["version"])


# -------------------------------------------------------------------------------------------------- what is to be fired


def due_times(record: JobRecord, now: Instant) -> list[Instant]:
    """The nominal times after the cursor that are due, read off the calendar one by one."""
    bound = record.bind()
    assert bound is not None
    assert bound.driven_by == "time"
    times = [at for at in bound.times(record.cursor + 1, now + 1) if not bound.is_excluded(at)]
    return [at for at in times if due_of(record.job, bound, at) <= now]


def allowed_fires(record: JobRecord, now: Instant) -> set[Instant | None]:
    """Which of the times that are due the misfire policy lets run now; None: it lets none of them run."""
    misfire, bound, times = record.job.misfire, record.bind(), due_times(record, now)
    assert bound is not None
    if not times:
        return set()
    last = times[-1]
    if len(times) == 1 and now - due_of(record.job, bound, last) <= misfire.grace:
        return {last}
    in_window = [at for at in times if misfire.window is None or at >= now - misfire.window]
    if misfire.take == "none":
        late = now - due_of(record.job, bound, last) > misfire.grace
        return {None} if late or last not in in_window else {last}
    if misfire.take == "latest":
        return {last} if last in in_window else {None}
    if not in_window:
        return {None}
    # Once the limit has been applied, what comes due while they run is not counted again: both are right.
    limited = in_window[-misfire.limit :] if misfire.limit is not None else in_window
    return {in_window[0], limited[0]}


# ------------------------------------------------------------------------------------------------------ the whole model


@define(eq=False)
class Model:
    """What is known of a chain from outside."""

    beliefs: dict[str, set[Standing]] = Factory(dict[str, set[Standing]])
    wrongs: list[str] = Factory(list[str])
    fired: dict[str, Instant] = Factory(dict[str, Instant])
    """By job id, the last nominal time that fired."""
    first_started: dict[str, Instant] = Factory(dict[str, Instant])
    """By job id, the last nominal time that began."""
    executions: dict[tuple[str, Instant], str] = Factory(dict[tuple[str, Instant], str])
    begun: dict[str, int | None] = Factory(dict[str, int | None])
    """Executions that have begun at least once, each with the version of its job of that time."""
    claimed: dict[str, str] = Factory(dict[str, str])
    """By execution the first attempt that the store has started: a later one is a further try, whatever it did."""
    attempts: set[str] = Factory(set[str])
    running: dict[str, Run] = Factory(dict[str, Run])
    """By execution id."""
    ended: int = 0
    stopping: bool = False
    """The scheduler is about to end: it may interrupt what runs."""
    cancelled: bool = False
    """Somebody has asked for the cancelling of what runs."""

    # ---- commands

    def believed(self, name: str) -> set[Standing]:
        """How a job may stand."""
        return self.beliefs.get(name, {ABSENT})

    def asked(self, name: str, command: Command) -> set[Standing]:
        """A command is given; until it is answered it may have been done or not. Gives what was believed before."""
        before = self.believed(name)
        self.beliefs[name] = before | self._done(before, command)
        return before

    def acknowledged(self, name: str, command: Command, before: set[Standing]) -> None:
        """It has been done."""
        self.beliefs[name] = self._done(before, command)

    def refused(self, name: str, before: set[Standing]) -> None:
        """It has certainly not been done."""
        self.beliefs[name] = before

    @staticmethod
    def _done(before: set[Standing], command: Command) -> set[Standing]:
        done = {after(standing, command) for standing in may_run_out(before)}
        # It may have reached its limit already, paused or not; and its one time may lie before the cursor, which stays
        # where it is when the clock is set back.
        if isinstance(command, Put) and (command.job.limit is not None or isinstance(command.job.schedule, Once)):
            done |= {Standing("run out", definition(command.job))}
        return done

    def observe(self, name: str, record: JobRecord | None) -> None:
        """Look at the store: it must be in one of the ways that are believed, and that one it is."""
        seen = standing_of(record)
        if seen not in may_run_out(self.believed(name)):
            believed = " or ".join(f"{one.life} v{version_of(one.job)}" for one in self.believed(name))
            self.wrongs.append(
                f"law 7: job {name!r} is {seen.life} v{version_of(seen.job)} in the store, commanded was {believed}"
            )
        self.beliefs[name] = {seen}

    # ---- fires

    def applied(self, record: JobRecord, fire: Fire, now: Instant) -> None:
        """The store has applied a fire; the record is the job as it was before."""
        who = f"job {record.name!r} at {to_datetime(now).time()}"
        bound = record.bind()
        assert bound is not None
        if fire.to <= record.cursor:
            self.wrongs.append(f"law 9: {who}: the cursor went from {record.cursor} to {fire.to}")
        if bound.driven_by == "time":
            allowed = allowed_fires(record, now)
            ran = fire.nominal if fire.execution_id else None
            if ran not in allowed:
                self.wrongs.append(
                    f"misfire: {who} fired {_clock(ran)}, right would be {' or '.join(map(_clock, allowed))}; due were "
                    f"{', '.join(map(_clock, due_times(record, now)))}"
                )
        if not fire.execution_id:
            return
        if fire.due_at > now:
            self.wrongs.append(f"{who}: fired before it was due, at {_clock(fire.due_at)}")
        if fire.nominal <= self.fired.get(record.id, -1):
            self.wrongs.append(f"law 9: {who}: fired {_clock(fire.nominal)} after {_clock(self.fired[record.id])}")
        if record.job.limit is not None and record.fired >= record.job.limit:
            self.wrongs.append(f"limit: {who}: fired {record.fired + 1} times, {record.job.limit} were allowed")
        self.fired[record.id] = fire.nominal

    # ---- runs

    def begins(self, run: Run, version: int | None) -> None:
        """A task has reached its first line."""
        claim = run.claim
        if claim.attempt_id in self.attempts:
            self.wrongs.append(f"law 2: attempt {claim.attempt_id} of {run.name!r} began twice")
        if claim.execution_id in self.running:
            self.wrongs.append(f"law 2: two attempts of execution {claim.execution_id} of {run.name!r} run at once")
        if claim.job_id is not None and claim.job_name is not None:
            self._law_7(claim, claim.job_name, version)
            if self.begun.get(claim.execution_id, version) == version:  # else it occupies its job by an older rule
                self._overlap(claim.job_id, claim.job_name, version)
            self._one_fire(claim, claim.job_id)
        self.attempts.add(claim.attempt_id)
        self.begun.setdefault(claim.execution_id, version)
        self.running[claim.execution_id] = run

    def _law_7(self, claim: Claim, name: str, version: int | None) -> None:
        standings = may_run_out(self.believed(name))
        first = (
            claim.execution_id not in self.begun
            and self.claimed.get(claim.execution_id, claim.attempt_id) == claim.attempt_id
        )
        scheduled = claim.cause is Cause.SCHEDULE
        if not any(_may_begin(standing, version, first and scheduled) for standing in standings):
            how = " or ".join(f"{one.life} v{version_of(one.job)}" for one in self.believed(name))
            self.wrongs.append(
                f"law 7: {claim.cause.value} run of {name!r} v{version}, nominal {_clock(claim.nominal)}, attempt "
                f"{claim.attempt}, began while the job is {how}"
            )

    def _overlap(self, job_id: str, name: str, version: int | None) -> None:
        job = self._job(name, version)
        if job is None or job.overlap is Overlap.ALLOW:
            return
        beside = sum(run.claim.job_id == job_id for run in self.running.values())
        if beside >= job.max_running:
            self.wrongs.append(f"overlap: {name!r} v{version} ({job.overlap}) began beside {beside} others")

    def _one_fire(self, claim: Claim, job_id: str) -> None:
        if claim.nominal is None:
            return
        known = self.executions.setdefault((job_id, claim.nominal), claim.execution_id)
        if known != claim.execution_id:
            self.wrongs.append(f"law 2: {claim.job_name!r}, {_clock(claim.nominal)} ran twice, as two executions")

    def _job(self, name: str, version: int | None) -> Job | None:
        return next((one.job for one in self.believed(name) if version_of(one.job) == version), None)

    def ends(self, run: Run, *, cut: bool) -> None:
        """A task has come to its end, its own or another's."""
        self.running.pop(run.claim.execution_id, None)
        self.ended += 1
        if cut:
            self._explain(run)

    def _explain(self, run: Run) -> None:
        """Nobody but who may do so cuts a run short; the crash of a stage never does (law 4)."""
        stop, work = run.stop, run.claim.work
        if stop is None:
            self.wrongs.append(f"law 4: {run.name!r} was cut short, and nobody had asked for it")
        elif stop.kind is StopKind.TIMEOUT and work.timeout is None:
            self.wrongs.append(f"{run.name!r} has no timeout and was timed out")
        elif stop.kind is StopKind.INTERRUPT and not self.stopping:
            self.wrongs.append(f"law 4: {run.name!r} was interrupted while the scheduler went on")
        elif stop.kind is StopKind.CANCEL and not self._may_cancel(run, stop.reason):
            self.wrongs.append(f"law 4: {run.name!r} was cancelled, nobody had asked for it: {stop.reason}")

    def _may_cancel(self, run: Run, reason: str) -> bool:
        job = run.claim.job_name
        makes_room = any(
            one.job is not None and one.job.overlap is Overlap.CANCEL_RUNNING
            for one in (self.believed(job) if job is not None else ())
        )
        return self.cancelled or makes_room or "make room" in reason

    def take_wrongs(self) -> Sequence[str]:
        """What was wrong since the last time."""
        taken, self.wrongs = self.wrongs, []
        return taken


def _may_begin(standing: Standing, version: int | None, is_new: bool) -> bool:
    if standing.life == "absent" or version_of(standing.job) != version:
        return False
    return not is_new or standing.life in ("active", "run out")


def _clock(instant: Instant | None) -> str:
    return "nothing" if instant is None else to_datetime(instant).isoformat()[11:23]
