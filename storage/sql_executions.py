"""Executions in SQL: the part that every SQL adapter has in common.

Executions that a transaction has read are remembered as they stand in the database, so that an update writes the
columns that differ and leaves the indexes of the others alone; an insert names only what is not the default. What may
start, and how rows go down, is each adapter's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from itertools import compress
from operator import ne
from typing import Any, ClassVar, Final

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
from .sql_access import SQLAccess, cut_page, select, words

_NAMES_KEPT = 10_000
"""Of jobs whose names are known to be written already."""

_EXECUTIONS = select(EXECUTION_COLUMNS, "executions")
_RUNS = "(state = 'running' OR (state = 'cancelled' AND occupies = 1))"


def numbers(states: Collection[State], only: str = "") -> str:
    """A column for each state: how many, of some of them."""
    counts = {state: f"count(*) FILTER (WHERE state = '{state.value}'{only})" for state in states}
    return ", ".join(counts.get(state, "0") for state in State)


_QUEUES = """
WITH RECURSIVE waiting (name) AS (
    SELECT min(queue) FROM executions{by_queue} WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(queue) FROM executions{by_queue} WHERE state = 'pending' AND queue > waiting.name)
    FROM waiting WHERE waiting.name IS NOT NULL
)
SELECT name FROM waiting WHERE name IS NOT NULL"""


class SQLExecutions(SQLAccess):
    """The tables `executions`, `attempts` and `job_names`."""

    way_to_running: ClassVar[tuple[str, str]] = ("open_of_node", "node IS NOT NULL")
    """The index of what runs, and what it asks for."""

    # ---- by what they are known

    def executions_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, Execution]:
        """By id."""
        if not ids:
            return {}
        where = f"{self.dialect.listed('id')} ORDER BY id"
        return {row.id: row for row in self._executions(where, self.dialect.pack(ids), lock=lock)}

    def unfinished_of_jobs(self, job_ids: Collection[str], *, lock: bool = False) -> dict[str, list[Execution]]:
        """Per job what is open, by id."""
        found: dict[str, list[Execution]] = {}
        if not job_ids:
            return found
        where = f"open = 1 AND job_id IS NOT NULL AND {self.dialect.listed('job_id')} ORDER BY id"
        for row in self._executions(where, self.dialect.pack(job_ids), index="open_of_job", lock=lock):
            found.setdefault(row.job_id or "", []).append(row)
        return found

    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """By task and key."""
        if not tasks_and_keys:
            return {}
        tasks, keys = {task for task, _ in tasks_and_keys}, {str(stored(key)) for _, key in tasks_and_keys}
        dialect = self.dialect
        rows = self._executions(
            f"open = 1 AND key IS NOT NULL AND {dialect.listed('task')} AND {dialect.listed('key')} "
            f"AND state IN ({words(UNFINISHED)}) ORDER BY id DESC",
            dialect.pack(tasks),
            dialect.pack(keys),
            index="open_keys",
            lock=True,
        )
        wanted = set(tasks_and_keys)
        found = {(row.work.task, row.key or ""): row for row in rows}
        return {pair: row for pair, row in found.items() if pair in wanted}

    def running_rows(self, node_ids: Collection[str] | None, limit: int | None, after: str | None) -> list[Execution]:
        """By attempt id."""
        index, asked_for = self.way_to_running
        where = Conditions(self.dialect, ["open = 1", asked_for, _RUNS])
        where.among("node", node_ids)
        if after is not None:
            where.compare("attempt_id", ">", after)
        where.parameters.append(self.dialect.unlimited if limit is None else limit)
        return self._executions(f"{where.text} ORDER BY attempt_id LIMIT ?", *where.parameters, index=index)

    def targeted_rows(self, alive: Collection[str]) -> list[Execution]:
        """Waiting for another node than these, by id."""
        elsewhere = f"target <> '' AND {self.dialect.unlisted('target')}"
        where = f"open = 1 AND {elsewhere} AND state IN ({words(UNSTARTED)}) ORDER BY id"
        return self._executions(where, self.dialect.pack(alive), index="open_for_target")

    def cancelled_since(self, revision: int) -> list[tuple[str, str]]:
        """By revision."""
        rows = self._session().fetch(
            f"SELECT id, attempt_id FROM executions{self.dialect.by('open_cancels')} "
            "WHERE open = 1 AND cancel_revision > 0 AND cancel_revision > ? AND occupies = 1 "
            "ORDER BY cancel_revision, id",
            (revision,),
        )
        return [(row[0], row[1]) for row in rows]

    def unplaced_rows(self, now: Instant, limit: int) -> list[Execution]:
        """By id."""
        where = Conditions(self.dialect, ["state = 'placing'"])
        where.compare("not_before", "<=", now)
        return self._sound_executions(where, "ORDER BY id", limit, "placing")

    def _startable(
        self,
        now: Instant,
        node_id: str | None,
        tasks: Collection[str] | None,
        after: tuple[int, str] | None,
        ignore: Collection[str],
    ) -> Conditions:
        """What `ready_rows` asks of pending ones, whatever their queue."""
        where = Conditions(self.dialect)
        where.compare("not_before", "<=", now)
        where.among("task", tasks)
        if node_id is not None:
            where.add("target IN ('', ?)", node_id)
        if after is not None:
            where.add("(priority < ? OR (priority = ? AND attempt_id > ?))", after[0], *after)
        if ignore:
            where.add(self.dialect.unlisted("id"), self.dialect.pack(ignore))
        return where

    def _queues(self) -> list[str]:
        """Those in which something waits, each found by one look into an index."""
        return [row[0] for row in self._session().fetch(_QUEUES.format(by_queue=self.dialect.by("ready")))]

    # ---- lists

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
            rows = self._session().fetch(self._every_by_state())
        else:
            source, conditions = self._way_to(where)
            sql = f"SELECT {numbers(list(State))} FROM {source} WHERE {conditions.text}"
            rows = self._session().fetch(sql, conditions.parameters)
        counts = zip(State, map(sum, zip(*rows, strict=True)), strict=True)
        return {state: count for state, count in counts if count}

    def _every_by_state(self) -> str:
        # Both indexes know the state. What has ended stands in the first; a row in the second may have, too, and still
        # occupy.
        history, is_open = self.dialect.by("history"), self.dialect.by("open_ids")
        return (
            f"SELECT {numbers(FINISHED)} FROM executions{history} WHERE finished_at IS NOT NULL "
            f"UNION ALL SELECT {numbers(FINISHED, ' AND finished_at IS NULL')} FROM executions{is_open} WHERE open = 1 "
            f"UNION ALL SELECT {numbers(UNFINISHED)} FROM executions{is_open} WHERE open = 1"
        )

    def _way_to(self, where: ExecutionFilter, *, stops_early: bool = False) -> tuple[str, Conditions]:
        """The table to read, and the filter's conditions with those that its partial indexes ask for.

        `stops_early`: the rows are read in the order of their ids until a page is full.
        """
        conditions = execution_conditions(self.dialect, where)
        if where.states is not None and where.states <= UNFINISHED:
            conditions.add("open = 1")
        if where.jobs is not None or where.job_ids is not None:
            conditions.add(
                f"job_id IS NOT NULL AND {self.dialect.listed('job_id')}", self.dialect.pack(self._jobs_meant(where))
            )
        return "executions", conditions

    def _jobs_meant(self, where: ExecutionFilter) -> list[str]:
        """Ids of the jobs that a filter names, by id or by name."""
        if where.jobs is None:
            return list(where.job_ids or ())
        rows = self._session().fetch(
            f"SELECT job_id FROM job_names WHERE {self.dialect.listed('name')}", (self.dialect.pack(where.jobs),)
        )
        return [row[0] for row in rows if where.job_ids is None or row[0] in where.job_ids]

    # ---- reading rows

    def _executions(
        self, where: str, *parameters: Any, index: str | None = None, lock: bool = False
    ) -> list[Execution]:
        """Where transactions run side by side, `lock` keeps others away from what is read."""
        hint = self.dialect.by(index) if index else ""
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

        def read(terms: list[str], parameters: list[Any]) -> list[Execution]:
            return self._executions(f"{' AND '.join(terms)} {order} LIMIT ?", *parameters, limit, index=index)

        return self._sound(where, read)

    def _sound(self, where: Conditions, read: Callable[[list[str], list[Any]], list[Execution]]) -> list[Execution]:
        """What `read` gives for these terms and parameters, without rows that turn out to be damaged."""
        while True:
            damaged = self._damaged.get("executions")
            terms = [*where.terms, self.dialect.unlisted("id")] if damaged else where.terms
            parameters = [*where.parameters, self.dialect.pack(damaged)] if damaged else where.parameters
            known = len(damaged or ())
            rows = read(terms, parameters)
            if len(self._damaged.get("executions", ())) == known:
                return rows

    # ---- writing

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
            self._insert(tuple(compress(EXECUTION_COLUMNS, named)), "executions", group)
        self._name_jobs({(row.job_name or "", row.job_id) for row in rows if row.job_id is not None})

    def _name_jobs(self, names: set[tuple[str, str]]) -> None:
        """Remember which jobs the executions of a name belong to."""
        session = self._session()
        if new := names - session.named:
            session.run_many("INSERT INTO job_names VALUES (?, ?) ON CONFLICT DO NOTHING", sorted(new))
            if len(session.named) > _NAMES_KEPT:
                session.named.clear()
            session.named |= new

    def update_executions(self, rows: Sequence[Execution]) -> None:
        """Only the columns that differ from what the database has."""
        session = self._session()
        groups: dict[tuple[bool, ...], list[Row]] = {}
        for execution in rows:
            known = session.known.get(execution.id)
            row = execution_to_row(execution, known)
            changed = tuple(map(ne, known[0] if known else _NOTHING, row))
            session.known[row[0]] = row, execution.work
            groups.setdefault(changed, []).append((*compress(row, changed), row[0]))
        for changed, group in groups.items():
            if columns := tuple(compress(EXECUTION_COLUMNS, changed)):
                self._update(columns, group)

    @abstractmethod
    def _insert(self, columns: Sequence[str], table: str, rows: Sequence[Row]) -> None:
        """New rows of these columns."""

    @abstractmethod
    def _update(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """New values for these columns of executions; the last value of each row is its id."""

    def delete_execution_rows(self, ids: Collection[str]) -> None:
        """With their attempts."""
        session, chosen = self._session(), (self.dialect.pack(ids),)
        session.run(f"DELETE FROM attempts WHERE {self.dialect.listed('execution_id')}", chosen)
        session.run(f"DELETE FROM executions WHERE {self.dialect.listed('id')}", chosen)
        for execution_id in ids:
            session.known.pop(execution_id, None)

    def insert_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Past attempts."""
        if attempts:
            self._insert(ATTEMPT_COLUMNS, "attempts", [attempt_to_row(attempt) for attempt in attempts])

    def attempt_rows(self, execution_id: str) -> list[Attempt]:
        """By id."""
        rows = self._session().fetch(
            select(ATTEMPT_COLUMNS, "attempts") + " WHERE execution_id = ? ORDER BY id", (execution_id,)
        )
        return self._understood("attempts", rows, attempt_from_row)


_NOTHING: Final[Row] = (None, *(object() for _ in EXECUTION_COLUMNS[1:]))
"""Differs from every row in every column but the id, which an update leaves alone."""


def ready_order(row: Execution) -> tuple[int, str]:
    """Priority descending, then attempt id."""
    return -row.work.priority, row.attempt_id
