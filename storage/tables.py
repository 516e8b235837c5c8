"""The primitives that an adapter gives so that `ledger.py` can keep the books on it.

Rows in, rows out: no rule of the scheduler lives below this line. Every method runs inside `transaction()`, which the
ledger opens; where rows are read in order to be changed it asks with `lock=True`, and what it reads then must not
change under it until the transaction ends. Rows handed out are the caller's own: it may change them and write them
back. Iterables of ids may be long; an adapter splits them as it must. A row that cannot be understood is put aside with
`quarantine` and left out of the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager

from ..model.execution import Attempt, Execution, Outcome, Range, State
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.instants import LAST, Instant
from ..model.job import JobRecord, ScheduleEpoch
from ..model.strategies import Node
from .paging import encode_cursor
from .protocol import Claim, Mark, Quarantined, TaskRow


class Tables(ABC):
    """Row access for the ledger."""

    blocking = True
    shared = True

    def __init__(self) -> None:
        self._quarantined: deque[Quarantined] = deque()

    def quarantine(self, table: str, row_id: str, reason: str) -> None:
        """Remember a row that could not be understood, for `take_quarantined`."""
        self._quarantined.append(Quarantined(table, row_id, reason))

    def unreadable_jobs(self) -> Collection[str]:
        """Ids of jobs that are there and were put aside: to other hosts they may be sound."""
        return ()

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """One writing transaction; nested blocks join the outer one. Raising inside undoes everything."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """One snapshot for several reads; inside a transaction it is that one."""

    def take_turns(self) -> None:
        """Let nobody else past this point until the transaction ends; what is read from here on has what they did.

        For decisions on what is not there, which no lock of a row can protect. Nothing to do where one transaction at
        a time writes.
        """
        return

    # ---- facts about the store as a whole

    @abstractmethod
    def get_fact(self, key: str) -> str | None:
        """A fact of the store by key: `pristine`, `last_execution_date`, ..."""

    @abstractmethod
    def set_fact(self, key: str, value: str | None) -> None:
        """Set a fact; None removes it."""

    @abstractmethod
    def next_revision(self) -> int:
        """Lock the revision until the transaction ends, and give the next one."""

    @abstractmethod
    def last_revision(self) -> int:
        """The revision of the last committed change."""

    # ---- nodes

    @abstractmethod
    def list_nodes(self) -> list[Node]:
        """All nodes by id, with what the store can tell of their being alive."""

    @abstractmethod
    def save_node(self, node: Node) -> None:
        """Insert, or replace by id."""

    @abstractmethod
    def forget_nodes(self, node_ids: Collection[str]) -> None:
        """Remove."""

    # ---- jobs

    @abstractmethod
    def jobs_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """By id, absent where there is none; locked in id order."""

    @abstractmethod
    def jobs_by_name(self, names: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """By name."""

    @abstractmethod
    def insert_jobs(self, records: Sequence[JobRecord]) -> None:
        """New jobs."""

    @abstractmethod
    def update_jobs(self, records: Sequence[JobRecord]) -> None:
        """Everything but id and name."""

    @abstractmethod
    def update_cursors(self, records: Sequence[JobRecord]) -> None:
        """`cursor`, `fired` and `horizon` only: the part that changes with each fire."""

    @abstractmethod
    def delete_job_rows(self, records: Sequence[JobRecord], revision: int, now: Instant) -> None:
        """Remove, remembering each with that revision for `removed_since`."""

    @abstractmethod
    def removed_since(self, revision: int) -> tuple[Sequence[tuple[str, str]], bool]:
        """Ids and names of jobs removed after a revision, and whether the memory reaches back that far."""

    @abstractmethod
    def select_jobs(
        self, where: JobFilter, order: Order, limit: int | None, cursor: str | None, *, after_revision: int = -1
    ) -> tuple[list[JobRecord], str | None]:
        """A page and the cursor of the next."""

    def every_job(self) -> Sequence[JobRecord]:
        """All, by id; what changes meanwhile may be seen as it was or as it is."""
        return self.select_jobs(EVERY_JOB, Order.ID, None, None)[0]

    @abstractmethod
    def count_job_rows(self, where: JobFilter) -> int:
        """How many."""

    @abstractmethod
    def delete_all_jobs(self) -> None:
        """Every job, epoch, range and memory of removed jobs."""

    # ---- the ledger of verdicts

    @abstractmethod
    def insert_epochs(self, epochs: Sequence[ScheduleEpoch]) -> None:
        """Spans that begin."""

    @abstractmethod
    def end_epochs(self, ends: Sequence[tuple[str, Instant]]) -> None:
        """Set `until` of each job's open span."""

    @abstractmethod
    def list_epochs(self, name: str) -> list[ScheduleEpoch]:
        """Of all jobs that bore the name, by job id and `since`."""

    @abstractmethod
    def horizons(self, job_ids: Collection[str]) -> Mapping[str, tuple[Instant, Instant]]:
        """Horizon and cursor of jobs, those removed and still remembered included."""

    @abstractmethod
    def insert_ranges(self, ranges: Sequence[Range]) -> None:
        """Ranges of settled nominal times."""

    @abstractmethod
    def list_ranges(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Range]:
        """Those that touch `[start, end)`, by job and start."""

    @abstractmethod
    def list_marks(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Mark]:
        """Of executions with a nominal time in `[start, end)`, by job, nominal time and id."""

    # ---- executions

    @abstractmethod
    def executions_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, Execution]:
        """By id."""

    @abstractmethod
    def insert_executions(self, rows: Sequence[Execution]) -> None:
        """New ones. Ids are known to be new; (job, nominal, target) must be unique, else `StoreError`."""

    def insert_unknown(self, rows: Iterable[Execution]) -> bool:
        """Those of different ids that are new, of no job. False: some were there, and are left as they are.

        An adapter that has no way to do so in one step inserts none, and the ledger looks first at what is there.
        """
        return False

    @abstractmethod
    def update_executions(self, rows: Sequence[Execution]) -> None:
        """Everything that can change: all but id, cause, created_at, job, nominal."""

    def save_started(self, rows: Sequence[Execution]) -> None:
        """`update_executions` of rows, read with `lock`, that were pending and now run: nearly all there is to save."""
        if rows:
            self.update_executions(rows)

    def save_ended(self, rows: Sequence[Execution]) -> None:
        """`update_executions` of rows, read with `lock`, that were running and have now finished."""
        if rows:
            self.update_executions(rows)

    @abstractmethod
    def delete_execution_rows(self, ids: Collection[str]) -> None:
        """With their attempts."""

    @abstractmethod
    def insert_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Past attempts."""

    @abstractmethod
    def attempt_rows(self, execution_id: str) -> list[Attempt]:
        """In the order of their ids."""

    @abstractmethod
    def unfinished_of_jobs(self, job_ids: Collection[str], *, lock: bool = False) -> dict[str, list[Execution]]:
        """Per job its executions that are unfinished or still occupy it, by id. A job without any may be absent."""

    def lock_unfinished(self, job_ids: Collection[str]) -> None:  # noqa: B027 - where one writes at a time: nothing
        """Lock them, where others may work at the same time: before the revision is, for which others wait."""

    def holding_jobs(self, job_ids: Collection[str]) -> Collection[str]:
        """Those of them that may have executions in state held, for adapters that know it without looking."""
        return job_ids

    def crowded_jobs(self, job_ids: Collection[str]) -> dict[str, list[Execution]]:
        """`unfinished_of_jobs`, locked, of those jobs alone that have several."""
        found = self.unfinished_of_jobs(job_ids, lock=True) if job_ids else {}
        return {job_id: rows for job_id, rows in found.items() if len(rows) > 1}

    @abstractmethod
    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """Unfinished executions by task and key."""

    @abstractmethod
    def running_rows(self, node_ids: Collection[str] | None, limit: int | None, after: str | None) -> list[Execution]:
        """In state running, or cancelled and still occupying, by attempt id; of these nodes or of all."""

    @abstractmethod
    def targeted_rows(self, alive: Collection[str]) -> list[Execution]:
        """Unstarted executions whose target is a node that is not one of these, by id."""

    @abstractmethod
    def cancelled_since(self, revision: int) -> list[tuple[str, str]]:
        """Execution and attempt ids with a later `cancel_revision`, still occupying."""

    @abstractmethod
    def ready_rows(
        self,
        now: Instant,
        limits: Mapping[str, int] | None,
        limit: int,
        *,
        node_id: str | None = None,
        tasks: Collection[str] | None = None,
        after: tuple[int, str] | None = None,
        ignore: Collection[str] = (),
        lock: bool = False,
    ) -> list[Execution]:
        """Pending and due: per queue in `limits` the best so many, or the best `limit` of all queues.

        Best: priority descending, then attempt id. With `node_id`, only those without another node's target; with
        `lock`, rows that another transaction holds may be passed over.
        """

    def start_ready(
        self,
        now: Instant,
        limits: Mapping[str, int],
        *,
        node_id: str,
        tasks: Collection[str] | None,
        ignore: Collection[str],
    ) -> tuple[list[Claim], list[Execution]]:
        """`ready_rows`, locked, but for those that this has started at once, in one step: their claims come first.

        At once may be started what nothing can stand in the way of: it belongs to no job and its `start_by` has not
        passed. An adapter that has no way to do so starts none, and the ledger decides on all of them.
        """
        return [], self.ready_rows(now, limits, 0, node_id=node_id, tasks=tasks, ignore=ignore, lock=True)

    def end_at_once(self, outcomes: Sequence[Outcome]) -> Set[str]:
        """End what runs with these outcomes, all of them final, in one step, where nothing else hangs on that.

        Each only if its execution runs this very attempt on this node (law 3) and belongs to no job. Gives the attempts
        that were ended; the ledger decides on the others. An adapter that has no way to do so ends none.
        """
        return frozenset()

    def end_of_jobs_at_once(self, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """The same for what belongs to jobs. Gives the attempts that were ended, each with its job."""
        return {}

    @abstractmethod
    def next_due_rows(
        self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]
    ) -> Mapping[str, Instant]:
        """Per queue the earliest `not_before` later than `after` among pending ones."""

    @abstractmethod
    def unplaced_rows(self, now: Instant, limit: int) -> list[Execution]:
        """In state placing and due, by id."""

    @abstractmethod
    def select_executions(
        self, where: ExecutionFilter, order: Order, limit: int | None, cursor: str | None, offset: int = 0
    ) -> tuple[list[Execution], str | None]:
        """A page and the cursor of the next."""

    @abstractmethod
    def count_execution_rows(self, where: ExecutionFilter) -> int:
        """How many."""

    @abstractmethod
    def count_by_state(self, where: ExecutionFilter) -> dict[State, int]:
        """How many in each state that occurs, in one statement."""

    # ---- tasks and history

    @abstractmethod
    def save_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """Insert, or replace by name."""

    @abstractmethod
    def list_task_rows(self) -> list[TaskRow]:
        """By name."""

    @abstractmethod
    def expired_executions(self, before: Instant, limit: int) -> list[tuple[str, str | None, Instant | None]]:
        """Finished before and not occupying, oldest first: id, job id, nominal time.

        Those of a job that has an unfinished execution with an earlier or equal nominal time are kept back.
        """

    @abstractmethod
    def raise_horizons(self, horizons: Mapping[str, Instant]) -> None:
        """Move the horizons of jobs forward, removed ones included."""

    @abstractmethod
    def delete_ranges(self, before: Instant, limit: int) -> int:
        """Ranges that end at or before, raising their jobs' horizons; how many."""

    @abstractmethod
    def forget_removed(self, before: Instant, limit: int) -> int:
        """Removed jobs and ended epochs of which nothing is left to read; how many."""

    # ---- for auditors: made of the above, for adapters that have no better way

    def remembered_jobs(self, after: str, limit: int) -> list[tuple[str, str, bool]]:
        """Ids, names, and whether they were removed, by id, later than `after`."""
        living, _ = self.select_jobs(EVERY_JOB, Order.ID, limit, _after(after))
        known = [(record.id, record.name, False) for record in living]
        known += [(job_id, name, True) for job_id, name in self.removed_since(-1)[0] if job_id > after]
        return sorted(known)[:limit]

    def epochs_of(self, job_id: str, name: str) -> list[ScheduleEpoch]:
        """Of one job, by `since`."""
        return [epoch for epoch in self.list_epochs(name) if epoch.job_id == job_id]

    def stretch_end(self, job_id: str, start: Instant, limit: int) -> Instant | None:
        """Where a stretch of a job's life ends that begins at `start` and holds about so many executions or ranges.

        None: it is the last one.
        """
        where = ExecutionFilter(job_ids=[job_id], nominal=(start, None))
        rows, _ = self.select_executions(where, Order.DUE, limit + 1, None)
        begins = [span.start for span in self.list_ranges([job_id], start, LAST) if span.start >= start]
        ends = sorted(row.nominal or 0 for row in rows)[limit:] + begins[limit : limit + 1]
        return max(min(ends), start + 1) if ends else None

    def stretch_ranges(self, job_id: str, start: Instant, end: Instant) -> list[Range]:
        """Those of one job that touch `[start, end)`, by start."""
        return self.list_ranges([job_id], start, end)

    def execution_ids(self, after: str, limit: int) -> list[str]:
        """In order, later than `after`; what cannot be understood included, where the store can tell."""
        rows, _ = self.select_executions(EVERY_EXECUTION, Order.ID, limit, _after(after))
        return [row.id for row in rows]

    def attempts_of(self, execution_ids: Collection[str]) -> dict[str, list[Attempt]]:
        """Past attempts by execution, in the order of their ids; absent where there are none."""
        found = {execution_id: self.attempt_rows(execution_id) for execution_id in execution_ids}
        return {execution_id: past for execution_id, past in found.items() if past}


def _after(row_id: str) -> str | None:
    return encode_cursor(Order.ID, row_id, row_id) if row_id else None
