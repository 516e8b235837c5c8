"""Executions in SQLite: found by index, written with few columns.

Executions that a transaction has read are remembered as they stand in the file, so that an update writes the columns
that differ and leaves the indexes of the others alone; an insert names only what is not the default. SQLite keeps no
statistics of its own accord: wherever it would have to guess, a query names the index that it is to be read by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import Any, Final

from ..model.execution import FINISHED, UNFINISHED, UNSTARTED, Attempt, Execution, State
from ..model.filters import EVERY_EXECUTION, ExecutionFilter, Order
from ..model.instants import Instant
from .rows import (
    ATTEMPT_COLUMNS,
    DAMAGE,
    EXECUTION_COLUMNS,
    EXECUTION_DEFAULTS,
    Row,
    attempt_from_row,
    attempt_to_row,
    execution_from_row,
    execution_to_row,
    stored,
)
from .sql import Conditions, execution_conditions, execution_sorting
from .sqlite_queries import IN_LIST, SQLITE, SQLiteAccess, cut_page, insert, listed, select, words

_MANY: Final = 4096
"""So many delayed executions that have come due are sorted; of more, the best are looked up in the order of all."""


_EXECUTIONS = select(EXECUTION_COLUMNS, "executions")
_RUNS = "(state = 'running' OR (state = 'cancelled' AND occupies = 1))"
_RUNNING = frozenset((State.RUNNING,))
_UNSUCCESSFUL = frozenset((State.CANCELLED, State.EXPIRED, State.FAILED))
_IDS = "sqlite_autoindex_executions_1"
"""The index of the primary key."""


def _numbers(states: Collection[State], only: str = "") -> str:
    """A column for each state: how many, of some of them."""
    counts = {state: f"count(*) FILTER (WHERE state = '{state.value}'{only})" for state in states}
    return ", ".join(counts.get(state, "0") for state in State)


# Both indexes know the state. What has ended stands in the first; a row in the second may have, too, and still occupy.
_EVERY_BY_STATE = f"""
SELECT {_numbers(FINISHED)} FROM executions INDEXED BY history WHERE finished_at IS NOT NULL
UNION ALL SELECT {_numbers(FINISHED, " AND finished_at IS NULL")} FROM executions INDEXED BY open_ids WHERE open = 1
UNION ALL SELECT {_numbers(UNFINISHED)} FROM executions INDEXED BY open_ids WHERE open = 1"""

_QUEUES = """
WITH RECURSIVE waiting (name) AS (
    SELECT min(queue) FROM executions INDEXED BY due WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(queue) FROM executions INDEXED BY due WHERE state = 'pending' AND queue > waiting.name)
    FROM waiting WHERE waiting.name IS NOT NULL
)
SELECT name FROM waiting WHERE name IS NOT NULL"""


class ExecutionTables(SQLiteAccess):
    """The tables `executions`, `attempts` and `job_names`."""

    # ---- executions: by what they are known

    def executions_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, Execution]:
        """By id."""
        if not ids:
            return {}
        rows = self._executions(f"id {IN_LIST} ORDER BY id", listed(ids))
        return {row.id: row for row in rows}

    def unfinished_of_jobs(self, job_ids: Collection[str], *, lock: bool = False) -> dict[str, list[Execution]]:
        """Per job what is open, by id."""
        found: dict[str, list[Execution]] = {}
        if not job_ids:
            return found
        where = f"open = 1 AND job_id IS NOT NULL AND job_id {IN_LIST} ORDER BY id"
        for row in self._executions(where, listed(job_ids), index="open_of_job"):
            found.setdefault(row.job_id or "", []).append(row)
        return found

    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """By task and key."""
        if not tasks_and_keys:
            return {}
        tasks, keys = {task for task, _ in tasks_and_keys}, {str(stored(key)) for _, key in tasks_and_keys}
        rows = self._executions(
            f"open = 1 AND key IS NOT NULL AND task {IN_LIST} AND key {IN_LIST} AND state IN ({words(UNFINISHED)})"
            " ORDER BY id DESC",
            listed(tasks),
            listed(keys),
            index="open_keys",
        )
        wanted = set(tasks_and_keys)
        found = {(row.work.task, row.key or ""): row for row in rows}
        return {pair: row for pair, row in found.items() if pair in wanted}

    def running_rows(self, node_ids: Collection[str] | None, limit: int | None, after: str | None) -> list[Execution]:
        """By attempt id."""
        where = Conditions(SQLITE, ["open = 1", "node IS NOT NULL", _RUNS])
        where.among("node", node_ids)
        if after is not None:
            where.compare("attempt_id", ">", after)
        where.parameters.append(_limit(limit))
        return self._executions(f"{where.text} ORDER BY attempt_id LIMIT ?", *where.parameters, index="open_of_node")

    def targeted_rows(self, alive: Collection[str]) -> list[Execution]:
        """Waiting for another node than these, by id."""
        where = f"open = 1 AND target <> '' AND target NOT {IN_LIST} AND state IN ({words(UNSTARTED)}) ORDER BY id"
        return self._executions(where, listed(alive), index="open_for_target")

    def cancelled_since(self, revision: int) -> list[tuple[str, str]]:
        """By revision."""
        rows = self._session().fetch(
            "SELECT id, attempt_id FROM executions INDEXED BY open_cancels "
            "WHERE open = 1 AND cancel_revision > 0 AND cancel_revision > ? AND occupies = 1 "
            "ORDER BY cancel_revision, id",
            (revision,),
        )
        return [(row[0], row[1]) for row in rows]

    def unplaced_rows(self, now: Instant, limit: int) -> list[Execution]:
        """By id."""
        where = Conditions(SQLITE, ["state = 'placing'"])
        where.compare("not_before", "<=", now)
        return self._sound_executions(where, "ORDER BY id", limit, "placing")

    # ---- executions: what may start

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
        where = Conditions(SQLITE)
        where.compare("not_before", "<=", now)
        where.among("task", tasks)
        if node_id is not None:
            where.add("target IN ('', ?)", node_id)
        if after is not None:
            where.add("(priority < ? OR (priority = ? AND attempt_id > ?))", after[0], *after)
        if ignore:
            where.add(f"id NOT {IN_LIST}", listed(ignore))
        if limits is not None:
            return [row for queue, most in limits.items() for row in self._ready_in_queue(queue, now, most, where)]
        rows = [row for queue in self._queues() for row in self._ready_in_queue(queue, now, limit, where)]
        return sorted(rows, key=_ready_order)[:limit]

    def _queues(self) -> list[str]:
        return [row[0] for row in self._session().fetch(_QUEUES)]

    def _ready_in_queue(self, queue: str, now: Instant, limit: int, where: Conditions) -> list[Execution]:
        if limit <= 0:
            return []
        rows = self._best(queue, 0, limit, where, "ready")
        late = self._come_due(queue, now)
        if late:
            rows += self._best(queue, 1, limit, where, "due" if late < _MANY else "ready")
            rows.sort(key=_ready_order)
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

    # ---- executions: lists

    def select_executions(
        self, where: ExecutionFilter, order: Order, limit: int | None, cursor: str | None, offset: int = 0
    ) -> tuple[list[Execution], str | None]:
        """A page."""
        sorting = execution_sorting(order)
        source, conditions = self._way_to(where, stops_early=sorting.column == "id" and limit is not None)
        parts = sorting.parts(conditions, cursor)
        rows = self._page(EXECUTION_COLUMNS, source, parts, limit, offset)
        page, following = cut_page(rows, EXECUTION_COLUMNS, sorting, limit, cursor)
        return self._remembered(page), following

    def count_execution_rows(self, where: ExecutionFilter) -> int:
        """How many."""
        return self._count(*self._way_to(where))

    def count_by_state(self, where: ExecutionFilter) -> dict[State, int]:
        """How many in each state."""
        if where == EVERY_EXECUTION:
            rows = self._session().fetch(_EVERY_BY_STATE)
        else:
            source, conditions = self._way_to(where)
            sql = f"SELECT {_numbers(list(State))} FROM {source} WHERE {conditions.text}"
            rows = self._session().fetch(sql, conditions.parameters)
        counts = zip(State, map(sum, zip(*rows, strict=True)), strict=True)
        return {state: count for state, count in counts if count}

    def _way_to(self, where: ExecutionFilter, *, stops_early: bool = False) -> tuple[str, Conditions]:
        """The table with the index to read it by, and the filter's conditions with those that the index asks for.

        SQLite keeps no statistics of its own accord, so where it would guess it is told. `stops_early`: the rows are
        read in the order of their ids until a page is full, which is better for a job with many executions.
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

    def _jobs_meant(self, where: ExecutionFilter) -> list[str]:
        """Ids of the jobs that a filter names, by id or by name."""
        if where.jobs is None:
            return list(where.job_ids or ())
        rows = self._session().fetch(f"SELECT job_id FROM job_names WHERE name {IN_LIST}", (listed(where.jobs),))
        return [row[0] for row in rows if where.job_ids is None or row[0] in where.job_ids]

    def _has_many(self, job_ids: Collection[str]) -> bool:
        rows = self._session().fetch(
            "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY job_times "
            f"WHERE job_id IS NOT NULL AND job_id {IN_LIST} LIMIT ?)",
            (listed(job_ids), _MANY),
        )
        return int(rows[0][0]) == _MANY

    # ---- executions: reading rows

    def _executions(self, where: str, *parameters: Any, index: str | None = None) -> list[Execution]:
        hint = f" INDEXED BY {index}" if index else ""
        return self._remembered(self._session().fetch(f"{_EXECUTIONS}{hint} WHERE {where}", parameters))

    def _remembered(self, rows: list[Row]) -> list[Execution]:
        session = self._session()
        try:
            executions = [execution_from_row(row) for row in rows]
        except DAMAGE:
            executions = self._understood("executions", rows, execution_from_row)
            understood = {execution.id for execution in executions}
            rows = [row for row in rows if row[0] in understood]
        if session.writing:
            for row, execution in zip(rows, executions, strict=True):
                session.known[row[0]] = row, execution.work
        return executions

    def _sound_executions(self, where: Conditions, order: str, limit: int, index: str) -> list[Execution]:
        """The first few, damaged rows passed over: what waits is asked for again and again."""
        while True:
            damaged = self._damaged.get("executions")
            terms = [*where.terms, f"id NOT {IN_LIST}"] if damaged else where.terms
            parameters = [*where.parameters, listed(damaged)] if damaged else where.parameters
            known = len(damaged or ())
            rows = self._executions(f"{' AND '.join(terms)} {order} LIMIT ?", *parameters, limit, index=index)
            if len(self._damaged.get("executions", ())) == known:
                return rows

    # ---- executions: writing

    def insert_executions(self, rows: Sequence[Execution]) -> None:
        """Only the columns that are not the default."""
        session = self._session()
        groups: dict[tuple[bool, ...], list[Row]] = {}
        for execution in rows:
            row = execution_to_row(execution)
            session.known[row[0]] = row, execution.work
            named = tuple(map(ne, EXECUTION_DEFAULTS, row))
            groups.setdefault(named, []).append(tuple(compress(row, named)))
        for named, group in groups.items():
            session.run_many(insert(tuple(compress(EXECUTION_COLUMNS, named)), "executions"), group)
        self._name_jobs({(row.job_name or "", row.job_id) for row in rows if row.job_id is not None})

    def _name_jobs(self, names: set[tuple[str, str]]) -> None:
        """Remember which jobs the executions of a name belong to."""
        session = self._session()
        if new := names - session.named:
            session.run_many("INSERT OR IGNORE INTO job_names VALUES (?, ?)", sorted(new))
            session.named |= new

    def update_executions(self, rows: Sequence[Execution]) -> None:
        """Only the columns that differ from what the file has."""
        session = self._session()
        groups: dict[tuple[bool, ...], list[Row]] = {}
        for execution in rows:
            known = session.known.get(execution.id)
            row = execution_to_row(execution, known)
            changed = tuple(map(ne, known[0] if known else _NOTHING, row))
            session.known[row[0]] = row, execution.work
            groups.setdefault(changed, []).append((*compress(row, changed), row[0]))
        for changed, group in groups.items():
            columns = [f"{column} = ?" for column in compress(EXECUTION_COLUMNS, changed)]
            if columns:
                session.run_many(f"UPDATE executions SET {', '.join(columns)} WHERE id = ?", group)

    def delete_execution_rows(self, ids: Collection[str]) -> None:
        """With their attempts."""
        session, chosen = self._session(), listed(ids)
        session.run(f"DELETE FROM attempts WHERE execution_id {IN_LIST}", (chosen,))
        session.run(f"DELETE FROM executions WHERE id {IN_LIST}", (chosen,))
        for execution_id in ids:
            session.known.pop(execution_id, None)

    def insert_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Past attempts."""
        if attempts:
            self._session().run_many(insert(ATTEMPT_COLUMNS, "attempts"), map(attempt_to_row, attempts))

    def attempt_rows(self, execution_id: str) -> list[Attempt]:
        """By id."""
        rows = self._session().fetch(
            select(ATTEMPT_COLUMNS, "attempts") + " WHERE execution_id = ? ORDER BY id", (execution_id,)
        )
        return self._understood("attempts", rows, attempt_from_row)


_NOTHING: Final[Row] = (None, *(object() for _ in EXECUTION_COLUMNS[1:]))
"""Differs from every row in every column but the id, which an update leaves alone."""


def _ready_order(row: Execution) -> tuple[int, str]:
    return -row.work.priority, row.attempt_id


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit
