"""The tables of the SQLite store, as numbered steps; and the marks by which a file is known as ours.

`user_version` counts the steps that a file has taken and `application_id` says whose it is; in a file that also holds
the tables of an app both are the app's, and the count is among the facts. A change of the schema is a new step at the
end of `STEPS`; steps that have been released never change. All missing steps are taken in one transaction, so that of
two starters one makes the schema and the other finds it made.

Instants are integers, microseconds since the epoch. There are no STRICT tables: such a file could not be opened with a
SQLite before 3.37. Indexes are partial wherever the rows that they serve are few, and a change of state moves as few
entries as can be: an execution that comes, runs and goes has one for its id, one until it has ended, one while it
waits, one while it runs, and one when it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ..model.errors import StoreCorrupt, StoreTooNew

APPLICATION_ID: Final = 0x436C7079
"""`Clpy`, in the header of the file; `file(1)` shows it."""

_EXECUTIONS = """
CREATE TABLE executions (
    id TEXT PRIMARY KEY NOT NULL,
    task TEXT NOT NULL,
    args TEXT NOT NULL DEFAULT '{}',
    queue TEXT NOT NULL DEFAULT 'default',
    priority INTEGER NOT NULL DEFAULT 0,
    labels TEXT NOT NULL DEFAULT '{}',
    rules TEXT NOT NULL DEFAULT '{}',
    cause TEXT NOT NULL DEFAULT 'enqueue',
    created_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    attempt_id TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    job_id TEXT,
    job_name TEXT,
    generation INTEGER NOT NULL DEFAULT 0,
    nominal INTEGER,
    target TEXT NOT NULL DEFAULT '',
    attempt INTEGER NOT NULL DEFAULT 1,
    recoveries INTEGER NOT NULL DEFAULT 0,
    node TEXT,
    first_started_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    start_by INTEGER,
    key TEXT,
    occupies INTEGER NOT NULL DEFAULT 0,
    cancel_revision INTEGER NOT NULL DEFAULT 0,
    verdict TEXT,
    reason TEXT,
    result TEXT,
    error TEXT,
    progress TEXT,
    delayed INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL DEFAULT 1,
    partition INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0
);
-- What waits, in the order in which it starts. What was due when it was made stands apart from what was not
-- (`delayed`), so that finding the best few need not pass over work that lies in the future.
CREATE INDEX ready ON executions (queue, delayed, priority DESC, attempt_id, not_before, task, target)
    WHERE state = 'pending';
CREATE INDEX due ON executions (queue, delayed, not_before) WHERE state = 'pending';
CREATE INDEX placing ON executions (id, not_before) WHERE state = 'placing';
-- One nominal time of a job has one execution on one target (law 2); NULLs differ, so manual runs are not held to it.
CREATE UNIQUE INDEX job_times ON executions (job_id, nominal, target) WHERE job_id IS NOT NULL;
-- What has not ended, or still occupies its job, found without passing over what has.
CREATE INDEX open_ids ON executions (id, state) WHERE open = 1;
CREATE INDEX open_of_job ON executions (job_id, nominal) WHERE open = 1 AND job_id IS NOT NULL;
CREATE INDEX open_of_node ON executions (node, attempt_id) WHERE open = 1 AND node IS NOT NULL;
CREATE INDEX open_for_target ON executions (target) WHERE open = 1 AND target <> '';
CREATE INDEX open_keys ON executions (task, key) WHERE open = 1 AND key IS NOT NULL;
CREATE INDEX open_cancels ON executions (cancel_revision) WHERE open = 1 AND cancel_revision > 0;
CREATE INDEX history ON executions (finished_at, state) WHERE finished_at IS NOT NULL;
-- Not IN: a list is made anew for each row that is written.
CREATE INDEX unsuccessful ON executions (id) WHERE state = 'cancelled' OR state = 'expired' OR state = 'failed';

CREATE TABLE attempts (
    id TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    node TEXT,
    not_before INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    ending TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (execution_id, id)
) WITHOUT ROWID;

-- Which jobs the executions of a name belong to, jobs that are gone included.
CREATE TABLE job_names (
    name TEXT NOT NULL,
    job_id TEXT NOT NULL,
    PRIMARY KEY (name, job_id)
) WITHOUT ROWID;
"""

_JOBS = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    task TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL,
    generation INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    anchor INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    schedule_generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    reason TEXT,
    fired INTEGER NOT NULL DEFAULT 0,
    declared INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX job_revisions ON jobs (revision);

CREATE TABLE removed (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    removed_at INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    cursor INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX removed_revisions ON removed (revision);

CREATE TABLE epochs (
    job_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    name TEXT NOT NULL,
    schedule TEXT NOT NULL,
    anchor INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (job_id, since, generation)
) WITHOUT ROWID;
CREATE INDEX epoch_names ON epochs (name);

CREATE TABLE ranges (
    job_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    first INTEGER NOT NULL,
    until INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    reason TEXT
);
CREATE INDEX range_starts ON ranges (job_id, first);
CREATE INDEX range_ends ON ranges (until);
"""

