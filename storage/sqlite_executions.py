"""Executions in SQLite: which index leads to them.

SQLite keeps no statistics of its own accord: wherever it would have to guess, a query names the index that it is to be
read by.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, Final

from ..model.execution import FINAL, FINISHED, UNFINISHED, Execution, Outcome, State
from ..model.filters import ExecutionFilter
from ..model.instants import Instant
from .protocol import Claim
from .rows import (
    CLAIM_COLUMNS,
    EXECUTION_COLUMNS,
    EXECUTION_DEFAULTS,
    Row,
    claim_from_row,
    columns_of_new,
    is_storable,
    stored,
)
from .sql import Conditions, execution_conditions
from .sql_access import insert, words
from .sql_executions import SQLExecutions, numbers, ready_order
from .sqlite_connections import Statements
from .sqlite_queries import IN_LIST, SQLITE, listed

_MANY: Final = 4096
"""So many delayed executions that have come due are sorted; of more, the best are looked up in the order of all."""

_ENOUGH: Final = 4096
"""So many that were due when they were made are looked at to learn when a queue has work next."""

_TEXT_AT_ONCE: Final = 1_000_000
"""Characters of arguments that go down in one statement."""

_DEFAULTS: Final[dict[str, Any]] = dict(zip(EXECUTION_COLUMNS, EXECUTION_DEFAULTS, strict=True))
_PRIORITY: Final = CLAIM_COLUMNS.index("priority")
_ATTEMPT: Final = CLAIM_COLUMNS.index("attempt_id")
_NOT_PENDING = UNFINISHED - {State.PENDING}
_UNSUCCESSFUL = frozenset((State.CANCELLED, State.EXPIRED, State.FAILED))
_IDS = "sqlite_autoindex_executions_1"
"""The index of the primary key."""

# Nothing stands in the way of what belongs to no job, unless it is too late for its first start.
_AT_ONCE: Final = "job_id IS NULL AND (first_started_at IS NOT NULL OR start_by IS NULL OR start_by >= ?)"
_CHOSEN: Final = f"SELECT {', '.join(CLAIM_COLUMNS)}, rowid, {_AT_ONCE} FROM executions"
_START: Final = f"""
UPDATE executions SET state = 'running', occupies = 1, node = ?1, started_at = ?2,
    first_started_at = coalesce(first_started_at, ?2)
WHERE rowid {IN_LIST.replace("?", "?3")}"""

# Fenced by the attempt and its node (law 3).
_RUNS: Final = "id = ? AND attempt_id = ? AND node = ? AND state = 'running' AND (job_id IS NULL) = ?"
_END: Final = f"""
UPDATE executions SET state = ?, finished_at = ?, result = ?, error = ?, occupies = 0, open = 0 WHERE {_RUNS}"""
# The same for many at once, of which nothing is told but when they ended: an object of ids and instants.
_END_MANY: Final = f"""
UPDATE executions INDEXED BY {_IDS}
SET state = ?, finished_at = ended.value, result = NULL, error = NULL, occupies = 0, open = 0
FROM json_each(?) AS ended
WHERE executions.id = ended.key AND attempt_id = executions.id AND node = ? AND state = 'running'
    AND (job_id IS NULL) = ?"""
_ENDED: Final = f"""
SELECT id, attempt_id, node, state, finished_at FROM executions
WHERE id {IN_LIST} AND occupies = 0 AND job_id IS NULL"""
_RUN_FOR_JOBS: Final = f"""
SELECT id, attempt_id, node, job_id FROM executions
WHERE id {IN_LIST} AND state = 'running' AND job_id IS NOT NULL"""
_ANY_HELD: Final = """
SELECT 1 FROM executions INDEXED BY open_states WHERE open = 1 AND state <> 'pending' AND state = 'held' LIMIT 1"""


class SQLiteExecutions(SQLExecutions):
    """The tables `executions`, `attempts` and `job_names`."""

    dialect = SQLITE
    way_to_running = "open_states", "state <> 'pending' AND state IN ('running', 'cancelled') AND node IS NOT NULL"

    @abstractmethod
    def _session(self) -> Statements:
        """The session of this thread, inside a block."""

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

    def start_ready(
        self,
        now: Instant,
        limits: Mapping[str, int],
        *,
        node_id: str,
        tasks: Collection[str] | None,
        ignore: Collection[str],
    ) -> tuple[list[Claim], list[Execution]]:
        """What an index leads to is started by one statement, without having been read before."""
        where = self._startable(now, node_id, tasks, None, ignore)
        claims: list[Claim] = []
        others: list[Execution] = []
        for queue, most in limits.items():
            if most > 0:
                started, waiting = self._start_in_queue(queue, now, most, where, node_id)
                claims += started
                others += waiting
        return claims, others

    def _start_in_queue(
        self, queue: str, now: Instant, most: int, where: Conditions, node_id: str
    ) -> tuple[list[Claim], list[Execution]]:
        claims: list[Claim] = []

        def read(terms: list[str], parameters: list[Any]) -> list[Execution]:
            chosen = self._candidates(queue, now, most - len(claims), Conditions(SQLITE, terms, parameters))
            claims.extend(self._start_at_once([row for row in chosen if row[-1]], node_id, now))
            others = [row[-2] for row in chosen if not row[-1]]
            return sorted(self._executions(f"rowid {IN_LIST}", listed(others)), key=ready_order) if others else []

        others = self._sound(where, read)
        claims.sort(key=lambda claim: (-claim.work.priority, claim.attempt_id))
        return claims, others

    def _candidates(self, queue: str, now: Instant, limit: int, where: Conditions) -> list[Row]:
        """The best few of a queue: what a claim is made of, where it stands in the table, whether it may start."""
        rows = self._candidates_by(queue, 0, now, limit, where, "ready")
        late = self._come_due(queue, now)
        if late:
            rows += self._candidates_by(queue, 1, now, limit, where, "due" if late < _MANY else "ready")
            rows.sort(key=lambda row: (-row[_PRIORITY], row[_ATTEMPT]))
        return rows[:limit]

    def _candidates_by(
        self, queue: str, delayed: int, now: Instant, limit: int, where: Conditions, index: str
    ) -> list[Row]:
        chosen = _waiting(queue, delayed, where)
        return self._session().fetch(
            f"{_CHOSEN} INDEXED BY {index} WHERE {chosen.text} ORDER BY priority DESC, attempt_id LIMIT ?",
            (now, *chosen.parameters, limit),
        )

    def _start_at_once(self, rows: Sequence[Row], node_id: str, now: Instant) -> list[Claim]:
        """If any of these rows is damaged none is started, and those that are not damaged are found again."""
        claims = self._understood("executions", rows, claim_from_row)
        if not rows or len(claims) < len(rows):
            return []
        self._session().run(_START, (node_id, now, listed(row[-2] for row in rows)))
        return claims

    def _come_due(self, queue: str, now: Instant) -> int:
        """How many of a queue's delayed executions have come due; it counts no further than `_MANY`."""
        rows = self._session().fetch(
            "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY due "
            "WHERE state = 'pending' AND queue = ? AND delayed = 1 AND not_before <= ? LIMIT ?)",
            (queue, now, _MANY),
        )
        return int(rows[0][0])

    def _best(self, queue: str, delayed: int, limit: int, where: Conditions, index: str) -> list[Execution]:
        return self._sound_executions(
            _waiting(queue, delayed, where), "ORDER BY priority DESC, attempt_id", limit, index
        )

    def next_due_rows(
        self, after: Instant, queues: Collection[str] | None, ignore: Collection[str]
    ) -> Mapping[str, Instant]:
        """Per queue the earliest. Of what was due when it was made a part tells: it is due, unless clocks differ."""
        passed_over = [*ignore, *self._damaged.get("executions", ())]
        without = f" AND id NOT {IN_LIST.replace('?', '?3')}" if passed_over else ""
        earliest = f"""
            SELECT min(not_before) FROM (
                SELECT not_before FROM executions INDEXED BY ready
                WHERE state = 'pending' AND queue = ?1 AND delayed = 0{without} LIMIT {_ENOUGH}
            ) WHERE not_before > ?2
            UNION ALL SELECT min(not_before) FROM executions INDEXED BY due
            WHERE state = 'pending' AND queue = ?1 AND delayed = 1 AND not_before > ?2{without}"""
        parameters = (after, listed(passed_over)) if passed_over else (after,)
        found: dict[str, Instant] = {}
        for queue in self._queues() if queues is None else queues:
            rows = self._session().fetch(earliest, (queue, *parameters))
            instants = [row[0] for row in rows if row[0] is not None]
            if instants:
                found[queue] = min(instants)
        return found

    # ---- of jobs

    def holding_jobs(self, job_ids: Collection[str]) -> Collection[str]:
        """None of them, if nothing is held at all."""
        return job_ids if job_ids and self._session().fetch(_ANY_HELD) else ()

    def crowded_jobs(self, job_ids: Collection[str]) -> dict[str, list[Execution]]:
        """Counted in an index: mostly there are none."""
        if not job_ids:
            return {}
        rows = self._session().fetch(
            "SELECT job_id FROM executions INDEXED BY open_of_job "
            f"WHERE open = 1 AND job_id IS NOT NULL AND job_id {IN_LIST} GROUP BY job_id HAVING count(*) > 1",
            (listed(job_ids),),
        )
        return super().crowded_jobs([row[0] for row in rows])

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
        if states is not None and states <= _NOT_PENDING:
            conditions.add("state <> 'pending'")
            return "executions INDEXED BY open_states", conditions
        if waiting:
            return "executions INDEXED BY open_ids", conditions
        if states is not None and states <= _UNSUCCESSFUL:
            conditions.add("(state = 'cancelled' OR state = 'expired' OR state = 'failed')")
            return "executions INDEXED BY unsuccessful", conditions
        return "executions", conditions

    def _every_by_state(self) -> str:
        pending = ", ".join("count(*)" if state is State.PENDING else "0" for state in State)
        others = "FROM executions INDEXED BY open_states WHERE open = 1 AND state <> 'pending'"
        # What has ended and still occupies stands in both of these, but for its end.
        not_ended = f"{others} AND state IN ({words(FINISHED)}) AND finished_at IS NULL"
        return (
            f"SELECT {pending} FROM executions INDEXED BY ready WHERE state = 'pending' "
            f"UNION ALL SELECT {numbers(_NOT_PENDING)} {others} "
            f"UNION ALL SELECT {numbers(FINISHED)} {not_ended} "
            f"UNION ALL SELECT {numbers(FINISHED)} FROM executions INDEXED BY history WHERE finished_at IS NOT NULL"
        )

    def _has_many(self, job_ids: Collection[str]) -> bool:
        rows = self._session().fetch(
            "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY job_times "
            f"WHERE job_id IS NOT NULL AND job_id {IN_LIST} LIMIT ?)",
            (listed(job_ids), _MANY),
        )
        return int(rows[0][0]) == _MANY

    # ---- writing

    def insert_unknown(self, rows: Iterable[Execution]) -> bool:
        """In one statement, if they differ by nothing but their ids and arguments."""
        columns = columns_of_new(list(rows))
        ids, arguments = columns.pop("id"), columns.pop("args")
        self._session().newsworthy = True
        if (
            any(map(_differ, columns.values()))
            or not is_storable("".join(ids))
            or sum(map(len, arguments)) > _TEXT_AT_ONCE
        ):
            return self._insert_unknown_one_by_one({"id": ids, "attempt_id": ids, "args": arguments, **columns})
        same = {name: values[0] for name, values in columns.items() if values[0] != _DEFAULTS[name]}
        names, marks = ", ".join(same), ", ".join("?" * len(same))
        sql = (
            f"INSERT INTO executions (id, attempt_id, args, {names}) SELECT key, key, value, {marks} "
            "FROM json_each(?) WHERE true ON CONFLICT (id) DO NOTHING"
        )
        new = json.dumps(dict(zip(ids, arguments, strict=True)))
        return self._session().run(sql, (*same.values(), new)) == len(ids)

    def _insert_unknown_one_by_one(self, columns: Mapping[str, list[Any]]) -> bool:
        rows = list(zip(*columns.values(), strict=True))
        sql = insert(tuple(columns), "executions") + " ON CONFLICT (id) DO NOTHING"
        return self._session().run_many(sql, rows) == len(rows)

    def end_at_once(self, outcomes: Sequence[Outcome]) -> Set[str]:
        """Without having been read before. Mostly all are ended; otherwise it is asked which."""
        session = self._session()
        ended = [outcome for outcome in outcomes if is_storable(outcome.execution_id + outcome.attempt_id)]
        if self._end(ended, alone=True) < len(ended):
            # One that had ended so before is its own repeat.
            as_told = set(session.fetch(_ENDED, (listed(outcome.execution_id for outcome in ended),)))
            ended = [outcome for outcome in ended if (*_fence(outcome), *_end(outcome)) in as_told]
        for outcome in ended:
            session.known.pop(outcome.execution_id, None)
        return {outcome.attempt_id for outcome in ended}

    def end_of_jobs_at_once(self, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Of their rows only their jobs are read."""
        session = self._session()
        sound = [outcome for outcome in outcomes if is_storable(outcome.execution_id + outcome.attempt_id)]
        rows = session.fetch(_RUN_FOR_JOBS, (listed(outcome.execution_id for outcome in sound),))
        jobs = {row[:3]: row[3] for row in rows}
        ended = [outcome for outcome in sound if _fence(outcome) in jobs]
        self._end(ended, alone=False)
        for outcome in ended:
            session.known.pop(outcome.execution_id, None)
        return {outcome.attempt_id: jobs[_fence(outcome)] for outcome in ended}

    def _end(self, outcomes: Sequence[Outcome], *, alone: bool) -> int:
        """What is of no job, or of one. Gives how many it has ended."""
        session, alike, ended = self._session(), dict[tuple[str, str], dict[str, Instant]](), 0
        others: list[Row] = []
        for outcome in outcomes:
            if outcome.result is None and outcome.error is None and outcome.attempt_id == outcome.execution_id:
                alike.setdefault((FINAL[outcome.ending].value, outcome.node), {})[outcome.execution_id] = outcome.at
            else:
                others.append((*_end_row(outcome), alone))
        for (state, node), instants in alike.items():
            ended += session.run(_END_MANY, (state, json.dumps(instants), node, alone))
        return ended + session.run_many(_END, others) if others else ended

    def _insert(self, columns: Sequence[str], table: str, rows: Sequence[Row]) -> None:
        session = self._session()
        session.run_many(insert(columns, table), rows)
        if table == "executions":
            session.newsworthy = True

    def _update(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        session, alike = self._session(), dict[Row, list[str]]()
        for row in rows:
            alike.setdefault(row[:-1], []).append(row[-1])
        assigned = ", ".join(f"{column} = ?" for column in columns)
        if len(alike) < len(rows):  # as of those that start together
            for values, ids in alike.items():
                session.run(f"UPDATE executions SET {assigned} WHERE id {IN_LIST}", (*values, listed(ids)))
        else:
            session.run_many(f"UPDATE executions SET {assigned} WHERE id = ?", rows)
        if "state" in columns and any(values[columns.index("state")] == State.PENDING.value for values in alike):
            session.newsworthy = True


def _waiting(queue: str, delayed: int, where: Conditions) -> Conditions:
    """What waits in a queue: what was due when it was made, or what was not."""
    terms = ["state = 'pending'", "queue = ?", f"delayed = {delayed}", *where.terms]
    return Conditions(SQLITE, terms, [queue, *where.parameters])


def _differ(values: list[Any]) -> bool:
    return values.count(values[0]) < len(values)


def _fence(outcome: Outcome) -> Row:
    return outcome.execution_id, outcome.attempt_id, outcome.node


def _end(outcome: Outcome) -> Row:
    return FINAL[outcome.ending].value, outcome.at


def _end_row(outcome: Outcome) -> Row:
    return *_end(outcome), stored(outcome.result), stored(outcome.error), *_fence(outcome)
