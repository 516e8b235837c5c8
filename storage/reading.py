"""Reading: the queries of the execution ledger, each from one snapshot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..model.execution import Attempt, Execution, State
from ..model.filters import EVERY_EXECUTION, ExecutionFilter, Order
from ..model.instants import Instant
from .protocol import LedgerPage, Page, TaskRow
from .tables import Tables


class Reading(Tables):
    """What asks and changes nothing, and the list of tasks, over the primitives."""

    def get_executions(self, ids: Collection[str]) -> Mapping[str, Execution]:
        """By id."""
        with self.reading():
            return self.executions_by_id(ids)

    def list_attempts(self, execution_id: str) -> Sequence[Attempt]:
        """Past attempts, in order."""
        with self.reading():
            return self.attempt_rows(execution_id)

    def list_executions(
        self,
        where: ExecutionFilter = EVERY_EXECUTION,
        order: Order = Order.ID,
        limit: int = 100,
        cursor: str | None = None,
        offset: int = 0,
        *,
        total: bool = False,
    ) -> Page:
        """A page, and how many match in all."""
        with self.reading():
            rows, following = self.select_executions(where, order, limit, cursor, offset)
            return Page(rows, following, self.count_execution_rows(where) if total else None)

    def count_executions(self, where: ExecutionFilter = EVERY_EXECUTION) -> int:
        """How many."""
        with self.reading():
            return self.count_execution_rows(where)

    def stats(self, where: ExecutionFilter = EVERY_EXECUTION) -> Mapping[State, int]:
        """How many in each state."""
        with self.reading():
            counts = self.count_by_state(where)
        return {state: counts.get(state, 0) for state in State}

    def ready(
        self,
        now: Instant,
        limit: int,
        *,
        after: tuple[int, str] | None = None,
        ignore: Collection[str] = (),
        queues: Collection[str] | None = None,
    ) -> Sequence[Execution]:
        """What may start now; claims nothing."""
        with self.reading():
            limits = None if queues is None else dict.fromkeys(queues, limit)
            rows = self.ready_rows(now, limits, limit, after=after, ignore=ignore)
            return rows if limits is None else sorted(rows, key=_ready_order)[:limit]

    def next_due(
        self, after: Instant, *, queues: Collection[str] | None = None, ignore: Collection[str] = ()
    ) -> Mapping[str, Instant]:
        """Per queue the earliest not-before time later than `after`."""
        with self.reading():
            return self.next_due_rows(after, queues, ignore)

    def running(self, node_id: str | None = None, limit: int = 1000, after: str | None = None) -> Sequence[Execution]:
        """What runs."""
        with self.reading():
            return self.running_rows(None if node_id is None else (node_id,), limit, after)

    def verdicts(self, job: str, start: Instant, end: Instant) -> Sequence[LedgerPage]:
        """How nominal times ended, one page for each job that bore the name."""
        with self.reading():
            epochs = self.list_epochs(job)
            job_ids = sorted({epoch.job_id for epoch in epochs})
            bounds = self.horizons(job_ids)
            ranges = self.list_ranges(job_ids, start, end)
            marks = self.list_marks(job_ids, start, end)
        return [
            LedgerPage(
                [epoch for epoch in epochs if epoch.job_id == job_id],
                [span for span in ranges if span.job_id == job_id],
                [mark for mark in marks if mark.job_id == job_id],
                *bounds[job_id],
            )
            for job_id in job_ids
            if job_id in bounds
        ]

    def put_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """Add or replace by name."""
        if tasks:
            with self.transaction():
                self.save_tasks(tasks)

    def list_tasks(self) -> Sequence[TaskRow]:
        """All, by name."""
        with self.reading():
            return self.list_task_rows()


def _ready_order(row: Execution) -> tuple[int, str]:
    return -row.work.priority, row.attempt_id
