"""Executions in SQLite: which index leads to them.

SQLite keeps no statistics of its own accord: wherever it would have to guess, a query names the index that it is to be
read by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ..model.execution import UNFINISHED, Execution, State
from ..model.filters import ExecutionFilter
from ..model.instants import Instant
from .rows import Row
from .sql import Conditions, execution_conditions
from .sql_access import insert
from .sql_executions import SQLExecutions, ready_order
from .sqlite_queries import IN_LIST, SQLITE, listed

_MANY: Final = 4096
"""So many delayed executions that have come due are sorted; of more, the best are looked up in the order of all."""

_RUNNING = frozenset((State.RUNNING,))
_UNSUCCESSFUL = frozenset((State.CANCELLED, State.EXPIRED, State.FAILED))
_IDS = "sqlite_autoindex_executions_1"
"""The index of the primary key."""


class SQLiteExecutions(SQLExecutions):
    """The tables `executions`, `attempts` and `job_names`."""

    dialect = SQLITE

    # ---- what may start

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
        """Per queue the best few, or the best of all."""
        where = self._startable(now, node_id, tasks, after, ignore)
        if limits is not None:
            return [row for queue, most in limits.items() for row in self._ready_in_queue(queue, now, most, where)]
        rows = [row for queue in self._queues() for row in self._ready_in_queue(queue, now, limit, where)]
        return sorted(rows, key=ready_order)[:limit]

    def _ready_in_queue(self, queue: str, now: Instant, limit: int, where: Conditions) -> list[Execution]:
        if limit <= 0:
            return []
        rows = self._best(queue, 0, limit, where, "ready")
        late = self._come_due(queue, now)
        if late:
            rows += self._best(queue, 1, limit, where, "due" if late < _MANY else "ready")
            rows.sort(key=ready_order)
        return rows[:limit]

    def _come_due(self, queue: str, now: Instant) -> int:
        """How many of a queue's delayed executions have come due; it counts no further than `_MANY`."""
        rows = self._session().fetch(
            "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY due "
            "WHERE state = 'pending' AND queue = ? AND delayed = 1 AND not_before <= ? LIMIT ?)",
            (queue, now, _MANY),
        )
        return int(rows[0][0])

    def _best(self, queue: str, delayed: int, limit: int, where: Conditions, index: str) -> list[Execution]:
        terms = ["state = 'pending'", "queue = ?", f"delayed = {delayed}", *where.terms]
        chosen = Conditions(SQLITE, terms, [queue, *where.parameters])
        return self._sound_executions(chosen, "ORDER BY priority DESC, attempt_id", limit, index)

    def next_due_rows(
        self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]
    ) -> Mapping[str, Instant]:
        """Per queue the earliest."""
        passed_over = [*ignore, *self._damaged.get("executions", ())]
        without = f" AND id NOT {IN_LIST}" if passed_over else ""
        earliest = " UNION ALL ".join(
            "SELECT min(not_before) FROM executions INDEXED BY due "
            f"WHERE state = 'pending' AND queue = ?1 AND delayed = {delayed} AND not_before > ?2{without}"
            for delayed in (0, 1)
        ).replace("json_each(?)", "json_each(?3)")
        parameters = (after, listed(passed_over)) if passed_over else (after,)
        found: dict[str, Instant] = {}
        for queue in self._queues() if queues is None else queues:
            rows = self._session().fetch(earliest, (queue, *parameters))
            instants = [row[0] for row in rows if row[0] is not None]
            if instants:
                found[queue] = min(instants)
        return found

    # ---- lists

    def _way_to(self, where: ExecutionFilter, *, stops_early: bool = False) -> tuple[str, Conditions]:
        """The table with the index to read it by, and the filter's conditions with those that the index asks for.

        `stops_early`: the rows are read in the order of their ids until a page is full, which is better for a job with
        many executions.
        """
        conditions = execution_conditions(SQLITE, where)
        if where.ids is not None:
            return "executions", conditions
        states = where.states
        waiting = states is not None and states <= UNFINISHED
        if waiting:
            conditions.add("open = 1")
        if where.jobs is not None or where.job_ids is not None:
            jobs = self._jobs_meant(where)
            if not waiting and stops_early and self._has_many(jobs):
                return f"executions INDEXED BY {_IDS}", conditions
            conditions.add(f"job_id IS NOT NULL AND job_id {IN_LIST}", listed(jobs))
            return f"executions INDEXED BY {'open_of_job' if waiting else 'job_times'}", conditions
        if states == _RUNNING:
            conditions.add("node IS NOT NULL")
            return "executions INDEXED BY open_of_node", conditions
        if waiting:
            return "executions INDEXED BY open_ids", conditions
        if states is not None and states <= _UNSUCCESSFUL:
            conditions.add("(state = 'cancelled' OR state = 'expired' OR state = 'failed')")
            return "executions INDEXED BY unsuccessful", conditions
        return "executions", conditions

    def _has_many(self, job_ids: Collection[str]) -> bool:
        rows = self._session().fetch(
            "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY job_times "
            f"WHERE job_id IS NOT NULL AND job_id {IN_LIST} LIMIT ?)",
            (listed(job_ids), _MANY),
        )
        return int(rows[0][0]) == _MANY

    # ---- writing

    def _insert(self, columns: Sequence[str], table: str, rows: Sequence[Row]) -> None:
        self._session().run_many(insert(columns, table), rows)

    def _update(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        assigned = ", ".join(f"{column} = ?" for column in columns)
        self._session().run_many(f"UPDATE executions SET {assigned} WHERE id = ?", rows)
