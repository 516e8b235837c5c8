"""The table primitives on SQL: rows of `rows.py` in and out of tables that every SQL adapter has with the same columns.

Here are facts, nodes, jobs, verdicts, tasks and what retention asks for; executions have `sql_executions.py`. Knows
nothing of files, servers and threads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

from ..model.execution import UNFINISHED, Range
from ..model.filters import EVERY_JOB, JobFilter, Order
from ..model.instants import Instant
from ..model.job import JobRecord, ScheduleEpoch
from ..model.strategies import Node
from .protocol import Mark, TaskRow
from .rows import (
    EPOCH_COLUMNS,
    JOB_COLUMNS,
    MARK_COLUMNS,
    NODE_COLUMNS,
    RANGE_COLUMNS,
    TASK_COLUMNS,
    epoch_from_row,
    epoch_to_row,
    job_from_row,
    job_to_row,
    mark_from_row,
    node_from_row,
    node_to_row,
    range_from_row,
    range_to_row,
    task_from_row,
    task_to_row,
)
from .sql import job_conditions, job_sorting
from .sql_access import cut_page, insert, insert_or_replace, instead, select, words
from .sql_auditing import SQLAuditing

_REMOVED = ("id", "name", "revision", "removed_at", "horizon", "cursor")
_JOBS = select(JOB_COLUMNS, "jobs")
_AT_ONCE = 1000
_EARLIER_UNFINISHED = f"""EXISTS (
    SELECT 1 FROM executions AS other{{by_job}}
    WHERE other.open = 1 AND other.job_id = {{job_id}} AND other.nominal <= {{nominal}}
        AND other.state IN ({words(UNFINISHED)})
)"""


class SQLTables(SQLAuditing):
    """Row access for the ledger, but for the executions."""

    @abstractmethod
    def _is_alive(self, node_id: str) -> bool | None:
        """What can be told of a node."""

    # ---- facts about the store as a whole

    def get_fact(self, key: str) -> str | None:
        """A fact, if it is set."""
        rows = self._session().fetch("SELECT value FROM facts WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set_fact(self, key: str, value: str | None) -> None:
        """Set or remove."""
        if value is None:
            self._session().run("DELETE FROM facts WHERE key = ?", (key,))
        else:
            self._session().run(insert_or_replace(("key", "value"), "facts"), (key, value))

    def next_revision(self) -> int:
        """Count it up."""
        self._session().run("UPDATE facts SET value = value + 1 WHERE key = 'revision'")
        return self.last_revision()

    def last_revision(self) -> int:
        """The last one."""
        return int(self._session().fetch("SELECT value FROM facts WHERE key = 'revision'")[0][0])

    # ---- nodes

    def list_nodes(self) -> list[Node]:
        """By id, alive or dead as far as the store can tell."""
        rows = self._session().fetch(select(NODE_COLUMNS, "nodes") + " ORDER BY id")
        return self._understood("nodes", rows, lambda row: node_from_row(row, self._is_alive(row[0])))

    def save_node(self, node: Node) -> None:
        """Insert or replace."""
        self._session().run(insert_or_replace(NODE_COLUMNS, "nodes"), node_to_row(node))

    def forget_nodes(self, node_ids: Collection[str]) -> None:
        """Remove."""
        self._session().run(f"DELETE FROM nodes WHERE {self.dialect.listed('id')}", (self.dialect.pack(node_ids),))

    # ---- jobs

    def jobs_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """In the order of their ids."""
        return {record.id: record for record in self._jobs("id", ids, lock)} if ids else {}

    def jobs_by_name(self, names: Collection[str], *, lock: bool = False) -> dict[str, JobRecord]:
        """In the order of their ids."""
        return {record.name: record for record in self._jobs("name", names, lock)} if names else {}

    def _jobs(self, column: str, values: Collection[str], lock: bool) -> list[JobRecord]:
        """Those with one of the values, by id. Where transactions run side by side, `lock` keeps others away."""
        where = f"{_JOBS} WHERE {self.dialect.listed(column)} ORDER BY id"
        return self._understood("jobs", self._session().fetch(where, (self.dialect.pack(values),)), job_from_row)

    def insert_jobs(self, records: Sequence[JobRecord]) -> None:
        """New ones. A damaged row of the same name gives way: it is remembered as a job that was removed."""
        if self._damaged.get("jobs"):
            self._bury_damaged([record.name for record in records])
        self._session().run_many(insert(JOB_COLUMNS, "jobs"), map(job_to_row, records))

    def _bury_damaged(self, names: Sequence[str]) -> None:
        session, dialect, revision = self._session(), self.dialect, self.last_revision()
        chosen = f"FROM jobs WHERE {dialect.listed('name')} AND {dialect.listed('id')}"
        these = (dialect.pack(names), dialect.pack(self._damaged["jobs"]))
        session.run(
            f"INSERT INTO removed ({', '.join(_REMOVED)}) "
            f"SELECT id, name, {revision}, updated_at, horizon, cursor {chosen}{instead(_REMOVED)}",
            these,
        )
        session.run(f"DELETE {chosen}", these)

    def update_jobs(self, records: Sequence[JobRecord]) -> None:
        """Everything but id and name."""
        columns = JOB_COLUMNS[2:]
        self._session().run_many(
            f"UPDATE jobs SET {', '.join(f'{column} = ?' for column in columns)} WHERE id = ?",
            [(*row[2:], row[0]) for row in map(job_to_row, records)],
        )

    def update_cursors(self, records: Sequence[JobRecord]) -> None:
        """What changes with each fire."""
        self._session().run_many(
            "UPDATE jobs SET cursor = ?, fired = ?, horizon = ? WHERE id = ?",
            [(record.cursor, record.fired, record.horizon, record.id) for record in records],
        )

    def delete_job_rows(self, records: Sequence[JobRecord], revision: int, now: Instant) -> None:
        """Remove and remember."""
        session = self._session()
        session.run_many(
            insert_or_replace(_REMOVED, "removed"),
            [(record.id, record.name, revision, now, record.horizon, record.cursor) for record in records],
        )
        ids = self.dialect.pack(record.id for record in records)
        session.run(f"DELETE FROM jobs WHERE {self.dialect.listed('id')}", (ids,))

    def removed_since(self, revision: int) -> tuple[Sequence[tuple[str, str]], bool]:
        """By revision; whether nothing later than it has been forgotten."""
        rows = self._session().fetch(
            "SELECT id, name FROM removed WHERE revision > ? ORDER BY revision, id", (revision,)
        )
        return [(row[0], row[1]) for row in rows], revision >= int(self.get_fact("forgotten") or 0)

    def select_jobs(
        self, where: JobFilter, order: Order, limit: int | None, cursor: str | None, *, after_revision: int = -1
    ) -> tuple[list[JobRecord], str | None]:
        """A page."""
        sorting, conditions = job_sorting(order), job_conditions(self.dialect, where)
        if after_revision >= 0:
            conditions.compare("revision", ">", after_revision)
        rows = self._page(JOB_COLUMNS, "jobs", sorting.parts(conditions, cursor), limit)
        page, following = cut_page(rows, JOB_COLUMNS, sorting, limit, cursor)
        return self._understood("jobs", page, job_from_row), following

    def every_job(self) -> Sequence[JobRecord]:
        """Page by page: the rows of a million jobs at once take more room than the jobs."""
        records, cursor = self.select_jobs(EVERY_JOB, Order.ID, _AT_ONCE, None)
        while cursor is not None:
            page, cursor = self.select_jobs(EVERY_JOB, Order.ID, _AT_ONCE, cursor)
            records += page
        return records

    def count_job_rows(self, where: JobFilter) -> int:
        """How many."""
        return self._count("jobs", job_conditions(self.dialect, where))

    def delete_all_jobs(self) -> None:
        """All, and the memory of those removed before: who asks for earlier changes must load everything anew."""
        session = self._session()
        for table in ("jobs", "epochs", "ranges", "removed"):
            session.run(f"DELETE FROM {table}")
        self._remember_forgetting(self.last_revision())

    def _remember_forgetting(self, revision: int) -> None:
        self._session().run("UPDATE facts SET value = ? WHERE key = 'forgotten' AND value < ?", (revision, revision))

    # ---- the ledger of verdicts

    def insert_epochs(self, epochs: Sequence[ScheduleEpoch]) -> None:
        """Spans that begin."""
        self._session().run_many(insert(EPOCH_COLUMNS, "epochs"), map(epoch_to_row, epochs))

    def end_epochs(self, ends: Sequence[tuple[str, Instant]]) -> None:
        """End open spans."""
        self._session().run_many(
            "UPDATE epochs SET until = ? WHERE job_id = ? AND until IS NULL",
            [(until, job_id) for job_id, until in ends],
        )

    def list_epochs(self, name: str) -> list[ScheduleEpoch]:
        """By job id and beginning."""
        rows = self._session().fetch(
            select(EPOCH_COLUMNS, "epochs") + " WHERE name = ? ORDER BY job_id, since, generation", (name,)
        )
        return self._understood("epochs", rows, epoch_from_row)

    def horizons(self, job_ids: Collection[str]) -> Mapping[str, tuple[Instant, Instant]]:
        """Of living and of removed jobs."""
        ids, chosen = self.dialect.pack(job_ids), self.dialect.listed("id")
        rows = self._session().fetch(
            f"SELECT id, horizon, cursor FROM removed WHERE {chosen} "
            f"UNION ALL SELECT id, horizon, cursor FROM jobs WHERE {chosen}",
            (ids, ids),
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def insert_ranges(self, ranges: Sequence[Range]) -> None:
        """Ranges of settled times."""
        if ranges:
            self._session().run_many(insert(RANGE_COLUMNS, "ranges"), map(range_to_row, ranges))

    def list_ranges(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Range]:
        """Those that touch the span, by job and start."""
        rows = self._session().fetch(
            select(RANGE_COLUMNS, "ranges")
            + f" WHERE {self.dialect.listed('job_id')} AND first < ? AND until > ? ORDER BY job_id, first, rowid",
            (self.dialect.pack(job_ids), end, start),
        )
        return self._understood("ranges", rows, range_from_row)

    def list_marks(self, job_ids: Collection[str], start: Instant, end: Instant) -> list[Mark]:
        """By job, nominal time and id."""
        rows = self._session().fetch(
            select(MARK_COLUMNS, "executions")
            + f" WHERE job_id IS NOT NULL AND {self.dialect.listed('job_id')} AND nominal >= ? AND nominal < ?"
            " ORDER BY job_id, nominal, id",
            (self.dialect.pack(job_ids), start, end),
        )
        return self._understood("executions", rows, mark_from_row)

    # ---- tasks and history

    def save_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """Insert or replace."""
        self._session().run_many(insert_or_replace(TASK_COLUMNS, "tasks"), map(task_to_row, tasks))

    def list_task_rows(self) -> list[TaskRow]:
        """By name."""
        rows = self._session().fetch(select(TASK_COLUMNS, "tasks") + " ORDER BY name")
        return self._understood("tasks", rows, task_from_row)

    def expired_executions(self, before: Instant, limit: int) -> list[tuple[str, str | None, Instant | None]]:
        """Oldest first, without what an unfinished execution of the same job holds back."""
        held_back = self._earlier_unfinished("executions.job_id", "executions.nominal")
        rows = self._session().fetch(
            f"SELECT id, job_id, nominal FROM executions{self.dialect.by('history')} "
            f"WHERE finished_at IS NOT NULL AND finished_at < ? AND occupies = 0 AND NOT {held_back} "
            "ORDER BY finished_at, id LIMIT ?",
            (before, limit),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def _earlier_unfinished(self, job_id: str, nominal: str) -> str:
        return _EARLIER_UNFINISHED.format(by_job=self.dialect.by("open_of_job"), job_id=job_id, nominal=nominal)

    def raise_horizons(self, horizons: Mapping[str, Instant]) -> None:
        """Never back."""
        greatest = self.dialect.greatest
        rows = [(horizon, job_id) for job_id, horizon in sorted(horizons.items())]
        for table in ("jobs", "removed"):
            self._session().run_many(f"UPDATE {table} SET horizon = {greatest}(horizon, ?) WHERE id = ?", rows)

    def delete_ranges(self, before: Instant, limit: int) -> int:
        """Oldest first, without what an unfinished execution of the same job holds back."""
        held_back = self._earlier_unfinished("ranges.job_id", "ranges.until - 1")
        rows = self._session().fetch(
            f"SELECT rowid, job_id, until FROM ranges{self.dialect.by('range_ends')} "
            f"WHERE until <= ? AND NOT {held_back} ORDER BY until LIMIT ?",
            (before, limit),
        )
        self.raise_horizons({row[1]: row[2] for row in rows})
        self._session().run_many("DELETE FROM ranges WHERE rowid = ?", [(row[0],) for row in rows])
        return len(rows)

    def forget_removed(self, before: Instant, limit: int) -> int:
        """Removed jobs without executions and ranges, and ended spans in which there are none."""
        forgotten = self._forget_jobs(before, limit)
        if forgotten < limit:
            forgotten += self._forget_epochs(before, limit - forgotten)
            self._forget_names()
        return forgotten

    def _forget_jobs(self, before: Instant, limit: int) -> int:
        session = self._session()
        rows = session.fetch(
            "SELECT id, revision FROM removed WHERE removed_at < ? "
            "AND NOT EXISTS (SELECT 1 FROM executions WHERE job_id IS NOT NULL AND job_id = removed.id) "
            "AND NOT EXISTS (SELECT 1 FROM ranges WHERE job_id = removed.id) ORDER BY revision LIMIT ?",
            (before, limit),
        )
        if rows:
            chosen = (self.dialect.pack(row[0] for row in rows),)
            session.run(f"DELETE FROM epochs WHERE {self.dialect.listed('job_id')}", chosen)
            session.run(f"DELETE FROM removed WHERE {self.dialect.listed('id')}", chosen)
            self._remember_forgetting(max(row[1] for row in rows))
        return len(rows)

    def _forget_epochs(self, before: Instant, limit: int) -> int:
        session = self._session()
        rows = session.fetch(
            "SELECT job_id, since, generation FROM epochs WHERE until < ? "
            "AND NOT EXISTS (SELECT 1 FROM ranges "
            "WHERE ranges.job_id = epochs.job_id AND ranges.generation = epochs.generation) "
            "AND NOT EXISTS (SELECT 1 FROM executions WHERE executions.job_id = epochs.job_id "
            "AND nominal > epochs.since AND nominal <= epochs.until) LIMIT ?",
            (before, limit),
        )
        session.run_many("DELETE FROM epochs WHERE job_id = ? AND since = ? AND generation = ?", rows)
        return len(rows)

    def _forget_names(self) -> None:
        gone = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM {table} WHERE {column} = job_names.job_id)"
            for table, column in (("jobs", "id"), ("removed", "id"), ("executions", "executions.job_id"))
        )
        self._session().run(f"DELETE FROM job_names WHERE {gone}")
