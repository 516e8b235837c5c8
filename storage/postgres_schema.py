"""The tables of the PostgreSQL store, as numbered steps, and the SQL that takes them.

Everything stands in a schema of its own, so that nothing is confused with the app's tables. `schema_version` has a row
for each step that was taken. A change of the schema is a new step at the end of `STEPS`; steps that have been released
never change. All missing steps are taken in one transaction behind a lock, so that of two starters one makes the
tables and the other finds them made.

Instants are integers, microseconds since the epoch. Text is compared byte by byte (`COLLATE "C"`): ids and names are
in the same order in every database. Indexes are partial wherever the rows that they serve are few, and the planner
sees from the terms of a query which one it may use; the autovacuum settings are for tables whose rows come and go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_EXECUTIONS = """
-- A row is written three times: when it is made, when it starts and when it ends. Its later versions have room beside
-- it, and their ids beside its own: to split a page costs more than what is written there.
CREATE TABLE executions (
    id text COLLATE "C" PRIMARY KEY WITH (fillfactor = 30),
    task text COLLATE "C" NOT NULL,
    args text NOT NULL DEFAULT '{}',
    queue text COLLATE "C" NOT NULL DEFAULT 'default',
    priority bigint NOT NULL DEFAULT 0,
    labels text NOT NULL DEFAULT '{}',
    rules text NOT NULL DEFAULT '{}',
    cause text NOT NULL DEFAULT 'enqueue',
    created_at bigint NOT NULL,
    due_at bigint NOT NULL,
    not_before bigint NOT NULL,
    attempt_id text COLLATE "C" NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    job_id text COLLATE "C",
    job_name text COLLATE "C",
    generation bigint NOT NULL DEFAULT 0,
    nominal bigint,
    target text COLLATE "C" NOT NULL DEFAULT '',
    attempt bigint NOT NULL DEFAULT 1,
    recoveries bigint NOT NULL DEFAULT 0,
    node text COLLATE "C",
    first_started_at bigint,
    started_at bigint,
    finished_at bigint,
    start_by bigint,
    key text COLLATE "C",
    occupies smallint NOT NULL DEFAULT 0,
    cancel_revision bigint NOT NULL DEFAULT 0,
    verdict text,
    reason text,
    result text,
    error text,
    progress text,
    delayed smallint NOT NULL DEFAULT 0,
    open smallint NOT NULL DEFAULT 1,
    partition bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 33, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
-- What waits, in the order in which it starts. What was due when it was made stands apart from what was not
-- (delayed), so that finding the best few need not pass over work that lies in the future.
CREATE INDEX ready ON executions (queue, delayed, priority DESC, attempt_id, not_before, task, target)
    WHERE state = 'pending';
-- Expressions, so that the planner takes it for no way to what `ready` is there for, while it has no statistics.
CREATE INDEX due ON executions ((queue || ''), delayed, (not_before + 0)) WHERE state = 'pending';
CREATE INDEX placing_ids ON executions (id, not_before) WHERE state = 'placing';
-- One nominal time of a job has one execution on one target (law 2); NULLs differ, so manual runs are not held to it.
CREATE UNIQUE INDEX job_times ON executions (job_id, nominal, target) WHERE job_id IS NOT NULL;
-- What has not ended, or still occupies its job, found without passing over what has.
CREATE INDEX open_ids ON executions (id, state) WITH (fillfactor = 40) WHERE open = 1;
CREATE INDEX open_of_job ON executions (job_id, nominal) WHERE open = 1 AND job_id IS NOT NULL;
CREATE INDEX open_of_node ON executions (node, attempt_id) WHERE open = 1 AND node IS NOT NULL;
CREATE INDEX open_for_target ON executions (target) WHERE open = 1 AND target <> '';
CREATE INDEX open_keys ON executions (task, key) WHERE open = 1 AND key IS NOT NULL;
CREATE INDEX open_cancels ON executions (cancel_revision) WHERE open = 1 AND cancel_revision > 0;
CREATE INDEX history ON executions (finished_at, state) WHERE finished_at IS NOT NULL;
CREATE INDEX unsuccessful ON executions (id) WHERE state IN ('cancelled', 'expired', 'failed');

CREATE TABLE attempts (
    id text COLLATE "C" NOT NULL,
    execution_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    node text COLLATE "C",
    not_before bigint NOT NULL,
    started_at bigint,
    ended_at bigint NOT NULL,
    ending text NOT NULL,
    error text,
    PRIMARY KEY (execution_id, id)
);

-- Which jobs the executions of a name belong to, jobs that are gone included.
CREATE TABLE job_names (
    name text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, job_id)
);
"""

_JOBS = """
CREATE TABLE jobs (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    definition text NOT NULL,
    task text COLLATE "C" NOT NULL,
    labels text NOT NULL DEFAULT '{}',
    state text NOT NULL,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    anchor bigint NOT NULL,
    cursor bigint NOT NULL,
    horizon bigint NOT NULL,
    schedule_generation bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    reason text,
    fired bigint NOT NULL DEFAULT 0,
    declared smallint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX job_revisions ON jobs (revision);

CREATE TABLE removed (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    removed_at bigint NOT NULL,
    horizon bigint NOT NULL,
    cursor bigint NOT NULL
);
CREATE INDEX removed_revisions ON removed (revision);

CREATE TABLE epochs (
    job_id text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    schedule text NOT NULL,
    anchor bigint NOT NULL,
    since bigint NOT NULL,
    until bigint,
    PRIMARY KEY (job_id, since, generation)
);
CREATE INDEX epoch_names ON epochs (name);

CREATE TABLE ranges (
    rowid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    first bigint NOT NULL,
    until bigint NOT NULL,
    generation bigint NOT NULL,
    reason text
);
CREATE INDEX range_starts ON ranges (job_id, first);
CREATE INDEX range_ends ON ranges (until);
"""

_REST = """
CREATE TABLE nodes (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    started_at bigint NOT NULL,
    beat bigint NOT NULL
);

CREATE TABLE tasks (
    name text COLLATE "C" PRIMARY KEY,
    aliases text NOT NULL DEFAULT '[]',
    description text NOT NULL DEFAULT '',
    input_schema text,
    output_schema text
);

-- Numbers by name. The row of the revision is what those who change jobs wait for.
CREATE TABLE facts (key text COLLATE "C" PRIMARY KEY, value bigint) WITH (fillfactor = 10);
INSERT INTO facts VALUES ('revision', 0), ('forgotten', 0);
"""

# Labels that the database cannot read as JSON are kept in escapes (`rows.stored`): they match nothing.
LABELS: Final = r"(CASE WHEN labels LIKE '{%' AND strpos(labels, '\u0000') = 0 THEN labels ELSE '{}' END)::json"
"""The labels of a row as JSON."""

CORRELATION_OF_LABELS: Final = f"({LABELS} ->> 'clepsydra.correlation')"
"""A look-up has to say it in the same words as the index."""

_CORRELATIONS = f"""
-- Most executions have no labels, and cost nothing here.
CREATE INDEX correlations ON executions ({CORRELATION_OF_LABELS}) WHERE labels <> '{{}}';
"""

STEPS: Final[tuple[str, ...]] = (_EXECUTIONS + _CORRELATIONS + _JOBS + _REST,)
"""One script for each schema version, from the one before."""

VERSION: Final = len(STEPS)
"""The schema that this version of the library works with."""

_VERSIONS: Final = """
CREATE TABLE schema_version (
    version bigint PRIMARY KEY,
    taken_at timestamp with time zone NOT NULL DEFAULT now()
);
"""

NUMBERS: Final = frozenset(
    line.split()[0]
    for line in (_EXECUTIONS + _JOBS + _REST).splitlines()
    if line.startswith("    ") and line.split()[1].rstrip(",") in ("bigint", "smallint")
)
"""The columns that hold numbers; all others hold text."""


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def scripts(found: int) -> Iterator[str]:
    """What brings a schema with so many steps taken to the present one, in order."""
    if not found:
        yield _VERSIONS
    for number, step in enumerate(STEPS[found:], found + 1):
        yield step
        yield f"\nINSERT INTO schema_version (version) VALUES ({number});\n"


def migration(schema: str, found: int = 0) -> str:
    """The same as one script that an administrator can read, and run with psql."""
    head = f"BEGIN;\nCREATE SCHEMA IF NOT EXISTS {quoted(schema)};\nSET LOCAL search_path TO {quoted(schema)};\n"
    return f"{head}{''.join(scripts(found))}COMMIT;\n"
