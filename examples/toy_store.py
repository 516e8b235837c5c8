"""The smallest store there can be: each table is a dictionary, each question a walk through all of it.

    python examples/toy_store.py

It is there to be read by whoever writes an adapter, and keeps every promise that a store makes: the program holds it to
the contract. Rows go in and come out as copies, so that a stored row never changes; a transaction that fails puts the
dictionaries back as they were. What makes a real adapter of it: a database, an index for each question, and locks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import TypeVar

from attrs import Factory, define, evolve, fields, frozen

from clepsydra import Execution, ExecutionFilter, Instant, JobFilter, JobRecord, Node, Order, State, Storage
from clepsydra.model.errors import StoreError
from clepsydra.model.execution import UNFINISHED, UNSTARTED, Attempt, Range
from clepsydra.model.filters import EVERY_EXECUTION
from clepsydra.model.job import ScheduleEpoch
from clepsydra.storage.ledger import Ledger
from clepsydra.storage.paging import EXECUTION_COLUMNS, JOB_COLUMNS, column_of, page_rows
from clepsydra.storage.protocol import Mark, TaskRow
from clepsydra.testing import CONTRACT

Row = TypeVar("Row")


@frozen
class Removed:
    """What is left of a job that is gone."""

    record: JobRecord
    revision: int
    at: Instant


@define
class Rows:
    """All tables."""

    revision: int = 0
    remembers_from: int = 0
    """Since which revision no removed job has been forgotten."""
    facts: dict[str, str] = Factory(dict[str, str])
    nodes: dict[str, Node] = Factory(dict[str, Node])
    tasks: dict[str, TaskRow] = Factory(dict[str, TaskRow])
    jobs: dict[str, JobRecord] = Factory(dict[str, JobRecord])
    removed: dict[str, Removed] = Factory(dict[str, Removed])
    epochs: list[ScheduleEpoch] = Factory(list[ScheduleEpoch])
    ranges: list[Range] = Factory(list[Range])
    executions: dict[str, Execution] = Factory(dict[str, Execution])
    attempts: list[Attempt] = Factory(list[Attempt])

    def copy(self) -> Rows:
        """The same rows in tables of their own."""
        return Rows(*(copy(getattr(self, field.name)) for field in fields(Rows)))


class ToyStorage(Ledger):
    """A store for reading."""

    blocking = False
    shared = False

    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()
        self._depth = 0

    # ---- lifecycle

    def open(self, node: Node, now: Instant) -> None:
        """Register the node."""
        self._node = node
        self.rows.nodes.setdefault(node.id, node)

    def close(self) -> None:
        """Forget it."""
        if self._node is not None:
            self.rows.nodes.pop(self._node.id, None)
            self._node = None

    def interrupt(self) -> None:
        """Nothing here can hang."""

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing."""
        before = None if self._depth else self.rows.copy()
        self._depth += 1
        try:
            yield
        except BaseException:
            if before is not None:
                self.rows = before
            raise
        finally:
            self._depth -= 1

    def reading(self) -> AbstractContextManager[None]:
        """Nobody writes beside us."""
        return self.transaction()

    # ---- facts, nodes, tasks

    def get_fact(self, key: str) -> str | None:
        """By key."""
        return self.rows.facts.get(key)

    def set_fact(self, key: str, value: str | None) -> None:
        """None removes it."""
        if value is None:
            self.rows.facts.pop(key, None)
        else:
            self.rows.facts[key] = value

    def next_revision(self) -> int:
        """One more."""
        self.rows.revision += 1
        return self.rows.revision

    def last_revision(self) -> int:
        """The present one."""
        return self.rows.revision

    def list_nodes(self) -> list[Node]:
        """By id."""
        return [self.rows.nodes[node_id] for node_id in sorted(self.rows.nodes)]

    def save_node(self, node: Node) -> None:
        """In the place of what has its id."""
        self.rows.nodes[node.id] = node

    def forget_nodes(self, node_ids: Collection[str]) -> None:
        """Remove."""
        for node_id in node_ids:
            self.rows.nodes.pop(node_id, None)

    def save_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """In the place of what has their names."""
        self.rows.tasks.update({task.name: task for task in tasks})

    def list_task_rows(self) -> list[TaskRow]:
        """By name."""
        return [self.rows.tasks[name] for name in sorted(self.rows.tasks)]

    # ---- jobs

    def jobs_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """By id."""
        return {job_id: copy(self.rows.jobs[job_id]) for job_id in sorted(ids) if job_id in self.rows.jobs}

    def jobs_by_name(self, names: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """By name."""
        return {record.name: copy(record) for record in self.rows.jobs.values() if record.name in names}

    def insert_jobs(self, records: Sequence[JobRecord]) -> None:
        """New ones."""
        for record in records:
            if record.id in self.rows.jobs or self.jobs_by_name([record.name]):
                raise StoreError(f"there is a job with the id {record.id} or the name {record.name!r}")
            self.rows.jobs[record.id] = copy(record)

    def update_jobs(self, records: Sequence[JobRecord]) -> None:
        """Known ones."""
        self.rows.jobs.update({record.id: copy(record) for record in records if record.id in self.rows.jobs})

    def update_cursors(self, records: Sequence[JobRecord]) -> None:
        """What a fire changes."""
        for new in records:
            if (old := self.rows.jobs.get(new.id)) is not None:
                moved = evolve(old, cursor=new.cursor, fired=new.fired, horizon=new.horizon)
                self.rows.jobs[new.id] = moved

    def delete_job_rows(self, records: Sequence[JobRecord], revision: int, now: Instant) -> None:
        """Remembered as removed."""
        for record in records:
            if self.rows.jobs.pop(record.id, None) is not None:
                self.rows.removed[record.id] = Removed(copy(record), revision, now)

    def removed_since(self, revision: int) -> tuple[Sequence[tuple[str, str]], bool]:
        """Ids and names, and whether those are all."""
        later = [gone.record for gone in self.rows.removed.values() if gone.revision > revision]
        return [(record.id, record.name) for record in later], revision >= self.rows.remembers_from

    def select_jobs(
        self, where: JobFilter, order: Order, limit: int | None, cursor: str | None, *, after_revision: int = -1
    ) -> tuple[list[JobRecord], str | None]:
        """A page."""
        column, _ = column_of(order, JOB_COLUMNS)
        rows = [row for row in self.rows.jobs.values() if row.revision > after_revision and where.matches(row)]
        page, following = page_rows(rows, order, lambda row: getattr(row, column), limit, cursor)
        return _copies(page), following

    def count_job_rows(self, where: JobFilter) -> int:
        """How many."""
        return sum(where.matches(row) for row in self.rows.jobs.values())

    def delete_all_jobs(self) -> None:
        """With all that was remembered of others."""
        rows = self.rows
        rows.jobs, rows.removed, rows.epochs, rows.ranges = {}, {}, [], []
        rows.remembers_from = rows.revision

    # ---- the ledger of verdicts

    def insert_epochs(self, epochs: Sequence[ScheduleEpoch]) -> None:
        """New ones."""
        self.rows.epochs += epochs

    def end_epochs(self, ends: Sequence[tuple[str, Instant]]) -> None:
        """Those that are open."""
        for job_id, until in ends:
            self.rows.epochs = [
                evolve(epoch, until=until) if epoch.job_id == job_id and epoch.until is None else epoch
                for epoch in self.rows.epochs
            ]

    def list_epochs(self, name: str) -> list[ScheduleEpoch]:
        """By job and beginning."""
        found = [epoch for epoch in self.rows.epochs if epoch.name == name]
        return sorted(found, key=lambda epoch: (epoch.job_id, epoch.since))

    def horizons(self, job_ids: Collection[str]) -> Mapping[str, tuple[Instant, Instant]]:
        """Of jobs that are there, and that were."""
        known = {job_id: gone.record for job_id, gone in self.rows.removed.items()} | self.rows.jobs
        return {job_id: (known[job_id].horizon, known[job_id].cursor) for job_id in job_ids if job_id in known}

    def raise_horizons(self, horizons: Mapping[str, Instant]) -> None:
        """Never back."""
        for job_id, horizon in horizons.items():
            if (record := self.rows.jobs.get(job_id)) is not None:
                self.rows.jobs[job_id] = evolve(record, horizon=max(horizon, record.horizon))
            elif (gone := self.rows.removed.get(job_id)) is not None:
                left = evolve(gone.record, horizon=max(horizon, gone.record.horizon))
                self.rows.removed[job_id] = evolve(gone, record=left)

    def insert_ranges(self, ranges: Sequence[Range]) -> None:
        """New ones."""
        self.rows.ranges += ranges

    def list_ranges(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Range]:
        """Those that touch the span."""
        found = [span for span in self.rows.ranges if span.job_id in job_ids and span.start < end and span.end > start]
        return sorted(found, key=lambda span: (span.job_id, span.start))

    def list_marks(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Mark]:
        """Of executions in the span."""
        marks = [
            Mark(row.job_id, row.nominal, row.id, row.verdict, row.state, row.reason, row.target)
            for row in self.rows.executions.values()
            if row.job_id is not None and row.nominal is not None
            if row.job_id in job_ids and start <= row.nominal < end
        ]
        return sorted(marks, key=lambda mark: (mark.job_id, mark.nominal, mark.execution_id))

    # ---- executions

    def executions_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, Execution]:
        """By id."""
        rows = self.rows.executions
        return {row_id: copy(rows[row_id]) for row_id in ids if row_id in rows}

    def insert_executions(self, rows: Sequence[Execution]) -> None:
        """New ones; one for a nominal time of a job on a target."""
        taken = {(row.job_id, row.nominal, row.target) for row in self.rows.executions.values() if _has_place(row)}
        for row in rows:
            place = row.job_id, row.nominal, row.target
            if row.id in self.rows.executions or (_has_place(row) and place in taken):
                raise StoreError(f"execution {row.id}, or one in its place, is stored already")
            self.rows.executions[row.id] = copy(row)
            taken.add(place)

    def update_executions(self, rows: Sequence[Execution]) -> None:
        """Known ones."""
        known = self.rows.executions
        known.update({row.id: copy(row) for row in rows if row.id in known})

    def delete_execution_rows(self, ids: Collection[str]) -> None:
        """With their attempts."""
        chosen = frozenset(ids)
        for row_id in chosen:
            self.rows.executions.pop(row_id, None)
        self.rows.attempts = [attempt for attempt in self.rows.attempts if attempt.execution_id not in chosen]

    def insert_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Past ones."""
        self.rows.attempts += attempts

    def attempt_rows(self, execution_id: str) -> list[Attempt]:
        """By id."""
        found = [attempt for attempt in self.rows.attempts if attempt.execution_id == execution_id]
        return sorted(found, key=lambda attempt: attempt.id)

    def unfinished_of_jobs(self, job_ids: Collection[str], *, lock: bool = False) -> dict[str, list[Execution]]:
        """By job, by id."""
        chosen = frozenset(job_ids)
        found: dict[str, list[Execution]] = {}
        for row in self._rows_by_id():
            if row.job_id in chosen and (row.state in UNFINISHED or row.occupies):
                found.setdefault(row.job_id or "", []).append(copy(row))
        return found

    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """By task and key."""
        return {
            (row.work.task, row.key): copy(row)
            for row in self._rows_by_id()
            if row.key is not None and row.state in UNFINISHED and (row.work.task, row.key) in tasks_and_keys
        }

    def running_rows(self, node_ids: Collection[str] | None, limit: int | None, after: str | None) -> list[Execution]:
        """By attempt id."""
        rows = [
            row
            for row in self.rows.executions.values()
            if (row.state is State.RUNNING or (row.state is State.CANCELLED and row.occupies))
            and (node_ids is None or row.node in node_ids)
            and (after is None or row.attempt_id > after)
        ]
        return _copies(sorted(rows, key=lambda row: row.attempt_id)[:limit])

    def targeted_rows(self, alive: Collection[str]) -> list[Execution]:
        """Unstarted ones of other nodes."""
        rows = [row for row in self._rows_by_id() if row.target and row.state in UNSTARTED]
        return _copies(row for row in rows if row.target not in alive)

    def cancelled_since(self, revision: int) -> list[tuple[str, str]]:
        """Those that are still to stop."""
        rows = [row for row in self._rows_by_id() if row.occupies and row.cancel_revision > revision]
        return [(row.id, row.attempt_id) for row in rows]

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
        """The best per queue, or of all."""
        ignored = frozenset(ignore)
        rows = [
            row
            for row in self.rows.executions.values()
            if row.state is State.PENDING
            and row.not_before <= now
            and (node_id is None or row.target in ("", node_id))
            and (tasks is None or row.work.task in tasks)
            and (after is None or _rank(row) > (-after[0], after[1]))
            and row.id not in ignored
        ]
        rows.sort(key=_rank)
        if limits is None:
            return _copies(rows[:limit])
        return _copies(
            row
            for queue, many in limits.items()
            for row in [row for row in rows if row.work.queue == queue][: max(many, 0)]
        )

    def next_due_rows(
        self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]
    ) -> Mapping[str, Instant]:
        """The earliest per queue."""
        found: dict[str, Instant] = {}
        for row in self.rows.executions.values():
            queue, at = row.work.queue, row.not_before
            wanted = (queues is None or queue in queues) and row.id not in ignore
            if wanted and row.state is State.PENDING and at > after:
                found[queue] = min(at, found.get(queue, at))
        return found

    def unplaced_rows(self, now: Instant, limit: int) -> list[Execution]:
        """Placing and due."""
        rows = [row for row in self._rows_by_id() if row.state is State.PLACING and row.not_before <= now]
        return _copies(rows[:limit])

    def select_executions(
        self, where: ExecutionFilter, order: Order, limit: int | None, cursor: str | None, offset: int = 0
    ) -> tuple[list[Execution], str | None]:
        """A page."""
        column, _ = column_of(order, EXECUTION_COLUMNS)
        page, following = page_rows(self._meant(where), order, lambda row: getattr(row, column), limit, cursor, offset)
        return _copies(page), following

    def count_execution_rows(self, where: ExecutionFilter) -> int:
        """How many."""
        return len(self._meant(where))

    def count_by_state(self, where: ExecutionFilter) -> dict[State, int]:
        """How many in each."""
        return dict(Counter(row.state for row in self._meant(where)))

    def _meant(self, where: ExecutionFilter) -> list[Execution]:
        rows = self.rows.executions.values()
        return list(rows) if where == EVERY_EXECUTION else [row for row in rows if where.matches(row)]

    def _rows_by_id(self) -> list[Execution]:
        return [self.rows.executions[row_id] for row_id in sorted(self.rows.executions)]

    # ---- history

    def expired_executions(self, before: Instant, limit: int) -> list[tuple[str, str | None, Instant | None]]:
        """The oldest, without those that an earlier one of their job keeps back."""
        old = [
            row
            for row in self.rows.executions.values()
            if row.finished and not row.occupies and row.finished_at is not None and row.finished_at < before
        ]
        old.sort(key=lambda row: (row.finished_at, row.id))
        free = [row for row in old if row.nominal is None or self._is_accounted_for(row.job_id, row.nominal)]
        return [(row.id, row.job_id, row.nominal) for row in free[:limit]]

    def _is_accounted_for(self, job_id: str | None, nominal: Instant) -> bool:
        """Whether no execution of the job that has not ended has a nominal time up to this one."""
        return not any(
            row.nominal is not None and row.nominal <= nominal
            for row in self.rows.executions.values()
            if row.job_id == job_id and (row.state in UNFINISHED or row.occupies)
        )

    def delete_ranges(self, before: Instant, limit: int) -> int:
        """The oldest that nothing keeps back; horizons move to their ends."""
        old = [span for span in self.rows.ranges if span.end <= before]
        gone = [span for span in old if self._is_accounted_for(span.job_id, span.end - 1)][:limit]
        for span in gone:
            self.rows.ranges.remove(span)
            self.raise_horizons({span.job_id: span.end})
        return len(gone)

    def forget_removed(self, before: Instant, limit: int) -> int:
        """Removed jobs and ended epochs of which nothing is left."""
        jobs = [gone for gone in self.rows.removed.values() if gone.at < before and not self._left_of(gone.record.id)]
        for gone in jobs[:limit]:
            del self.rows.removed[gone.record.id]
            self.rows.remembers_from = max(self.rows.remembers_from, gone.revision)
            self.rows.epochs = [epoch for epoch in self.rows.epochs if epoch.job_id != gone.record.id]
        epochs = [epoch for epoch in self.rows.epochs if self._is_over(epoch, before)][: max(0, limit - len(jobs))]
        self.rows.epochs = [epoch for epoch in self.rows.epochs if epoch not in epochs]
        return len(jobs[:limit]) + len(epochs)

    def _left_of(self, job_id: str) -> bool:
        if any(span.job_id == job_id for span in self.rows.ranges):
            return True
        return any(row.job_id == job_id for row in self.rows.executions.values())

    def _is_over(self, epoch: ScheduleEpoch, before: Instant) -> bool:
        """Whether an epoch has ended, and no range and no execution is left that belongs to it."""
        if epoch.until is None or epoch.until >= before:
            return False
        ranges = [span for span in self.rows.ranges if span.job_id == epoch.job_id]
        marks = self.list_marks([epoch.job_id], epoch.since + 1, epoch.until + 1)
        return not marks and not any(span.generation == epoch.generation for span in ranges)


def _copies(rows: Iterable[Row]) -> list[Row]:
    return [copy(row) for row in rows]


def _has_place(row: Execution) -> bool:
    return row.job_id is not None and row.nominal is not None


def _rank(row: Execution) -> tuple[int, str]:
    return -row.work.priority, row.attempt_id


class Maker:
    """How the checks make stores."""

    def __call__(self) -> Storage:
        """On a fresh place."""
        return ToyStorage()

    def again(self, storage: Storage) -> Storage:
        """On the same data, which lives in the object."""
        return storage


def main() -> int:
    """Hold it to the contract: how many promises it keeps."""
    for check in CONTRACT:
        check(Maker())
    return len(CONTRACT)


if __name__ == "__main__":
    print("the toy keeps all", main(), "promises")
