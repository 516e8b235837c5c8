"""Executions in PostgreSQL: what may start, which rows are locked, and how many travel together.

Whoever touches an execution of a job holds the job's row. Where rows are named, the jobs' rows are locked first. Where
they are looked for (`ready_rows`), nobody is waited for at all: rows that others hold, or whose job others hold, are
left to them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any, Final

from ..model.execution import FINAL, Execution, Outcome, State
from ..model.instants import Instant
from .postgres_connections import Statements, Turn
from .postgres_queries import POSTGRES, array, columns_of, insert_all, insert_unknown, listed, update_all
from .postgres_watermarks import LEVELS, Watermark, spans
from .protocol import Claim
from .rows import (
    CLAIM_COLUMNS,
    DAMAGE,
    EXECUTION_COLUMNS,
    EXECUTION_DEFAULTS,
    Row,
    claim_from_row,
    columns_of_new,
    is_storable,
    stored,
)
from .sql_access import select
from .sql_executions import SQLExecutions, ready_order

_MANY: Final = 4096
"""So many delayed executions that have come due are sorted; of more, the best are looked up in the order of all."""

_DEFAULTS: Final[dict[str, Any]] = dict(zip(EXECUTION_COLUMNS, EXECUTION_DEFAULTS, strict=True))
_PENDING: Final = State.PENDING.value
_COLUMNS: Final = ", ".join(EXECUTION_COLUMNS)
_EXECUTIONS: Final = select(EXECUTION_COLUMNS, "executions")
_WAITING: Final = "SELECT {columns} FROM executions WHERE state = 'pending'"
_QUEUE: Final = "executions.queue || ''"
_BEST: Final = f"{_WAITING} AND queue = wanted.queue"

# What was due when it was made, between low-watermarks; and what has come due since, by the index of that while it is
# little, by the order of all when it is much. Adding nothing keeps the planner from the one and the other.
_BY_LEVELS: Final = f"""
SELECT best.* FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::text[]) AS wanted (queue, most, level, least)
CROSS JOIN LATERAL ({_BEST} AND delayed = 0 AND priority = level AND attempt_id >= least COLLATE "C" AND {{where}}
    ORDER BY attempt_id LIMIT most{{lock}}) AS best"""
_BETWEEN_LEVELS: Final = f"""
SELECT best.* FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[]) AS wanted (queue, most, above, below)
CROSS JOIN LATERAL ({_BEST} AND delayed = 0 AND priority > above AND priority < below AND {{where}}
    ORDER BY priority DESC, attempt_id LIMIT most{{lock}}) AS best"""
_FEW_LATE: Final = f"""
SELECT best.* FROM late AS wanted CROSS JOIN LATERAL ({_WAITING} AND {_QUEUE} = wanted.queue AND delayed = 1
    AND {{where}} AND not_before + 0 BETWEEN since AND now
    ORDER BY priority + 0 DESC, attempt_id LIMIT most{{lock}}) AS best
WHERE late BETWEEN 1 AND {_MANY - 1}"""
_MANY_LATE: Final = f"""
SELECT best.* FROM late AS wanted CROSS JOIN LATERAL ({_BEST} AND delayed = 1 AND {{where}}
    ORDER BY priority DESC, attempt_id LIMIT most{{lock}}) AS best
WHERE late = {_MANY}"""
_LATE: Final = f"""
WITH late AS MATERIALIZED (
    SELECT queue, most, since, now, (SELECT count(*) FROM (
        SELECT 1 FROM executions
        WHERE state = 'pending' AND {_QUEUE} = given.queue AND delayed = 1 AND not_before + 0 BETWEEN since AND now
        LIMIT {_MANY}
    ) AS due) AS late
    FROM unnest(?::text[], ?::bigint[], ?::bigint[]) AS given (queue, most, since)
    CROSS JOIN (SELECT ?::bigint AS now) AS present
)"""

# What nothing can stand in the way of is started where it lies: the rows are locked, so nobody else can change them. Of
# what is found only its place is carried on; how many it leaves to the ledger is told with each.
_PLACES: Final = """ctid AS place, queue, priority, attempt_id, most,
    job_id IS NULL AND (first_started_at IS NOT NULL OR start_by IS NULL OR start_by >= ?) AS at_once"""
_START: Final = f"""
ranked AS MATERIALIZED (
    SELECT place, at_once,
        most >= row_number() OVER (PARTITION BY queue ORDER BY priority DESC, attempt_id) AS is_wanted
    FROM best
)
UPDATE executions SET state = 'running', occupies = 1, node = ?, started_at = ?,
    first_started_at = coalesce(first_started_at, ?)