_REST = """
CREATE TABLE nodes (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    beat INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tasks (
    name TEXT PRIMARY KEY NOT NULL,
    aliases TEXT NOT NULL DEFAULT '[]',
    description TEXT NOT NULL DEFAULT '',
    input_schema TEXT,
    output_schema TEXT
) WITHOUT ROWID;

CREATE TABLE facts (key TEXT PRIMARY KEY NOT NULL, value) WITHOUT ROWID;
INSERT INTO facts VALUES ('revision', 0), ('forgotten', 0);
"""

CORRELATION_OF_LABELS: Final = (
    """CASE WHEN json_valid(labels) THEN json_extract(labels, '$."clepsydra.correlation"') END"""
)
"""A look-up has to say it in the same words as the index."""

_CORRELATIONS = f"""
-- Most executions have no labels, and cost nothing here.
CREATE INDEX correlations ON executions ({CORRELATION_OF_LABELS}) WHERE labels <> '{{}}';
"""

_FEWER_ENTRIES = """
-- A start moves two entries in place of four: what runs is found by its state, and `due` has only what is delayed.
DROP INDEX due;
CREATE INDEX due ON executions (queue, not_before) WHERE state = 'pending' AND delayed = 1;
DROP INDEX open_ids;
CREATE INDEX open_ids ON executions (id) WHERE open = 1;
DROP INDEX open_of_node;
CREATE INDEX open_states ON executions (state, id) WHERE open = 1 AND state <> 'pending';
"""

STEPS: Final[tuple[str, ...]] = (_EXECUTIONS + _JOBS + _REST, _CORRELATIONS, _FEWER_ENTRIES)
"""One script for each schema version, from the one before."""

VERSION: Final = len(STEPS)
"""The schema that this version of the library works with."""

TABLES: Final[tuple[str, ...]] = tuple(re.findall(r"CREATE TABLE (\w+)", "".join(STEPS)))

_NAMES: Final[tuple[str, ...]] = tuple(re.findall(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX) (\w+)", "".join(STEPS)))

# One statement, so of one moment: another process may be making the schema between two.
_MARKS: Final = f"""
SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
    (SELECT count(*) FROM sqlite_master), (SELECT group_concat(name) FROM pragma_table_info('facts')),
    (SELECT min(name) FROM sqlite_master WHERE lower(name) IN ({str(_NAMES)[1:-1]}))"""
_NOTED: Final = "SELECT (SELECT value FROM facts WHERE key = 'schema')"


def version_of(ask: Callable[[str], Sequence[Any]], path: str, newest: int, *, with_app_tables: bool = False) -> int:
    """The schema version of a file; 0 for one that has none of ours. `ask` gives the one row of a query."""
    application, user_version, tables, facts, taken = ask(_MARKS)
    version = user_version if application == APPLICATION_ID else None
    if version is None and facts == "key,value":
        noted = ask(_NOTED)[0]
        version = noted if isinstance(noted, int) else None
    if version is None:
        _check_vacant(path, bool(user_version or tables), taken, with_app_tables)
        return 0
    if version > newest:
        raise StoreTooNew(version, newest, path)
    return int(version)


def _check_vacant(path: str, used: bool, taken: str | None, with_app_tables: bool) -> None:
    if used and not with_app_tables:
        raise StoreCorrupt(
            f"{path} is the database of another program, not a clepsydra store; name a file of its own, or say "
            "with_app_tables=True if it is that of your app"
        )
    if taken:
        raise StoreCorrupt(
            f"{path} has {taken!r} of another program, and this store needs that name; name another file"
        )


def marks(version: int, *, with_app_tables: bool) -> Iterator[str]:
    """The statements by which a file is known as one of this version. Those of an app keep the app's own marks."""
    if with_app_tables:
        yield f"INSERT OR REPLACE INTO facts VALUES ('schema', {version})"
        return
    yield f"PRAGMA application_id = {APPLICATION_ID}"
    yield f"PRAGMA user_version = {version}"


def statements(script: str) -> list[str]:
    """The statements of a step, without its comments. (`executescript` would commit.)"""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [statement for part in "\n".join(lines).split(";") if (statement := part.strip())]
