"""What a service says of itself: when it has started, when it reads its file again, and when it drains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from .. import ClepsydraError, JobRecord, JobState, Scheduler
from .words import plural, utc

_MOST_NAMED: Final = 20
"""Jobs that are listed at the start."""


async def reloaded(scheduler: Scheduler) -> str:
    """Read its file again, and say what came of it. A file that cannot be used leaves everything as it was."""
    try:
        needs_restart = await scheduler.reload()
    except ClepsydraError as error:
        return f"not reloaded, everything stays as it was: {error}"
    after = f"; only after a restart: {', '.join(needs_restart)}" if needs_restart else ""
    return f"reloaded: {plural(len(scheduler.declared_jobs), 'job')} declared{after}"


def greeting(scheduler: Scheduler) -> Iterator[str]:
    """What has been started: node, store, jobs with their next times, and what does not look right."""
    jobs = scheduler.jobs
    yield f"started: node {scheduler.name}, {store_of(scheduler)}, {plural(len(jobs), 'job')}"
    for record in jobs[:_MOST_NAMED]:
        yield f"job {record.name}: {_prospect(record, scheduler.next_run(record.name))}"
    if len(jobs) > _MOST_NAMED:
        yield f"and {plural(len(jobs) - _MOST_NAMED, 'more job')}"
    health = scheduler.health()
    if health.undeclared_jobs:
        yield f"declared by earlier code and not by this, so not fired: {', '.join(health.undeclared_jobs)}"
    if health.unknown_tasks:
        yield f"tasks that jobs name and this code does not have: {', '.join(health.unknown_tasks)}"


def store_of(scheduler: Scheduler) -> str:
    kind = type(scheduler.storage)
    return kind.__name__ if kind.__repr__ is object.__repr__ else repr(scheduler.storage)


def _prospect(record: JobRecord, next_run: datetime | None) -> str:
    if record.state is not JobState.ACTIVE:
        return f"{record.state.value}, {record.reason}" if record.reason else record.state.value
    if next_run is not None:
        return f"next {utc(next_run)}"
    return record.schedule.describe() if record.schedule else "runs when it is called"


def draining(scheduler: Scheduler, why: str) -> str:
    """What is waited for."""
    pool = scheduler.health().pool
    running = 0 if pool is None else pool.running
    waited = f"waiting for {plural(running, 'run')}; once more cancels them" if running else "nothing is running"
    return f"{why}: draining, {waited}"
