"""Values as rows of columns and back: the part of an adapter that every SQL database shares.

A row is a plain tuple in the order of the column lists below. Execution rows carry two columns more than the value has,
worked out from it, so that indexes can be small: `delayed` (its not-before lies after its creation) and `open` (it has
not ended, or still occupies its job). Text that a database may refuse is kept in an escaped form (`stored`, `loaded`).
What cannot be understood raises one of `DAMAGE`. Knows no SQL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from ..model.errors import ClepsydraError
from ..model.execution import UNFINISHED, Attempt, Cause, Execution, Kind, Range, State
from ..model.job import (
    Definition,
    JobRecord,
    JobState,
    ScheduleEpoch,
    definition_from_json,
    job_of,
    job_to_json,
    status_of,
)
from ..model.payload import NO_ARGUMENTS, JsonText
from ..model.schedule import Schedule, schedule_from_json
from ..model.strategies import Node
from ..model.work import Work, labels_text, work_from_row
from .protocol import Claim, Mark, TaskRow

Row: TypeAlias = tuple[Any, ...]

DAMAGE: Final = (ClepsydraError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a damaged row may raise."""

# ------------------------------------------------------------------------------------------------------------- text

_ESCAPED = "\ufdd0"
"""A noncharacter: text that begins with it is kept in Python's escapes, because it holds what databases refuse."""


def stored(text: str | None) -> str | None:
    """Text as a database keeps it: as it is, or in escapes if it has a NUL or a lone surrogate."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    if not text.startswith(_ESCAPED) and is_storable(text):
        return text
    return _ESCAPED + text.encode("unicode_escape").decode("ascii")


def loaded(text: str | None) -> str | None:
    """The inverse of `stored`."""
    if text is None or not text.startswith(_ESCAPED):
        return text
    return text[1:].encode("ascii").decode("unicode_escape")


def is_storable(text: str) -> bool:
    """Whether every database can hold this text as it is."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------- executions

EXECUTION_COLUMNS: Final = (
    "id",
    "task",
    "args",
    "queue",
    "priority",
    "labels",
    "rules",
    "cause",
    "created_at",
    "due_at",
    "not_before",
    "attempt_id",
    "state",
    "job_id",
    "job_name",
    "generation",
    "nominal",
    "target",
    "attempt",
    "recoveries",
    "node",
    "first_started_at",
    "started_at",
    "finished_at",
    "start_by",
    "key",
    "occupies",
    "cancel_revision",
    "verdict",
    "reason",
    "result",
    "error",
    "progress",
    "delayed",
    "open",
)

WORK_COLUMNS: Final = EXECUTION_COLUMNS[1:7]
"""What the work of an execution is kept in."""

_NONE: Final = object()

EXECUTION_DEFAULTS: Final[Row] = (
    *(_NONE, _NONE, "{}", "default", 0, "{}", "{}", "enqueue", _NONE, _NONE, _NONE, _NONE, "pending"),
    *(None, None, 0, None, "", 1, 0, None, None, None, None, None, None, 0, 0, None, None, None, None, None, 0, 1),
)
"""What the schema gives a column that an insert does not name; columns without a default equal nothing."""

_STATE_TEXT: Final = {state: state.value for state in State}
_CAUSE_TEXT: Final = {cause: cause.value for cause in Cause}
_KIND_TEXT: Final[dict[Kind | None, str | None]] = {None: None, **{kind: kind.value for kind in Kind}}
_STATES: Final = {state.value: state for state in State}
_CAUSES: Final = {cause.value: cause for cause in Cause}
_KINDS: Final[dict[str | None, Kind | None]] = {None: None, **{kind.value: kind for kind in Kind}}
_JOB_STATES: Final = {state.value: state for state in JobState}


Known: TypeAlias = tuple[Row, Work]
"""An execution's row as the database has it, and the work that was read from it."""


def execution_to_row(execution: Execution, known: Known | None = None) -> Row:
    """In the order of `EXECUTION_COLUMNS`. Work that is known already is not written out again."""
    state, occupies = execution.state, execution.occupies
    key, reason, error = execution.key, execution.reason, execution.error
    result, progress = execution.result, execution.progress
    return (
        execution.id,
        *(known[0][1:7] if known is not None and known[1] is execution.work else work_to_columns(execution.work)),
        _CAUSE_TEXT[execution.cause],
        execution.created_at,
        execution.due_at,
        execution.not_before,
        execution.attempt_id,
        _STATE_TEXT[state],
        execution.job_id,
        execution.job_name,
        execution.generation,
        execution.nominal,
        execution.target,
        execution.attempt,
        execution.recoveries,
        execution.node,
        execution.first_started_at,
        execution.started_at,
        execution.finished_at,
        execution.start_by,
        key and stored(key),
        1 if occupies else 0,
        execution.cancel_revision,
        _KIND_TEXT[execution.verdict],
        reason and stored(reason),
        result and stored(result),
        error and stored(error),
        progress and stored(progress),
        1 if execution.not_before > execution.created_at else 0,
        1 if occupies or state in UNFINISHED or execution.finished_at is None else 0,
    )


def columns_of_new(rows: Sequence[Execution]) -> dict[str, list[Any]]:
    """What rows of no job may have, before anything has become of them; their attempt has their id."""
    texts: dict[int, Row] = {}
    for row in rows:
        if id(row.work) not in texts:
            texts[id(row.work)] = work_to_columns(row.work)
    works = zip(*(texts[id(row.work)] for row in rows), strict=True)
    return {
        **dict(zip(WORK_COLUMNS, map(list, works), strict=True)),
        "id": [row.id for row in rows],
        "cause": [row.cause.value for row in rows],
        "job_name": [row.job_name for row in rows],
        "generation": [row.generation for row in rows],
        "created_at": [row.created_at for row in rows],
        "due_at": [row.due_at for row in rows],
        "not_before": [row.not_before for row in rows],
        "start_by": [row.start_by for row in rows],
        "delayed": [int(row.not_before > row.created_at) for row in rows],
    }


def work_to_columns(work: Work) -> Row:
    """In the order of `WORK_COLUMNS`."""
    labels = stored(labels_text(work.labels)) if work.labels else "{}"
    return work.task, stored(work.args), work.queue, work.priority, labels, work.to_json()


def execution_from_row(row: Row) -> Execution:
    """The inverse of `execution_to_row`."""
    key, reason, result, error, progress = row[25], row[29], row[30], row[31], row[32]
    fields: Row = (
        row[0],
        _work_from_columns(row[1:7]),
        _CAUSES[row[7]],
        *row[8:12],
        _STATES[row[12]],
        *row[13:25],
        key and loaded(key),
        row[26] == 1,
        row[27],
        _KINDS[row[28]],
        reason and loaded(reason),
        result and loaded(result),
        error and loaded(error),
        progress and loaded(progress),
    )
    return Execution(*fields)


CLAIM_COLUMNS: Final = (
    "id",
    *WORK_COLUMNS,
    "cause",
    "created_at",
    "due_at",
    "attempt_id",
    "attempt",
    "job_name",
    "key",
)
"""The columns of which a claim is made, where its execution belongs to no job."""


def claim_from_row(row: Row) -> Claim:
    """What its node has to know of an execution of no job, from a row that begins with `CLAIM_COLUMNS`."""
    key = row[13]
    return Claim(
        row[0],
        row[10],
        row[11],
        _work_from_columns(row[1:7]),
        _CAUSES[row[7]],
        row[8],
        row[9],
        None,
        row[12],
        None,
        key and loaded(key),
    )


def _work_from_columns(columns: Row) -> Work:
    task, args, queue, priority, labels, rules = columns
    work = work_from_row(task, NO_ARGUMENTS, queue, priority, loaded(labels) or "", rules)
    if args == NO_ARGUMENTS:
        return work
    # Arguments differ from row to row and may be large: only what rows have in common is worth remembering.
    return work.of_call(task, loaded(args) or "")


ATTEMPT_COLUMNS: Final = (
    "id",
    "execution_id",
    "number",
    "node",
    "not_before",
    "started_at",
    "ended_at",
    "ending",
    "error",
)


def attempt_to_row(attempt: Attempt) -> Row:
    """In the order of `ATTEMPT_COLUMNS`."""
    return (
        attempt.id,
        attempt.execution_id,
        attempt.number,
        attempt.node,
        attempt.not_before,
        attempt.started_at,
        attempt.ended_at,
        str(attempt.ending),
        stored(attempt.error),
    )


def attempt_from_row(row: Row) -> Attempt:
    """The inverse of `attempt_to_row`."""
    fields: Row = (*row[:8], loaded(row[8]))
    return Attempt(*fields)


MARK_COLUMNS: Final = ("job_id", "nominal", "id", "verdict", "state", "reason", "target")


def mark_from_row(row: Row) -> Mark:
    """A nominal time's execution, from the columns `MARK_COLUMNS` of its row."""
    job_id, nominal, execution_id, verdict, state, reason, target = row
    return Mark(job_id, nominal, execution_id, _KINDS[verdict], _STATES[state], loaded(reason), target)


# ------------------------------------------------------------------------------------------------------------- jobs

JOB_COLUMNS: Final = (
    "id",
    "name",
    "definition",
    "task",
    "labels",
    "state",
    "generation",
    "revision",
    "anchor",
    "cursor",
    "horizon",
    "schedule_generation",
    "created_at",
    "updated_at",
    "reason",
    "fired",
    "declared",
)


def job_to_row(record: JobRecord) -> Row:
    """In the order of `JOB_COLUMNS`."""
    work = record.job.work
    return (
        record.id,
        record.job.name,
        stored(job_to_json(record.job)),
        work.task,
        stored(labels_text(work.labels)),
        record.state.value,
        record.generation,
        record.revision,
        record.anchor,
        record.cursor,
        record.horizon,
        record.schedule_generation,
        record.created_at,
        record.updated_at,
        stored(record.reason),
        record.fired,
        1 if record.declared else 0,
    )


def job_from_row(row: Row) -> JobRecord:
    """The inverse of `job_to_row`. Equal definitions share one value."""
    _, name, definition, _, _, state, generation, revision, anchor, cursor, horizon = row[:11]
    status = status_of(_JOB_STATES[state], generation, revision, anchor, *row[11:14], loaded(row[14]), row[16] == 1)
    anchor = status.anchor  # mostly the cursor and the horizon are the same instant: then they are also one object
    return JobRecord(
        row[0],
        job_of(name, _definition(definition)),
        status,
        anchor if cursor == anchor else cursor,
        anchor if horizon == anchor else horizon,
        row[15],
    )


@lru_cache(maxsize=16384)
def _definition(text: JsonText) -> Definition:
    return definition_from_json(loaded(text) or "")


EPOCH_COLUMNS: Final = ("job_id", "generation", "name", "schedule", "anchor", "since", "until")


def epoch_to_row(epoch: ScheduleEpoch) -> Row:
    """In the order of `EPOCH_COLUMNS`."""
    schedule = json.dumps(epoch.schedule.to_json(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return epoch.job_id, epoch.generation, epoch.name, stored(schedule), epoch.anchor, epoch.since, epoch.until


def epoch_from_row(row: Row) -> ScheduleEpoch:
    """The inverse of `epoch_to_row`."""
    fields: Row = (*row[:3], _schedule(row[3]), *row[4:])
    return ScheduleEpoch(*fields)


@lru_cache(maxsize=1024)
def _schedule(text: JsonText) -> Schedule:
    return schedule_from_json(json.loads(loaded(text) or ""))


RANGE_COLUMNS: Final = ("job_id", "kind", "first", "until", "generation", "reason")


def range_to_row(span: Range) -> Row:
    """In the order of `RANGE_COLUMNS`."""
    return span.job_id, span.kind.value, span.start, span.end, span.generation, stored(span.reason)


def range_from_row(row: Row) -> Range:
    """The inverse of `range_to_row`."""
    kind = _KINDS[row[1]]
    if kind is None:
        raise ValueError("a range without a kind")
    fields: Row = (row[0], kind, *row[2:5], loaded(row[5]))
    return Range(*fields)


# --------------------------------------------------------------------------------------------------- nodes and tasks

NODE_COLUMNS: Final = ("id", "name", "started_at", "beat")


def node_to_row(node: Node) -> Row:
    """In the order of `NODE_COLUMNS`."""
    return node.id, stored(node.name), node.started_at, node.beat


def node_from_row(row: Row, alive: bool | None) -> Node:
    """The inverse of `node_to_row`, with what the store can tell of the node's being alive."""
    return Node(row[0], loaded(row[1]) or "", row[2], row[3], alive)


TASK_COLUMNS: Final = ("name", "aliases", "description", "input_schema", "output_schema")


def task_to_row(task: TaskRow) -> Row:
    """In the order of `TASK_COLUMNS`."""
    aliases = json.dumps(list(task.aliases))
    return task.name, aliases, stored(task.description), stored(task.input_schema), stored(task.output_schema)


def task_from_row(row: Row) -> TaskRow:
    """The inverse of `task_to_row`."""
    aliases: Sequence[str] = tuple(str(alias) for alias in json.loads(row[1]))
    return TaskRow(row[0], aliases, loaded(row[2]) or "", loaded(row[3]), loaded(row[4]))
