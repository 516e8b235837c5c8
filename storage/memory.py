"""The store in memory: for tests, and for jobs that may be forgotten when the process ends.

Plain dictionaries of rows, with an index for each question that the ledger asks, so that 10,000 jobs which are due at
once cost microseconds each. It never waits and is called on the event loop itself, in bounded batches. Nothing is
undone: the ledger checks first and applies then, and a block of several calls that raises keeps those that were made.

The rows are the ledger's own objects: what is inserted or updated belongs to the store from then on, what is read with
`lock=True` is the stored row itself, to be changed only on the way to its update. All other reading gives copies.

The newest `keep` finished executions stay, and as many ranges, ended epochs and removed jobs; what is dropped moves its
job's horizon, and what is unfinished is never dropped nor passed by a horizon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice, takewhile
from operator import attrgetter
from types import TracebackType
from typing import Any

from attrs import evolve, fields

from ..model.errors import StoreError
from ..model.execution import FINISHED, UNFINISHED, UNSTARTED, Attempt, Execution, Range, State
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.instants import Instant
from ..model.job import JobRecord, ScheduleEpoch
from ..model.policies import count_of
from ..model.strategies import Node
from .ledger import Ledger
from .memory_by_job import ExecutionsByJob
from .memory_history import Bound, EpochsByJob, History, Walk
from .memory_queues import WaitingQueues
from .paging import EXECUTION_COLUMNS, JOB_COLUMNS, column_of, page_rows
from .protocol import Fire, Fired, Mark, TaskRow

# Bound once: looking a member up in its enumeration costs as much as all the rest of a step.
_PENDING, _PLACING, _HELD = State.PENDING, State.PLACING, State.HELD
_RUNNING, _CANCELLED = State.RUNNING, State.CANCELLED

_execution_values: Callable[[Execution], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(Execution)))
_record_values: Callable[[JobRecord], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(JobRecord)))

_SCREENS: Sequence[tuple[str, Callable[[Execution], str | None]]] = (
    ("states", attrgetter("state")),
    ("job_ids", attrgetter("job_id")),
    ("jobs", attrgetter("job_name")),
    ("tasks", attrgetter("work.task")),
    ("queues", attrgetter("work.queue")),
    ("keys", attrgetter("key")),
    ("nodes", attrgetter("node")),
)
"""Fields of `ExecutionFilter` that rule most rows out, and what they look at."""


class _Transaction:
    """Reentrant, and made once: entering costs nothing, and leaving the outermost one looks after the bounds."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and kind is None:
            self._ended()