WHERE ctid = ANY (ARRAY (SELECT place FROM ranked WHERE is_wanted AND at_once))
RETURNING {", ".join(CLAIM_COLUMNS)}, (SELECT count(*) FROM ranked WHERE is_wanted AND NOT at_once)"""

_TAKE_BACK: Final = """
UPDATE executions SET state = 'pending', occupies = CASE WHEN first_started_at = started_at THEN 0 ELSE 1 END,
    node = NULL, started_at = NULL, first_started_at = nullif(first_started_at, started_at)
WHERE id = ANY (?::text[])"""

# Fenced by the attempt and its node (law 3). Nobody else changes what runs here but those who cancel or rescue it: they
# are waited for, and what they leave is looked at again.
_END: Final = f"""
UPDATE executions SET state = {{state}}, finished_at = {{at}}, result = {{result}}, error = {{error}}, occupies = 0,
    open = 0
FROM unnest({{arrays}}) AS ended ({{each}}) CROSS JOIN (SELECT {{same}}) AS same
CROSS JOIN LATERAL (SELECT ctid AS place FROM executions WHERE id = ended.id OFFSET 0) AS found
WHERE executions.ctid = place AND executions.attempt_id = {{attempt_id}} AND executions.node = {{node}}
    AND executions.state = '{State.RUNNING.value}' AND executions.job_id IS NULL"""
_OUTCOME: Final = {
    "id": "text",
    "attempt_id": "text",
    "node": "text",
    "state": "text",
    "at": "bigint",
    "result": "text",
    "error": "text",
}
_ENDED: Final = """
SELECT id, attempt_id, node, state, finished_at FROM executions
WHERE id = ANY (?::text[]) AND occupies = 0 AND job_id IS NULL"""

# For each queue the first that waits of each priority, found by one look into an index after the other; and the
# earliest of those that were not due when they were made.
_MARKS: Final = f"""
SELECT queue, NULL AS priority, NULL AS attempt_id, (SELECT min(not_before + 0) FROM executions
    WHERE state = 'pending' AND {_QUEUE} = given.queue AND delayed = 1)
