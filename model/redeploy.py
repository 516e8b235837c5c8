"""Redeploy: what a definition means for the job that the store already has under its name.

An equal definition is no change. Other fields with the same schedule: a new generation, cursor and waiting work kept.
Another schedule: the job counts from now, and what had not started is superseded. A job that has ended begins a new
life when it is given a new definition. The store keeps the state of what code declares; `add_job` says the state
itself.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from attrs import evolve

from .instants import Instant
from .job import Job, JobRecord, JobState, job_of, shared_definition, status_of
from .policies import Recovery

Change: TypeAlias = Literal["unchanged", "updated", "rescheduled", "readded"]


def compare(stored: JobRecord, job: Job) -> Change:
    """What putting `job` over a stored one amounts to, its state left aside."""
    if evolve_state(stored.job, JobState.ACTIVE) == evolve_state(job, JobState.ACTIVE):
        return "unchanged"
    if stored.state is JobState.STOPPED:
        return "readded"
    return "updated" if stored.job.schedule == job.schedule else "rescheduled"


def evolve_state(job: Job, state: JobState) -> Job:
    """The same definition with another initial state."""
    return job if job.state is state else _defined_anew(job, state=state)


def with_recovery(job: Job, recovery: Recovery) -> Job:
    """The same definition, recovered like this where it does not say how."""
    if job.says_recovery or job.work.recovery is recovery:
        return job
    return _defined_anew(job, work=evolve(job.work, recovery=recovery))


def _defined_anew(job: Job, **changes: Any) -> Job:
    return job_of(job.name, shared_definition(evolve(job.definition, **changes)))


def first_record(job_id: str, job: Job, declared: bool, now: Instant, revision: int) -> JobRecord:
    """The record of a job that is added: it counts from now, and one that has no time to come is finished already."""
    status = status_of(job.state, 1, revision, now, 1, now, now, None, declared)
    record = JobRecord(job_id, evolve_state(job, JobState.ACTIVE), status, now, now)
    finish_if_exhausted(record)
    return record


def redeployed(stored: JobRecord, job: Job, declared: bool, now: Instant, revision: int, change: Change) -> JobRecord:
    """The record after an `updated` or `rescheduled` change; one that has fired as often as it may now is finished."""
    changed = evolve(
        stored.status, generation=stored.generation + 1, revision=revision, updated_at=now, declared=declared
    )
    record = evolve(stored, job=evolve_state(job, JobState.ACTIVE), status=changed)
    if change == "rescheduled":
        record.anchor = now
        record.cursor = max(now, stored.cursor)
        record.schedule_generation = record.generation
        finish_if_exhausted(record)
    if job.limit is not None and record.fired >= job.limit:
        record.state, record.reason = JobState.STOPPED, "limit"
    return record


def finish_if_exhausted(record: JobRecord) -> None:
    """Stop a job whose schedule has no time after its cursor."""
    bound = record.bind()
    if bound is None or bound.driven_by != "time" or bound.next_after(record.cursor) is not None:
        return
    record.state = JobState.STOPPED
    record.reason = "exhausted"