class MemoryStorage(Ledger):
    """A `Storage` that lives as long as the object does: closed and opened again it still holds what it held.

    `keep` is how many finished executions stay. Raises `InvalidArgument` where it is no count.
    """

    blocking = False
    shared = False

    def __init__(self, *, keep: int = 10_000) -> None:
        super().__init__()
        keep = count_of("keep", least=0)(keep)
        self._facts: dict[str, str] = {}
        self._revision = 0
        self._nodes: dict[str, Node] = {}
        self._tasks: dict[str, TaskRow] = {}
        self._jobs: dict[str, JobRecord] = {}
        """By id, in the order of their revisions: a reader of changes looks at the last ones only."""
        self._named: dict[str, JobRecord] = {}
        epochs = EpochsByJob(self._jobs.get, self._named.get)
        self._history = History(keep, self._may_reach, self.raise_horizons, epochs)
        self._executions: dict[str, Execution] = {}
        self._attempts: dict[str, list[Attempt]] = {}
        self._by_job = ExecutionsByJob(self._executions)
        self._waiting = WaitingQueues()
        self._running: dict[str, Execution] = {}
        """Those in state running, and those cancelled whose task has not stopped yet."""
        self._held: dict[str, set[str]] = {}
        """Of the jobs that hold any: their held executions."""
        self._placing: set[str] = set()
        self._targeted: set[str] = set()
        self._keyed: dict[tuple[str, str], str] = {}
        self._key_of: dict[str, tuple[str, str]] = {}
        """The inverse of `_keyed`: of unfinished executions that have a key."""
        self._finished: dict[str, None] = {}
        """In the order of finishing."""
        self._keep = keep
        self._of_finished = Bound(keep)
        self._job_walk = Walk(lambda: [*self._jobs, *self._history.removed], self._is_known)
        self._execution_walk = Walk(lambda: self._executions, self._executions.__contains__)
        self._transaction = _Transaction(self._keep_bounds)
        self._reading = nullcontext()

    def __repr__(self) -> str:
        return f"MemoryStorage(keep={self._keep})"

    # ---- lifecycle

    def open(self, node: Node, now: Instant) -> None:
        """Register the node. What was stored before is still there."""
        self._node = node
        self._nodes.setdefault(node.id, node)

    def close(self) -> None:
        """Forget the node; everything else stays."""
        if self._node is not None:
            self._nodes.pop(self._node.id, None)
            self._node = None

    def interrupt(self) -> None:
        """Nothing here can hang."""

    def transaction(self) -> AbstractContextManager[None]:
        """Undoes nothing; its end is when the bounds are looked after."""
        return self._transaction

    def reading(self) -> AbstractContextManager[None]:
        """Nobody else can write meanwhile."""
        return self._reading

    def fire(self, fires: Sequence[Fire], now: Instant) -> Fired:
        """As every store does it. A refusal tells of the job as it stands: here a copy of the stored record."""
        answer = super().fire(fires, now)
        for job_id, refusal in answer.refused.items():
            if refusal.record is not None:
                answer.refused[job_id] = evolve(refusal, record=_record(refusal.record))
        return answer

    # ---- facts about the store as a whole

    def get_fact(self, key: str) -> str | None:
        """By key."""
        return self._facts.get(key)

    def set_fact(self, key: str, value: str | None) -> None:
        """Set or remove."""
        if value is None:
            self._facts.pop(key, None)
        else:
            self._facts[key] = value

    def next_revision(self) -> int:
        """One more."""
        self._revision += 1
        return self._revision

    def last_revision(self) -> int:
        """The present one."""
        return self._revision

    # ---- nodes

    def list_nodes(self) -> list[Node]:
        """By id."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def save_node(self, node: Node) -> None:
        """Insert or replace."""
        self._nodes[node.id] = node

    def forget_nodes(self, node_ids: Collection[str]) -> None:
        """Remove."""
        for node_id in node_ids:
            self._nodes.pop(node_id, None)

    # ---- jobs

    def jobs_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """By id."""
        jobs = self._jobs
        if lock:
            return {job_id: jobs[job_id] for job_id in ids if job_id in jobs}
        return {job_id: _record(jobs[job_id]) for job_id in ids if job_id in jobs}

    def jobs_by_name(self, names: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """By name; copies also with `lock`, since this is not what a fire asks."""
        return {name: _record(self._named[name]) for name in names if name in self._named}

    def insert_jobs(self, records: Sequence[JobRecord]) -> None:
        """Copies: the ledger hands out the records that it puts."""
        for record in records:
            if record.name in self._named or record.id in self._jobs:
                raise StoreError(f"a job with the id {record.id} or the name {record.name!r} is stored already")
            self._store_job(_record(record))

    def update_jobs(self, records: Sequence[JobRecord]) -> None:
        """Copies of what is not the stored record itself."""
        for record in records:
            stored = self._jobs.get(record.id)
            if stored is not None:
                self._store_job(stored if stored is record else _record(record))

    def _store_job(self, record: JobRecord) -> None:
        self._jobs.pop(record.id, None)
        self._jobs[record.id] = self._named[record.name] = record

    def update_cursors(self, records: Sequence[JobRecord]) -> None:
        """What a fire changes; nothing to do where it changed the stored record."""
        for record in records:
            stored = self._jobs.get(record.id)
            if stored is not None and stored is not record:
                stored.cursor, stored.fired, stored.horizon = record.cursor, record.fired, record.horizon

    def delete_job_rows(self, records: Sequence[JobRecord], revision: int, now: Instant) -> None:
        """Remove, and remember."""
        known = [record for record in records if record.id in self._jobs]
        self._history.remember_removed(known, revision, now)
        for record in known:
            del self._jobs[record.id], self._named[record.name]

    def removed_since(self, revision: int) -> tuple[Sequence[tuple[str, str]], bool]:
        """Ids and names, and whether that is all."""
        return self._history.removed_since(revision)

    def select_jobs(
        self, where: JobFilter, order: Order, limit: int | None, cursor: str | None, *, after_revision: int = -1
    ) -> tuple[list[JobRecord], str | None]:
        """A page of copies."""
        column, _ = column_of(order, JOB_COLUMNS)
        rows = self._meant_jobs(where) if after_revision < 0 else self._changed_jobs(where, after_revision)
        page, following = page_rows(rows, order, attrgetter(column), limit, cursor)
        return [_record(record) for record in page], following

    def count_job_rows(self, where: JobFilter) -> int:
        """How many."""
        return len(self._meant_jobs(where))

    def _meant_jobs(self, where: JobFilter) -> list[JobRecord]:
        candidates: Iterable[JobRecord] = self._jobs.values()
        if where.ids is not None:
            candidates = [self._jobs[job_id] for job_id in where.ids if job_id in self._jobs]
        elif where.names is not None:
            candidates = [self._named[name] for name in where.names if name in self._named]
        return [record for record in candidates if where.matches(record)]

    def _changed_jobs(self, where: JobFilter, revision: int) -> list[JobRecord]:
        later = takewhile(lambda record: record.revision > revision, reversed(self._jobs.values()))
        return list(later) if where == EVERY_JOB else [record for record in later if where.matches(record)]

    def delete_all_jobs(self) -> None:
        """Every job and the history; executions stay."""
        self._jobs.clear()
        self._named.clear()
        self._history.forget_all(self._revision)

    # ---- the ledger of verdicts

    def insert_epochs(self, epochs: Sequence[ScheduleEpoch]) -> None:
        """Spans that begin."""
        self._history.insert_epochs(epochs)

    def end_epochs(self, ends: Sequence[tuple[str, Instant]]) -> None:
        """Spans that end."""
        self._history.end_epochs(ends)

    def list_epochs(self, name: str) -> list[ScheduleEpoch]:
        """Of all jobs that bore the name."""
        return self._history.epochs_of(name)

    def horizons(self, job_ids: Collection[str]) -> Mapping[str, tuple[Instant, Instant]]:
        """Horizon and cursor."""
        known = {job_id: self._jobs.get(job_id) or self._history.removed.get(job_id) for job_id in job_ids}
        return {job_id: (job.horizon, job.cursor) for job_id, job in known.items() if job is not None}

    def raise_horizons(self, horizons: Mapping[str, Instant]) -> None:
        """Forward only."""
        for job_id, horizon in horizons.items():
            self._raise_horizon(job_id, horizon)

    def _raise_horizon(self, job_id: str, horizon: Instant) -> None:
        job = self._jobs.get(job_id) or self._history.removed.get(job_id)
        if job is not None and job.horizon < horizon:
            job.horizon = horizon

    def _may_reach(self, job_id: str, horizon: Instant) -> bool:
        """Whether a job's horizon would not pass its oldest unfinished execution."""
        oldest = self._by_job.oldest_unfinished(job_id)
        return oldest is None or horizon <= oldest

    def insert_ranges(self, ranges: Sequence[Range]) -> None:
        """Settled nominal times."""
        self._history.insert_ranges(ranges)

    def list_ranges(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Range]:
        """Those that touch the span."""
        return self._history.ranges_of(job_ids, start, end)

    def list_marks(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Mark]:
        """Of executions with a nominal time in the span."""
        return [
            _mark(job_id, nominal, self._executions[row_id])
            for job_id in sorted(set(job_ids))
            if (of_job := self._by_job.get(job_id)) is not None
            for nominal in of_job.between(start, end)
            for row_id in sorted(of_job.ids_at(nominal))
        ]

    # ---- executions

    def executions_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, Execution]:
        """By id."""
        rows = self._executions
        if lock:
            return {row_id: rows[row_id] for row_id in ids if row_id in rows}
        return {row_id: _copy(rows[row_id]) for row_id in ids if row_id in rows}

    def insert_executions(self, rows: Sequence[Execution]) -> None:
        """All or none."""
        new = self._waiting.new
        for index, row in enumerate(rows):
            job_id = row.job_id
            if row.id in self._executions or (job_id is not None and not self._by_job.add(job_id, row)):
                self.delete_execution_rows([inserted.id for inserted in rows[:index]])
                raise StoreError(
                    f"execution {row.id}, or one of the same job, nominal time and target, is stored already"
                )
            self._executions[row.id] = row
            if row.state is _PENDING and row.key is None and not row.target:  # a short way for nearly all
                new[row.id] = row
            else:
                self._file(row)

    def update_executions(self, rows: Sequence[Execution]) -> None:
        """Take the rows in the place of those stored, which they mostly are."""
        for row in rows:
            if row.id in self._executions:
                self._executions[row.id] = row
                self._file(row)

    def save_started(self, rows: Sequence[Execution]) -> None:
        """As `_file` does it, less what cannot be otherwise: nearly every execution comes this way."""
        self._waiting.drop_all(rows)
        for row in rows:
            self._running[row.id] = row
            if row.target:
                self._targeted.discard(row.id)

    def save_ended(self, rows: Sequence[Execution]) -> None:
        """The same."""
        running, finished = self._running, self._finished
        for row in rows:
            row_id = row.id
            del running[row_id]
            finished[row_id] = None
            if row.key is not None:
                self._drop_key(row_id)
        self._by_job.close(rows)

    def _file(self, row: Execution) -> None:
        """Enter a row where its values belong, and take it out where they do not belong any more.

        What a row was before is not known here (it may be the same object): each index is told what now is.
        """
        row_id, state, job_id = row.id, row.state, row.job_id
        if state is _PENDING:
            self._waiting.put(row)
        else:
            self._waiting.drop(row_id)
        if state is _RUNNING or (state is _CANCELLED and row.occupies):
            self._running[row_id] = row
        else:
            self._running.pop(row_id, None)
        if row.occupies or state not in FINISHED:
            self._finished.pop(row_id, None)
        else:
            self._finished[row_id] = None
        if job_id is not None:
            self._by_job.file(job_id, row)
            if self._held or state is _HELD:
                self._file_held(job_id, row_id, state is _HELD)
        if state is _PLACING or row_id in self._placing:
            self._mark_member(self._placing, row_id, state is _PLACING)
        if row.target or row_id in self._targeted:
            self._mark_member(self._targeted, row_id, bool(row.target) and state in UNSTARTED)
        if row.key is not None or row_id in self._key_of:
            self._file_key(row)

    def _file_held(self, job_id: str, row_id: str, is_held: bool) -> None:
        held = self._held.get(job_id, set())
        self._mark_member(held, row_id, is_held)
        if held:
            self._held[job_id] = held
        else:
            self._held.pop(job_id, None)

    @staticmethod
    def _mark_member(members: set[str], row_id: str, belongs: bool) -> None:
        if belongs:
            members.add(row_id)
        else:
            members.discard(row_id)

    def _file_key(self, row: Execution) -> None:
        self._drop_key(row.id)
        if row.key is not None and row.state in UNFINISHED:
            pair = row.work.task, row.key
            self._keyed[pair], self._key_of[row.id] = row.id, pair

    def _drop_key(self, row_id: str) -> None:
        pair = self._key_of.pop(row_id, None)
        if pair is not None and self._keyed.get(pair) == row_id:
            del self._keyed[pair]

    def delete_execution_rows(self, ids: Collection[str]) -> None:
        """With their attempts."""
        for row_id in ids:
            row = self._executions.pop(row_id, None)
            if row is None:
                continue
            if row_id in self._finished:
                del self._finished[row_id]
            else:
                self._unfile(row)
            if self._attempts:
                self._attempts.pop(row_id, None)
            if row.job_id is not None:
                self._by_job.remove(row.job_id, row)

    def _unfile(self, row: Execution) -> None:
        """Take a row that is not finished out of all indexes."""
        self._waiting.drop(row.id)
        if row.job_id is not None:
            self._file_held(row.job_id, row.id, False)
        self._running.pop(row.id, None)
        self._placing.discard(row.id)
        self._targeted.discard(row.id)
        self._drop_key(row.id)

    def insert_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Past attempts; of a single execution the latest are kept, one at least."""
        keep = max(self._keep, 1)
        for attempt in attempts:
            past = self._attempts.setdefault(attempt.execution_id, [])
            past.append(attempt)
            if len(past) > 2 * keep:
                del past[: len(past) - keep]

    def attempt_rows(self, execution_id: str) -> list[Attempt]:
        """In the order of their ids."""
        return sorted(self._attempts.get(execution_id, ()), key=attrgetter("id"))

    def unfinished_of_jobs(self, job_ids: Collection[str], *, lock: bool = False) -> dict[str, list[Execution]]:
        """Per job, by id."""
        found = self._by_job.open_of(job_ids)
        return found if lock else {job_id: [_copy(row) for row in rows] for job_id, rows in found.items()}

    def holding_jobs(self, job_ids: Collection[str]) -> Collection[str]:
        """Mostly none."""
        return [job_id for job_id in job_ids if job_id in self._held] if self._held else ()

    def crowded_jobs(self, job_ids: Collection[str]) -> dict[str, list[Execution]]:
        """Without a list for each job that has but one."""
        return self._by_job.crowded(job_ids)

    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """By task and key."""
        return {pair: _copy(self._executions[self._keyed[pair]]) for pair in tasks_and_keys if pair in self._keyed}

    def running_rows(self, node_ids: Collection[str] | None, limit: int | None, after: str | None) -> list[Execution]:
        """By attempt id."""
        rows = [
            row
            for row in self._running.values()
            if (node_ids is None or row.node in node_ids) and (after is None or row.attempt_id > after)
        ]
        rows.sort(key=attrgetter("attempt_id"))
        return [_copy(row) for row in rows[:limit]]

    def targeted_rows(self, alive: Collection[str]) -> list[Execution]:
        """Unstarted, of other nodes than these."""
        rows = (self._executions[row_id] for row_id in sorted(self._targeted))
        return [_copy(row) for row in rows if row.target not in alive]

    def cancelled_since(self, revision: int) -> list[tuple[str, str]]:
        """Executions and attempts that are still to stop."""
        rows = (row for row in self._running.values() if row.occupies and row.cancel_revision > revision)
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
        if limits is None:
            lines = [(self._waiting.best_of_all(now, after), limit)]
        else:
            lines = [(self._waiting.best(queue, now, after), count) for queue, count in limits.items()]
        ignored = frozenset(ignore)
        rows = [
            row for ids, count in lines for row in islice(self._startable(ids, node_id, tasks, ignored), max(count, 0))
        ]
        return rows if lock else [_copy(row) for row in rows]

    def _startable(
        self, ids: Iterable[str], node_id: str | None, tasks: Collection[str] | None, ignore: frozenset[str]
    ) -> Iterator[Execution]:
        rows = self._executions
        for row_id in ids:
            row = rows[row_id]
            if (
                (node_id is None or not row.target or row.target == node_id)
                and (tasks is None or row.work.task in tasks)
                and row_id not in ignore
            ):
                yield row

    def next_due_rows(
        self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]
    ) -> Mapping[str, Instant]:
        """Per queue the earliest."""
        return self._waiting.next_due(after, queues, ignore)

    def unplaced_rows(self, now: Instant, limit: int) -> list[Execution]:
        """Placing and due, by id."""
        rows = (self._executions[row_id] for row_id in sorted(self._placing))
        return [_copy(row) for row in islice((row for row in rows if row.not_before <= now), limit)]

    def select_executions(
        self, where: ExecutionFilter, order: Order, limit: int | None, cursor: str | None, offset: int = 0
    ) -> tuple[list[Execution], str | None]:
        """A page of copies."""
        column, _ = column_of(order, EXECUTION_COLUMNS)
        page, following = page_rows(self._meant(where), order, attrgetter(column), limit, cursor, offset)
        return [_copy(row) for row in page], following

    def count_execution_rows(self, where: ExecutionFilter) -> int:
        """How many."""
        return len(self._meant(where))

    def count_by_state(self, where: ExecutionFilter) -> dict[State, int]:
        """How many in each state."""
        return dict(Counter(row.state for row in self._meant(where)))

    def _meant(self, where: ExecutionFilter) -> Collection[Execution]:
        """The rows that a filter means; the cheap sieves first, since there may be many rows."""
        rows: Collection[Execution] = self._executions.values()
        if where == EVERY_EXECUTION:
            return rows
        if where.ids is not None:
            rows = [self._executions[row_id] for row_id in where.ids if row_id in self._executions]
        for name, value_of in _SCREENS:
            wanted: frozenset[str] | None = getattr(where, name)
            if wanted is not None:
                rows = [row for row in rows if value_of(row) in wanted]
        return [row for row in rows if where.matches(row)]

    # ---- tasks and history

    def save_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """Insert or replace."""
        for task in tasks:
            self._tasks[task.name] = task

    def list_task_rows(self) -> list[TaskRow]:
        """By name."""
        return [self._tasks[name] for name in sorted(self._tasks)]

    def expired_executions(self, before: Instant, limit: int) -> list[tuple[str, str | None, Instant | None]]:
        """Finished before, oldest first."""
        finished = [self._executions[row_id] for row_id in self._finished]
        old = [row for row in finished if row.finished_at is not None and row.finished_at < before]
        old.sort(key=lambda row: (row.finished_at, row.id))
        return [(row.id, row.job_id, row.nominal) for row in islice(self._droppable(old), limit)]

    def _droppable(self, rows: Iterable[Execution]) -> Iterator[Execution]:
        """Those that no unfinished execution of the same job keeps back."""
        stops: dict[str, Instant | None] = {}
        for row in rows:
            job_id, nominal = row.job_id, row.nominal
            if job_id is not None and nominal is not None:
                if job_id not in stops:
                    stops[job_id] = self._by_job.oldest_unfinished(job_id)
                stop = stops[job_id]
                if stop is not None and stop <= nominal:
                    continue
            yield row

    def delete_ranges(self, before: Instant, limit: int) -> int:
        """Those that end at or before."""
        return self._history.drop_ranges(limit, before)

    def forget_removed(self, before: Instant, limit: int) -> int:
        """Of which nothing is left to read."""
        return self._history.forget_removed(before, limit, self._has_executions)

    # ---- for auditors

    def remembered_jobs(self, after: str, limit: int) -> list[tuple[str, str, bool]]:
        """Living and removed ones."""
        removed = self._history.removed
        return [
            (job_id, (self._jobs.get(job_id) or removed[job_id]).name, job_id in removed)
            for job_id in self._job_walk.after(after, limit)
        ]

    def _is_known(self, job_id: str) -> bool:
        return job_id in self._jobs or job_id in self._history.removed

    def epochs_of(self, job_id: str, name: str) -> list[ScheduleEpoch]:
        """Of one job."""
        return self._history.epochs_of_job(job_id)

    def stretch_end(self, job_id: str, start: Instant, limit: int) -> Instant | None:
        """By position among the sorted times."""
        of_job = self._by_job.get(job_id)
        ends = [] if of_job is None else of_job.nth_from(start, limit)
        ends += self._history.starts_of(job_id, start)[limit : limit + 1]
        return max(min(ends), start + 1) if ends else None

    def execution_ids(self, after: str, limit: int) -> list[str]:
        """Of those that were there when the walk began."""
        return self._execution_walk.after(after, limit)

    def _has_executions(self, job_id: str, since: Instant | None, until: Instant | None) -> bool:
        of_job = self._by_job.get(job_id)
        if of_job is None or since is None or until is None:
            return of_job is not None
        return bool(of_job.between(since + 1, until + 1))

    def _keep_bounds(self) -> None:
        """Drop what is too much, when a transaction has ended."""
        if surplus := self._of_finished.surplus(len(self._finished)):
            self._drop_oldest(surplus)
            self._of_finished.settle(len(self._finished))
        self._history.keep_bounds()

    def _drop_oldest(self, count: int) -> None:
        rows = list(islice(self._droppable(map(self._executions.__getitem__, self._finished)), count))
        for row in rows:
            if row.job_id is not None and row.nominal is not None:
                self._raise_horizon(row.job_id, row.nominal + 1)
        self.delete_execution_rows([row.id for row in rows])


def _copy(row: Execution) -> Execution:
    return Execution(*_execution_values(row))


def _record(record: JobRecord) -> JobRecord:
    return JobRecord(*_record_values(record))


def _mark(job_id: str, nominal: Instant, row: Execution) -> Mark:
    return Mark(job_id, nominal, row.id, row.verdict, row.state, row.reason, row.target)
