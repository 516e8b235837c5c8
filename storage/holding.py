"""Holding: what a job's overlap policy buffers, and how it is let go when there is room."""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter

from ..model.execution import Execution, State
from ..model.instants import Instant
from ..model.overlap import to_release
from ..model.policies import Overlap
from .tables import Tables

BUFFERING = frozenset((Overlap.BUFFER_ONE, Overlap.BUFFER_ALL, Overlap.CANCEL_RUNNING))
"""The policies under which executions are held. A change to another one lets go of them (see `job_ledger`)."""


class Holding(Tables):
    """What every part of the ledger does that may have freed a job, or ended what was let go before."""

    def release_held(self, job_ids: Collection[str], now: Instant) -> list[Execution]:
        """Let what overlap held back take the room that has come free; gives what is pending now."""
        job_ids = self.holding_jobs(job_ids)
        jobs = self.jobs_by_id(job_ids, lock=True) if job_ids else {}
        buffering = [job_id for job_id, record in jobs.items() if record.job.overlap in BUFFERING]
        if not buffering:
            return []
        freed: list[Execution] = []
        for job_id, rows in self.unfinished_of_jobs(buffering, lock=True).items():
            # In the order in which `start` lets them go: a new try comes after those that were held before it.
            held = sorted((row for row in rows if row.state is State.HELD), key=attrgetter("attempt_id"))
            occupying = sum(row.occupies for row in rows)
            freed += held[: to_release(jobs[job_id].job.max_running, occupying, len(held))]
        for row in freed:
            row.state, row.not_before = State.PENDING, now
        self.update_executions(freed)
        return freed