FROM unnest(?::text[]) AS given (queue)
UNION ALL
SELECT given.queue, level.priority, level.attempt_id, NULL
FROM unnest(?::text[]) AS given (queue) CROSS JOIN LATERAL (
    WITH RECURSIVE first (priority, attempt_id) AS (
        (SELECT priority, attempt_id FROM executions
            WHERE state = 'pending' AND queue = given.queue AND delayed = 0
            ORDER BY priority DESC, attempt_id LIMIT 1)
        UNION ALL
        SELECT following.* FROM first CROSS JOIN LATERAL (
            SELECT priority, attempt_id FROM executions
            WHERE state = 'pending' AND queue = given.queue AND delayed = 0 AND priority < first.priority
            ORDER BY priority DESC, attempt_id LIMIT 1) AS following
    ) SELECT * FROM first LIMIT {LEVELS}
) AS level"""

_NEXT_DUE: Final = f"""
SELECT queue, least(
    (SELECT min(not_before + 0) FROM executions
        WHERE state = 'pending' AND {_QUEUE} = given.queue AND delayed = 0 AND not_before + 0 > ?{{without}}),
    (SELECT min(not_before + 0) FROM executions
        WHERE state = 'pending' AND {_QUEUE} = given.queue AND delayed = 1 AND not_before + 0 > ?{{without}})
) FROM unnest(?::text[]) AS given (queue)"""


class PostgresExecutions(SQLExecutions):
    """The tables `executions`, `attempts` and `job_names`."""

    dialect = POSTGRES

    @abstractmethod
    def _session(self) -> Statements:
        """The connection of this thread, inside a block."""

    # ---- locks

    def executions_by_id(self, ids: Collection[str], *, lock: bool = False) -> dict[str, Execution]:
        """By id; with their jobs' rows, when they are locked."""
        if lock and ids:
            self._lock_jobs_of(ids)
        return super().executions_by_id(ids, lock=lock)

    def _lock_jobs_of(self, ids: Collection[str]) -> None:
        session = self._session()
        rows = session.fetch(
            "SELECT DISTINCT job_id FROM executions WHERE id = ANY (?::text[]) AND job_id IS NOT NULL", (listed(ids),)
        )
        if jobs := [row[0] for row in rows]:
            locking = session.locking(Turn.JOB, min(jobs))
            session.fetch(f"SELECT id FROM jobs WHERE id = ANY (?::text[]) ORDER BY id{locking}", (listed(jobs),))
            session.holds(Turn.JOB, jobs)

    def lock_unfinished(self, job_ids: Collection[str]) -> None:
        """Whoever looks for ready work has its rows before it knows that their job is another's: that is waited for."""
        if not job_ids:
            return
        session = self._session()
        wanted = (
            "SELECT id FROM executions WHERE open = 1 AND job_id IS NOT NULL AND job_id = ANY (?::text[]) ORDER BY id"
        )
        rows = session.fetch(wanted + session.locking(Turn.EXECUTION), (listed(job_ids),))
        session.holds(Turn.EXECUTION, [row[0] for row in rows])

    def unfinished_with_keys(self, tasks_and_keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Execution]:
        """By task and key. Whoever is about to use a key waits until nobody else is."""
        if tasks_and_keys and self._session().writing:
            self._lock_keys(sorted({f"{task} {key}" for task, key in tasks_and_keys}))
        return super().unfinished_with_keys(tasks_and_keys)

    def _lock_keys(self, names: list[str]) -> None:
        session = self._session()
        numbers = "SELECT hashtextextended(name, 0) AS number FROM unnest(?::text[]) AS given (name) ORDER BY 1"
        if session.may_wait(Turn.KEY, None):
            session.fetch(f"SELECT pg_advisory_xact_lock(number) FROM ({numbers}) AS numbers", (listed(names),))
        elif not all(
            row[0]
            for row in session.fetch(
                f"SELECT pg_try_advisory_xact_lock(number) FROM ({numbers}) AS numbers", (listed(names),)
            )
        ):
            raise session.out_of_turn()
        session.holds(Turn.KEY, names)

    def _executions(
        self, where: str, *parameters: Any, index: str | None = None, lock: bool = False
    ) -> list[Execution]:
        session = self._session()
        if not (lock and session.writing):
            return super()._executions(where, *parameters)
        rows = session.fetch(f"{_EXECUTIONS} WHERE {where}{session.locking(Turn.EXECUTION)}", parameters)
        session.holds(Turn.EXECUTION, [row[0] for row in rows])
        return self._remembered(rows)

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
        wanted = dict.fromkeys(self._queues(), limit) if limits is None else limits
        wanted = {queue: most for queue, most in wanted.items() if most > 0}
        if not wanted:
            return []
        locked = lock and self._session().writing

        def read(terms: list[str], parameters: list[Any]) -> list[Execution]:
            rows = self._best(wanted, now, terms, parameters, locked)
            return self._remembered(self._of_free_jobs(rows) if locked else rows)

        rows = self._sound(where, read)
        if limits is None:
            return sorted(rows, key=ready_order)[:limit]
        return _best_of_each(rows, limits)

    def start_ready(
        self,
        now: Instant,
        limits: Mapping[str, int],
        *,
        node_id: str,
        tasks: Collection[str] | None,
        ignore: Collection[str],
    ) -> tuple[list[Claim], list[Execution]]:
        """In the statement that finds and locks them."""
        where = self._startable(now, node_id, tasks, None, ignore)
        limits = {queue: most for queue, most in limits.items() if most > 0}
        claims: list[Claim] = []

        def read(terms: list[str], parameters: list[Any]) -> list[Execution]:
            rows = self._best(limits, now, terms, parameters, True, node_id)
            claims[:] = self._claimed(rows)
            if rows and not rows[0][-1]:
                return []
            left = _left(limits, claims)
            return self._remembered(self._of_free_jobs(self._best(left, now, terms, parameters, True)))

        rows = self._sound(where, read) if limits else []
        claims.sort(key=lambda claim: (-claim.work.priority, claim.attempt_id))
        return claims, _best_of_each(rows, _left(limits, claims))

    def _claimed(self, rows: list[Row]) -> list[Claim]:
        """Of rows that were started. If any of them is damaged, all are as they were before."""
        try:
            return [claim_from_row(row) for row in rows]
        except DAMAGE:
            self._understood("executions", rows, claim_from_row)
            self._session().run(_TAKE_BACK, (listed(row[0] for row in rows),))
            return []

    def _best(
        self,
        wanted: Mapping[str, int],
        now: Instant,
        terms: list[str],
        parameters: list[Any],
        lock: bool,
        starts_on: str | None = None,
    ) -> list[Row]:
        session = self._session()
        if lock:
            self._look_for_marks([queue for queue in wanted if _is_old(session.marks.get(queue), now)], now)
        chosen = spans(wanted.items(), session.marks if lock else {})
        ways: list[tuple[str, Sequence[Row]]] = [(_BETWEEN_LEVELS, chosen.gaps), (_FEW_LATE, ()), (_MANY_LATE, ())]
        if chosen.levels:
            ways.insert(0, (_BY_LEVELS, chosen.levels))
        found = " UNION ALL ".join(way for way, _ in ways)
        each = parameters if starts_on is None else [now, *parameters]
        given = [*columns_of(chosen.late), now]
        for _, rows in ways:
            given += [*columns_of(rows), *each]
        if starts_on is not None:
            found = f", best AS MATERIALIZED ({found}), {_START}"
            given += [starts_on, now, now]
        sql = _LATE + found.format(
            columns=_COLUMNS if starts_on is None else _PLACES,
            where=" AND ".join(terms),
            lock=" FOR UPDATE SKIP LOCKED" if lock else "",
        )
        rows = session.fetch(sql, given)
        if lock:
            session.holds(Turn.EXECUTION, [row[0] for row in rows])
        return rows

    def _look_for_marks(self, queues: list[str], now: Instant) -> None:
        if not queues:
            return
        session = self._session()
        levels: dict[str, dict[int, str]] = {queue: {} for queue in queues}
        due: dict[str, Instant | None] = {}
        for queue, priority, attempt_id, earliest in session.fetch(_MARKS, (listed(queues), listed(queues))):
            if priority is None:
                due[queue] = earliest
            else:
                levels[queue][priority] = attempt_id
        for queue in queues:
            session.marks.setdefault(queue, Watermark()).learn(now, levels[queue], due.get(queue))

    def _of_free_jobs(self, rows: list[Row]) -> list[Row]:
        """Those whose job nobody else is working on. Their rows are ours already, so their job is not waited for."""
        busy = self._lock_free_jobs({row[13] for row in rows if row[13] is not None})
        return [row for row in rows if row[13] not in busy] if busy else rows

    def _lock_free_jobs(self, jobs: set[str]) -> set[str]:
        """Lock the rows of those jobs that nobody else is working on. Gives the others."""
        if not jobs:
            return set()
        session = self._session()
        chosen = "FROM jobs WHERE id = ANY (?::text[])"
        held = session.fetch(f"SELECT id {chosen} ORDER BY id FOR UPDATE SKIP LOCKED", (listed(jobs),))
        left = jobs.difference(row[0] for row in held)
        # What is left is held by others, or gone: the execution of a job that is gone can be settled by anybody.
        return {row[0] for row in session.fetch(f"SELECT id {chosen}", (listed(left),))} if left else set()

    def insert_executions(self, rows: Sequence[Execution]) -> None:
        """New ones; those that wait may lie below a mark."""
        super().insert_executions(rows)
        self._lower_marks(rows)

    def insert_unknown(self, rows: Iterable[Execution]) -> bool:
        """In one statement. What all rows have in common travels once, and what is the default not at all."""
        rows = list(rows)
        columns = columns_of_new(rows)
        same = [(name, values[0]) for name, values in columns.items() if name != "id" and _are_same(values)]
        each = [(name, values) for name, values in columns.items() if name == "id" or not _are_same(values)]
        shape = [(name, "same") for name, value in same if value != _DEFAULTS[name]]
        shape += [("attempt_id", "id"), *((name, "each") for name, _ in each)]
        parameters = [value for name, value in same if value != _DEFAULTS[name]]
        session = self._session()
        sql = insert_unknown("executions", shape)
        inserted = session.run(sql, (*parameters, *(array(values) for _, values in each)))
        session.newsworthy = True
        self._lower_marks(rows)
        return inserted == len(rows)

    def update_executions(self, rows: Sequence[Execution]) -> None:
        """What has changed; what waits again may lie below a mark."""
        super().update_executions(rows)
        self._lower_marks(rows)

    def _lower_marks(self, rows: Sequence[Execution]) -> None:
        if marks := self._session().marks:
            for row in rows:
                if (mark := marks.get(row.work.queue)) is not None:
                    mark.lower(row)

    def next_due_rows(
        self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]
    ) -> Mapping[str, Instant]:
        """Per queue the earliest."""
        chosen = self._queues() if queues is None else queues
        if not chosen:
            return {}
        passed_over = [*ignore, *self._damaged.get("executions", ())]
        without = " AND id <> ALL (?::text[])" if passed_over else ""
        each = (after, listed(passed_over)) if passed_over else (after,)
        rows = self._session().fetch(_NEXT_DUE.format(without=without), (*each, *each, listed(chosen)))
        return {row[0]: row[1] for row in rows if row[1] is not None}

    # ---- writing

    def _insert(self, columns: Sequence[str], table: str, rows: Sequence[Row]) -> None:
        session = self._session()
        session.run(insert_all(columns, table), columns_of(rows))
        if table == "executions":
            session.newsworthy = True

    def end_at_once(self, outcomes: Sequence[Outcome]) -> Set[str]:
        """In one statement, unless it would have to wait for what it must not wait for."""
        session = self._session()
        rows = sorted(_ended(outcome) for outcome in outcomes if is_storable(outcome.execution_id + outcome.attempt_id))
        if not rows or not session.may_wait(Turn.EXECUTION, None):
            return frozenset()
        sql, parameters = _ending(rows)
        ids = [row[0] for row in rows]
        if session.run(sql, parameters) < len(rows):
            # One that had ended so before is its own repeat.
            as_told = set(session.fetch(_ENDED, (listed(ids),)))
            rows = [row for row in rows if row[:5] in as_told]
        session.holds(Turn.EXECUTION, ids)
        for execution_id in ids:
            session.known.pop(execution_id, None)
        return {row[1] for row in rows}

    def _update(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        session = self._session()
        session.run(update_all(columns, "executions"), columns_of(rows))
        if "state" in columns and any(row[columns.index("state")] == _PENDING for row in rows):
            session.newsworthy = True


def _ended(outcome: Outcome) -> Row:
    state = FINAL[outcome.ending].value
    return (
        outcome.execution_id,
        outcome.attempt_id,
        outcome.node,
        state,
        outcome.at,
        stored(outcome.result),
        stored(outcome.error),
    )


def _ending(rows: Sequence[Row]) -> tuple[str, list[Any]]:
    """The statement that ends these, and its parameters: what all have in common travels once."""
    columns = dict(zip(_OUTCOME, map(list, zip(*rows, strict=True)), strict=True))
    each = {"id": columns.pop("id")}
    same: dict[str, Any] = {}
    if columns["attempt_id"] == each["id"]:
        del columns["attempt_id"]  # the first attempt has the execution's id
    for name, values in columns.items():
        if _are_same(values):
            same[name] = values[0]
        else:
            each[name] = values
    return _end(tuple(each), tuple(same)), [*map(array, each.values()), *same.values()]


@lru_cache(maxsize=64)
def _end(each: tuple[str, ...], same: tuple[str, ...]) -> str:
    sources = {
        "attempt_id": "ended.id",
        **{name: f"ended.{name}" for name in each},
        **{name: f"same.{name}" for name in same},
    }
    return _END.format(
        arrays=", ".join(f"?::{_OUTCOME[name]}[]" for name in each),
        each=", ".join(each),
        same=", ".join(f"?::{_OUTCOME[name]} AS {name}" for name in same),
        **sources,
    )


def _are_same(values: list[Any]) -> bool:
    return values.count(values[0]) == len(values)


def _is_old(mark: Watermark | None, now: Instant) -> bool:
    return mark is None or mark.is_old(now)


def _left(limits: Mapping[str, int], claims: Iterable[Claim]) -> dict[str, int]:
    """What the claims have not taken."""
    left = dict(limits)
    for claim in claims:
        left[claim.work.queue] -= 1
    return left


def _best_of_each(rows: list[Execution], limits: Mapping[str, int]) -> list[Execution]:
    """The queues in the order of the limits, each with no more than its limit."""
    found: dict[str, list[Execution]] = {queue: [] for queue in limits}
    for row in sorted(rows, key=ready_order):
        queue = found[row.work.queue]
        if len(queue) < limits[row.work.queue]:
            queue.append(row)
    return [row for queue in found.values() for row in queue]
