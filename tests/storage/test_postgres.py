"""What is the PostgreSQL store's own: its schema, its locks, its connections, and what befalls them.

What every store promises is checked by the conformance suite.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import psycopg
import pytest

from clepsydra.model.errors import InvalidArgument, StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from clepsydra.model.execution import Cause, Ending, Outcome
from clepsydra.model.filters import ExecutionFilter, JobFilter
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.job import Job, JobState
from clepsydra.model.payload import to_labels
from clepsydra.model.schedule import Every
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage import postgres, postgres_listener, postgres_schema
from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.postgres_listener import Listener
from clepsydra.storage.postgres_queries import POSTGRES
from clepsydra.storage.protocol import Fire, NewExecution, NewJob
from clepsydra.storage.sql import execution_conditions

from ..postgres import Schemas, say

T0: Instant = 1_767_614_400 * SECOND
NODE, OTHER = Node("node-1", "here", T0, 0), Node("node-2", "there", T0, 0)
PATIENCE = 30.0


class Place:
    """One schema, and the stores on it."""

    def __init__(self, schemas: Schemas, schema: str) -> None:
        self.dsn, self.schema = schemas.dsn, schema
        self._stores: list[PostgresStorage] = []

    def store(self, node: Node | None = None, **options: Any) -> PostgresStorage:
        """A store, opened if it is told its node."""
        storage = PostgresStorage(self.dsn, schema=self.schema, **options)
        self._stores.append(storage)
        if node is not None:
            storage.open(node, T0)
        return storage

    def say(self, sql: str) -> list[tuple[Any, ...]]:
        """A statement behind the stores' back."""
        return say(self.dsn, f"SET search_path TO {self.schema}; {sql}")

    def connections(self) -> int:
        """How many of the stores' connections the server knows."""
        return int(say(self.dsn, f"SELECT count(*) FROM ({_OURS}) AS ours")[0][0])

    def kill_connections(self) -> None:
        """As a server that is restarted does."""
        say(self.dsn, f"SELECT pg_terminate_backend(pid, 5000) FROM ({_OURS}) AS ours")

    def close(self) -> None:
        """Close all stores."""
        for storage in self._stores:
            storage.close()


_OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'clepsydra'"


@pytest.fixture
def place(postgres: Schemas) -> Iterator[Place]:
    place = Place(postgres, postgres.take())
    yield place
    place.close()
    postgres.give_back(place.schema)


@pytest.fixture
def bare_place(postgres: Schemas) -> Iterator[Place]:
    """Without tables."""
    place = Place(postgres, "clepsydra_test_bare")
    yield place
    place.close()
    say(postgres.dsn, "DROP SCHEMA IF EXISTS clepsydra_test_bare CASCADE")


@pytest.fixture
def store(place: Place) -> PostgresStorage:
    return place.store(NODE)


def enqueue(storage: PostgresStorage, *ids: str, key: str | None = None, unless: ExecutionFilter | None = None) -> Any:
    items = [NewExecution(one, Work("mail"), Cause.ENQUEUE, T0, key=key) for one in ids]
    return storage.add_executions(items, T0, unless=unless)


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Let so many threads do it, all at the same moment."""
    ready = threading.Barrier(count)

    def one(number: int) -> Any:
        ready.wait(PATIENCE)
        return act(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


# ---- Arguments


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: PostgresStorage(""), "dsn"),
        (lambda: PostgresStorage(cast(Any, 7)), "dsn"),
        (lambda: PostgresStorage("postgresql://host/db?nonsense=1"), "dsn"),
        (lambda: PostgresStorage("dbname=x", schema=""), "schema"),
        (lambda: PostgresStorage("dbname=x", schema="pg_mine"), "schema"),
        (lambda: PostgresStorage("dbname=x", schema="ü" * 32), "schema"),
        (lambda: PostgresStorage("dbname=x", connect_timeout=0), "connect_timeout"),
        (lambda: PostgresStorage("dbname=x", statement_timeout=-1), "statement_timeout"),
    ],
)
def test_arguments_are_checked_when_the_store_is_made(make: Callable[[], PostgresStorage], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()

    assert caught.value.argument == argument


def test_a_password_is_never_shown() -> None:
    storage = PostgresStorage("postgresql://me:secret@host/db")
    with pytest.raises(InvalidArgument) as caught:
        PostgresStorage("postgresql://me:secret@host/db?nonsense=1")

    assert "secret" not in repr(storage)
    assert "secret" not in repr(storage.settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["sec%ret", "secret%2", "sec@ret"])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(InvalidArgument, match="percent-encoded") as caught:
        PostgresStorage(f"postgresql://me:{password}@host/db")

    assert password not in str(caught.value)
    assert password[:3] not in str(caught.value)


def test_transactions_are_read_committed_whatever_the_default_is(place: Place) -> None:
    place.dsn = (
        f"{place.dsn}{'&' if '?' in place.dsn else '?'}options=-c%20default_transaction_isolation%3Dserializable"
    )
    store = place.store(NODE)

    with store.transaction():
        assert store._session().fetch("SHOW transaction_isolation", ()) == [("read committed",)]  # pyright: ignore[reportPrivateUsage]


def test_without_psycopg_all_but_this_store_can_be_used_and_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import clepsydra; clepsydra.Scheduler(clepsydra.MemoryStorage())\n"
        "try: from clepsydra import PostgresStorage\n"
        "except ImportError as error: print(error)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE)

    assert "pip install 'clepsydra[postgres]'" in done.stdout


# ---- Schema


def test_many_who_open_an_empty_database_at_once_make_one_schema(bare_place: Place) -> None:
    stores = [bare_place.store() for _ in range(6)]

    in_threads(len(stores), lambda number: stores[number].open(Node(f"node-{number}", "", T0, 0), T0))

    assert len(stores[0].nodes()) == len(stores)
    assert bare_place.say("SELECT version FROM schema_version") == [(1,)]


def test_a_migration_that_fails_leaves_nothing_behind(bare_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_schema, "STEPS", ("CREATE TABLE first (a int); CREATE nonsense;",))

    with pytest.raises(StoreError, match="syntax error"):
        bare_place.store(NODE)

    assert say(bare_place.dsn, "SELECT to_regnamespace('clepsydra_test_bare')") == [(None,)]


def test_an_older_schema_is_brought_to_the_present_version(bare_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue(bare_place.store(NODE), "x")
    monkeypatch.setattr(postgres_schema, "STEPS", (*postgres_schema.STEPS, "CREATE TABLE later (a int)"))
    monkeypatch.setattr(postgres, "VERSION", postgres_schema.VERSION + 1)

    newer = bare_place.store(OTHER)

    assert bare_place.say("SELECT count(*) FROM later") == [(0,)]
    assert list(newer.get_executions(["x"])) == ["x"]


def test_a_newer_schema_is_refused_at_opening_and_while_it_is_open(bare_place: Place) -> None:
    store = bare_place.store(NODE)
    bare_place.say("INSERT INTO schema_version VALUES (99)")

    with pytest.raises(StoreTooNew) as caught:
        bare_place.store(OTHER)
    store.interrupt()
    with pytest.raises(StoreTooNew):
        enqueue(store, "x")

    assert (caught.value.found, caught.value.known) == (99, postgres_schema.VERSION)


def test_a_schema_with_tables_of_another_program_is_refused(bare_place: Place) -> None:
    say(bare_place.dsn, "CREATE SCHEMA clepsydra_test_bare; CREATE TABLE clepsydra_test_bare.jobs (id int)")

    with pytest.raises(StoreCorrupt, match="another program"):
        bare_place.store(NODE)


def test_the_printed_sql_makes_what_the_store_works_with(bare_place: Place) -> None:
    say(bare_place.dsn, PostgresStorage.migration("clepsydra_test_bare"))

    store = bare_place.store(NODE)
    enqueue(store, "x")

    assert bare_place.say("SELECT id FROM executions") == [("x",)]
    assert PostgresStorage.migration("a", postgres_schema.VERSION).count("CREATE TABLE") == 0


# ---- Nodes that work at the same time


def test_starters_at_the_same_moment_take_different_executions(place: Place) -> None:
    stores = [place.store(Node(f"node-{number}", "", T0, 0)) for number in range(4)]
    enqueue(stores[0], *(f"{number:03}" for number in range(100)))

    started = in_threads(4, lambda number: stores[number].start(f"node-{number}", T0, free={"default": 25}))

    claimed = [claim.execution_id for answer in started for claim in answer.claims]
    assert len(claimed) == len(set(claimed))
    assert len(claimed) >= 25


def test_jq14_of_two_who_start_the_same_execution_one_wins(place: Place) -> None:
    stores = [place.store(node) for node in (NODE, OTHER)]
    ids = [f"{number:02}" for number in range(20)]
    enqueue(stores[0], *ids)

    for one in ids:
        answers = in_threads(
            2,
            lambda number, one=one: stores[number].start((NODE, OTHER)[number].id, T0, items=[one]),  # type: ignore[misc]
        )
        assert sorted(len(answer.claims) for answer in answers) == [0, 1]


def test_or15_of_eight_who_add_a_job_unless_there_is_one_one_adds_it(place: Place) -> None:
    stores = [place.store(Node(f"node-{number}", "", T0, 0)) for number in range(8)]

    def add(number: int) -> Any:
        job = NewJob(f"id-{number}", Job(f"report-{number}", "mail"))
        (change,) = stores[number].put_jobs([job], T0, unless=JobFilter(tasks={"mail"}))
        return change.change, change.record.id

    answers = in_threads(8, add)

    assert sorted(change for change, _ in answers) == ["added", *["exists"] * 7]
    assert len({job_id for _, job_id in answers}) == 1


def test_of_many_who_enqueue_with_one_key_one_adds_it(place: Place) -> None:
    stores = [place.store(Node(f"node-{number}", "", T0, 0)) for number in range(6)]

    answers = in_threads(6, lambda number: enqueue(stores[number], f"x{number}", key="k")[0])

    assert sum(answer.created for answer in answers) == 1
    assert len({answer.id for answer in answers}) == 1


def test_two_who_rescue_one_node_try_its_work_again_once(place: Place) -> None:
    stores = [place.store(node) for node in (NODE, OTHER)]
    enqueue(stores[0], "x")
    stores[0].start("dead", T0, items=["x"])

    in_threads(2, lambda number: stores[number].rescue(["dead"], T0, lambda: f"again-{number}"))

    assert len(stores[0].list_attempts("x")) == 1
    assert stores[0].get_executions(["x"])["x"].recoveries == 1


def test_pausing_waits_for_a_start_that_is_under_way_and_settles_what_it_left(place: Place) -> None:
    first, second = place.store(NODE), place.store(OTHER)
    (change,) = first.put_jobs([NewJob("job", Job("nightly", "mail", Every(minutes=1)))], T0)
    run = NewExecution("x", Work("mail"), Cause.MANUAL, T0, job_id="job", job_name="nightly", generation=1)
    first.add_executions([run], T0)

    with ThreadPoolExecutor(1) as thread:
        with first.transaction():
            (claim,) = first.start(NODE.id, T0, items=["x"]).claims
            pausing = thread.submit(second.set_job_state, JobFilter(), JobState.PAUSED, T0)
            with pytest.raises(TimeoutError):
                pausing.result(0.05)
        (changed,) = pausing.result(PATIENCE)

    assert (change.change, claim.execution_id) == ("added", "x")
    assert changed.record.state is JobState.PAUSED
    assert second.get_executions(["x"])["x"].state.value == "running"


@pytest.mark.parametrize("command", ["put", "pause", "remove"])
def test_a_command_waits_for_executions_before_it_takes_the_revision(place: Place, command: str) -> None:
    """Who looks for ready work has its rows for a moment; one that must not wait any more would fail at once."""
    store = place.store(NODE)
    store.put_jobs([NewJob("job", Job("nightly", "mail", Every(minutes=1)))], T0)
    store.add_executions([NewExecution("waits", Work("mail"), Cause.MANUAL, T0, job_id="job", job_name="nightly")], T0)
    commands: dict[str, Callable[[], object]] = {
        "put": lambda: store.put_jobs([NewJob("new", Job("nightly", "mail", Every(minutes=2)))], T0),
        "pause": lambda: store.set_job_state(JobFilter(), JobState.PAUSED, T0),
        "remove": lambda: store.delete_jobs(JobFilter(), T0),
    }

    with psycopg.connect(place.dsn) as looking:
        looking.execute(f"SELECT id FROM {place.schema}.executions FOR UPDATE".encode())
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            commands[command]()


def test_history_of_a_job_that_somebody_is_working_on_is_not_waited_for(place: Place, store: PostgresStorage) -> None:
    """Who has a job and wants an execution that has ended, to try it again, would wait for us as well."""
    store.put_jobs([NewJob(name, Job(name, "mail", Every(seconds=1))) for name in ("busy", "idle")], T0)
    due = T0 + SECOND
    store.fire([Fire(name, 1, T0, due, f"of {name}", due, due) for name in ("busy", "idle")], due)
    store.cancel_executions(ExecutionFilter(), T0 + 2 * SECOND)

    with psycopg.connect(place.dsn) as working:
        working.execute(f"SELECT id FROM {place.schema}.jobs WHERE id = 'busy' FOR UPDATE".encode())
        assert store.delete_history(T0 + 3600 * SECOND, 100).executions == 1
    assert store.delete_history(T0 + 3600 * SECOND, 100).executions == 1


def test_one_that_holds_later_locks_does_not_wait_for_earlier_ones(place: Place) -> None:
    """Else two batches of calls could wait for one another."""
    first, second = place.store(NODE), place.store(OTHER)
    first.put_jobs([NewJob(name, Job(name, "mail", Every(minutes=1))) for name in ("a", "b")], T0)

    def lock(storage: PostgresStorage, name: str) -> None:
        storage.jobs_by_id([name], lock=True)

    def lock_in_the_other_order() -> None:
        with second.transaction():
            lock(second, "b")
            lock(second, "a")

    with first.transaction():
        lock(first, "a")
        with ThreadPoolExecutor(1) as thread:
            error = thread.submit(lock_in_the_other_order).exception(PATIENCE)

    assert isinstance(error, StoreUnavailable)


# ---- What is started at once


def test_work_of_jobs_and_work_of_none_start_together_and_no_more_of_both_than_is_asked_for(place: Place) -> None:
    store = place.store(NODE)
    record = store.put_jobs([NewJob("job", Job("report", "mail", Every(minutes=1), priority=1))], T0)[0].record
    manual = NewExecution("1", record.job.work, Cause.MANUAL, T0, job_id="job", job_name="report")
    store.add_executions([manual], T0)
    enqueue(store, "2", "3", "4")
    store.add_executions([NewExecution("5", Work("mail"), Cause.ENQUEUE, T0, start_by=T0)], T0)

    first = store.start(NODE.id, T0, free={"default": 3})
    second = store.start(NODE.id, T0 + 1, free={"default": 3})

    assert sorted(claim.execution_id for claim in first.claims) == ["1", "2", "3"]
    assert [claim.execution_id for claim in second.claims] == ["4"]
    assert [gone.execution_id for gone in second.settled] == ["5"]
    assert (first.dry, second.dry) == (set(), {"default"})


def test_a_damaged_row_is_put_aside_and_those_beside_it_start_all_the_same(place: Place) -> None:
    store = place.store(NODE)
    enqueue(store, "1", "2", "3")
    place.say("UPDATE executions SET rules = 'nonsense' WHERE id = '2'")

    answer = store.start(NODE.id, T0, free={"default": 3})

    assert [claim.execution_id for claim in answer.claims] == ["1", "3"]
    assert [row.row_id for row in store.take_quarantined()] == ["2"]
    assert place.say("SELECT state, node, started_at, occupies FROM executions WHERE id = '2'") == [
        ("pending", None, None, 0)
    ]


def test_an_outcome_that_says_it_is_alone_is_held_to_its_fence_and_frees_its_job_all_the_same(place: Place) -> None:
    store = place.store(NODE)
    record = store.put_jobs([NewJob("job", Job("report", "mail", Every(minutes=1)))], T0)[0].record
    store.add_executions([NewExecution("1", record.job.work, Cause.MANUAL, T0, job_id="job", job_name="report")], T0)
    enqueue(store, "2", "3")
    store.start(NODE.id, T0, free={"default": 3})

    def ended(execution_id: str, attempt_id: str, node: Node) -> Outcome:
        return Outcome(execution_id, attempt_id, node.id, Ending.SUCCEEDED, T0, alone=True)

    answer = store.finish([ended("1", "1", NODE), ended("2", "2", OTHER), ended("3", "2", NODE)], T0)

    assert (answer.applied, answer.stale) == ({"1"}, {"2"})
    assert answer.ended == [("job", T0)]
    assert {row.id for row in store.running(NODE.id)} == {"2", "3"}


def test_of_outcomes_that_come_again_beside_new_ones_all_are_applied_and_the_stale_one_is_told_apart(
    place: Place,
) -> None:
    store = place.store(NODE)
    enqueue(store, "1", "2", "3")
    store.start(NODE.id, T0, free={"default": 3})
    first, second = (Outcome(one, one, NODE.id, Ending.SUCCEEDED, T0, alone=True) for one in "12")
    stale = Outcome("3", "3", OTHER.id, Ending.FAILED, T0, error="late", alone=True)
    store.finish([first], T0)

    answer = store.finish([first, second, stale], T0 + 1)

    assert (answer.applied, answer.stale) == ({"1", "2"}, {"3"})
    assert place.say("SELECT state, error FROM executions ORDER BY id") == [
        ("succeeded", None),
        ("succeeded", None),
        ("running", None),
    ]


def test_a_damaged_row_that_is_tried_again_keeps_what_it_had(place: Place) -> None:
    store = place.store(NODE)
    enqueue(store, "1")
    store.start(NODE.id, T0, free={"default": 1})
    store.finish([Outcome("1", "1", NODE.id, Ending.RETRY, T0 + 1, next_attempt_id="2", not_before=T0 + 1)], T0 + 1)
    columns = "state, attempt_id, node, first_started_at, started_at, occupies"
    before = place.say(f"UPDATE executions SET rules = 'nonsense' RETURNING {columns}")

    answer = store.start(NODE.id, T0 + 2, free={"default": 1})

    assert answer.claims == []
    assert place.say(f"SELECT {columns} FROM executions") == before


# ---- Plans


_ROWS = """
INSERT INTO executions (id, task, queue, created_at, due_at, not_before, attempt_id, state, finished_at, open, delayed)
SELECT {id}, 'mail', 'default', {t0}, {t0} + number, {t0} + number, {id}, '{state}', {finished}, {open}, number % 2
FROM generate_series({first}, {last}) AS number"""


def fill(place: Place, state: str, first: int, last: int) -> None:
    done = state == "succeeded"
    numbered = "to_char(number, 'FM0000000')"
    place.say(
        _ROWS.format(
            id=numbered, t0=T0, state=state, finished=T0 if done else "NULL", open=int(not done), first=first, last=last
        )
    )


def pages_read(store: PostgresStorage, now: Instant, *, starts: bool = False) -> tuple[set[str], int]:
    """By which indexes, and how many pages, the ten best are found; looking for the low-watermarks not included.

    `starts`: by the statement that starts them as well.
    """
    plans: list[Any] = []
    with store.transaction():
        session = store._session()  # pyright: ignore[reportPrivateUsage]
        fetch = session.fetch

        def explain(sql: str, parameters: Any = ()) -> Any:
            if "FOR UPDATE SKIP LOCKED" in sql:
                plans.append(fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", parameters)[0][0][0]["Plan"])
            return fetch(sql, parameters)

        chosen: Any = {"node_id": NODE.id, "tasks": {"mail", "other"}}

        session.fetch = explain  # type: ignore[method-assign]
        try:
            if starts:
                found = len(store.start_ready(now, {"default": 10}, ignore=(), **chosen)[0])
            else:
                found = len(store.ready_rows(now, {"default": 10}, 0, lock=True, **chosen))
        finally:
            del session.fetch
    assert found == 10
    (plan,) = plans
    if starts:
        assert "all of executions" not in indexes_of(plan)
        (plan,) = (inner for inner in plan["Plans"] if inner.get("Subplan Name") == "CTE best")
    return set(indexes_of(plan)), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def indexes_of(plan: Any) -> Iterator[str]:
    if plan["Actual Loops"] and plan["Node Type"] in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        yield plan.get("Index Name", f"all of {plan['Relation Name']}" if "Relation Name" in plan else "")
    for inner in plan.get("Plans", ()):
        yield from indexes_of(inner)


@pytest.mark.parametrize("starts", [False, True], ids=["to look", "to start"])
@pytest.mark.parametrize("known", [False, True], ids=["without statistics", "with statistics"])
def test_a_due_scan_reads_a_few_pages_by_its_indexes_however_much_there_is(
    place: Place, known: bool, starts: bool
) -> None:
    store = place.store(NODE)
    place.say("TRUNCATE executions; ALTER TABLE executions SET (autovacuum_enabled = false)")
    fill(place, "succeeded", 1, 20_000)
    fill(place, "pending", 30_000, 30_100)
    fill(place, "pending", 2_000_000, 2_002_000)
    if known:
        place.say("ANALYZE executions")

    indexes, pages = pages_read(store, T0 + SECOND, starts=starts)

    assert indexes <= {"ready", "due"}
    assert pages < 300


@pytest.mark.parametrize("known", [False, True], ids=["without statistics", "with statistics"])
def test_a_correlation_is_looked_up_by_its_index(place: Place, known: bool) -> None:
    store = place.store(NODE)
    fill(place, "succeeded", 1, 5_000)
    work = Work("mail", labels=to_labels({"tenant": "acme"}, correlation="7"))
    store.add_executions([NewExecution(f"a{number}", work, Cause.ENQUEUE, T0) for number in range(10)], T0)
    if known:
        place.say("ANALYZE executions")
    wanted = ExecutionFilter(correlation="7", states="incomplete")

    conditions = execution_conditions(POSTGRES, wanted)
    with store.reading():
        session = store._session()  # pyright: ignore[reportPrivateUsage]
        sql = f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM executions WHERE {conditions.text} ORDER BY id LIMIT 100"
        (plan,) = (row[0][0]["Plan"] for row in session.fetch(sql, conditions.parameters))

    assert set(indexes_of(plan)) == {"correlations"}
    assert len(store.list_executions(wanted).items) == 10


def test_statements_that_were_prepared_while_the_tables_were_small_use_indexes_all_the_same(
    bare_place: Place,
) -> None:
    place, store = bare_place, bare_place.store(NODE)
    place.say("ALTER TABLE executions SET (autovacuum_enabled = false)")
    batch = [f"{number:07}" for number in range(64)]
    fill(place, "succeeded", 1, 200)
    for _ in range(15):
        store.get_executions(batch)

    fill(place, "succeeded", 1_000, 20_000)
    for _ in range(10):
        store.get_executions(batch)

    with store.reading():
        store._session().fetch("SELECT pg_stat_force_next_flush()")  # pyright: ignore[reportPrivateUsage]
    (read,) = place.say("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'executions'::regclass")
    assert read[0] < 20_000


def test_claims_and_outcomes_that_were_planned_while_there_was_little_history_do_not_read_all_of_it(
    bare_place: Place,
) -> None:
    place, store = bare_place, bare_place.store(NODE)
    place.say("ALTER TABLE executions SET (autovacuum_enabled = false)")
    ids = (f"x{number:03}" for number in range(1000))

    def run_some() -> None:
        enqueue(store, *(next(ids) for _ in range(3)))
        claims = store.start(NODE.id, T0, free={"default": 3}).claims
        ends = [Outcome(one.execution_id, one.attempt_id, NODE.id, Ending.SUCCEEDED, T0, alone=True) for one in claims]
        assert len(store.finish(ends, T0).applied) == 3

    def entries_read() -> int:
        with store.reading():
            store._session().fetch("SELECT pg_stat_force_next_flush()")  # pyright: ignore[reportPrivateUsage]
        relation = "relid = 'executions'::regclass"
        return int(place.say(f"SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE {relation}")[0][0])

    run_some()
    place.say("ANALYZE executions")
    for _ in range(10):
        run_some()
    fill(place, "succeeded", 1_000, 20_000)
    before = entries_read()
    for _ in range(10):
        run_some()

    assert entries_read() - before < 10_000


def test_what_has_been_started_is_not_read_again_even_while_an_old_snapshot_keeps_it(place: Place) -> None:
    store = place.store(NODE)
    place.say("TRUNCATE executions")
    with psycopg.connect(place.dsn) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        fill(place, "pending", 1, 10_200)
        place.say("UPDATE executions SET state = 'running' WHERE id < '0010000'; ANALYZE executions")

        _, first = pages_read(store, T0 + SECOND)
        place.say("UPDATE executions SET state = 'running' WHERE id < '0010100'")
        _, again = pages_read(store, T0 + SECOND + 1)

    assert first < 200
    assert again < 100


def test_a_low_watermark_hides_nothing_of_ours_and_what_others_add_for_a_second_at_most(place: Place) -> None:
    store, other = place.store(NODE), place.store(OTHER)
    enqueue(store, "5", "6")

    def next_one(now: Instant = T0) -> list[str]:
        with store.transaction():
            return [row.id for row in store.ready_rows(now, {"default": 1}, 0, lock=True)]

    assert next_one() == ["5"]
    enqueue(store, "4")
    assert next_one() == ["4"]
    other.add_executions([NewExecution("9", Work("mail", priority=1), Cause.ENQUEUE, T0)], T0)
    assert next_one() == ["9"]
    other.start(OTHER.id, T0, items=["9"])
    enqueue(other, "3")
    assert next_one(T0 + SECOND) == ["3"]


# ---- Connections


def test_a_connection_that_was_lost_while_it_rested_is_replaced_unnoticed(place: Place, store: PostgresStorage) -> None:
    place.kill_connections()

    enqueue(store, "x")

    assert list(store.get_executions(["x"])) == ["x"]


def test_a_connection_that_is_lost_in_a_transaction_is_an_outage_that_changes_nothing(
    place: Place, store: PostgresStorage
) -> None:
    def lose_it() -> None:
        with store.transaction():
            enqueue(store, "x")
            place.kill_connections()
            enqueue(store, "y")

    with pytest.raises(StoreUnavailable) as caught:
        lose_it()
    enqueue(store, "z")

    assert caught.value.transient
    assert [row.id for row in store.list_executions().items] == ["z"]


def test_a_server_that_cannot_be_reached_is_an_outage_and_a_database_that_is_not_there_is_none(place: Place) -> None:
    nowhere = PostgresStorage("host=127.0.0.1 port=1 dbname=x", connect_timeout=2)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        nowhere.open(NODE, T0)

    with pytest.raises(StoreError, match="look at the user") as caught:
        PostgresStorage(f"{place.dsn}&dbname=nobody").open(NODE, T0)

    assert not caught.value.transient


def test_a_statement_that_takes_too_long_is_cancelled_by_the_server(place: Place) -> None:
    store = place.store(NODE, statement_timeout=0.05)

    with pytest.raises(StoreUnavailable, match="took too long"), store.reading():
        store._session().fetch("SELECT pg_sleep(30)")  # pyright: ignore[reportPrivateUsage]

    enqueue(store, "x")
    assert store.count_executions() == 1


def test_behind_a_proxy_nothing_that_was_set_outlives_a_transaction(place: Place) -> None:
    """It may give the connection to anybody else."""
    store = place.store(NODE, pooled=True)
    names = ("search_path", "statement_timeout", "idle_in_transaction_session_timeout")
    session: Any = None

    def settings() -> list[str]:
        return [session.connection.execute(f"SHOW {name}").fetchone()[0] for name in names]

    with store.transaction():
        session = store._session()  # pyright: ignore[reportPrivateUsage]
        inside = settings()

    assert inside[1:] == ["30s", "30s"]
    assert settings() != inside
    assert settings()[1] == "0"


@pytest.mark.parametrize(
    ("options", "proxied", "prepares"),
    [({}, False, True), ({"pooled": True}, False, False), ({}, True, False)],
    ids=["no proxy", "a proxy that was named", "a proxy that was not"],
)
def test_behind_a_proxy_nothing_is_prepared(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], proxied: bool, prepares: bool
) -> None:
    if proxied:
        monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 0)
    store = place.store(NODE, **options)

    for _ in range(8):
        store.count_executions()
    with store.reading():
        (prepared,) = store._session().fetch("SELECT count(*) FROM pg_prepared_statements")  # pyright: ignore[reportPrivateUsage]

    assert (prepared[0] > 0) is prepares


def test_a_connection_keeps_no_more_prepared_statements_than_it_may(store: PostgresStorage) -> None:
    with store.reading():
        session = store._session()  # pyright: ignore[reportPrivateUsage]
        for number in (*range(300), *range(300), *range(200), *range(200)):
            assert session.fetch(f"SELECT {number} + ?", (1,)) == [(number + 1,)]
        (prepared,) = session.fetch("SELECT count(*) FROM pg_prepared_statements")

    assert 0 < prepared[0] <= 256


def test_what_is_prepared_is_there_after_a_transaction_that_failed(store: PostgresStorage) -> None:
    for _ in range(3):
        store.count_executions()
        with pytest.raises(StoreError), store.transaction():
            store._session().fetch("SELECT 1 / ?", (0,))  # pyright: ignore[reportPrivateUsage]

    assert store.count_executions() == 0


# ---- Hints


class Ear:
    """Counts the hints that a store gives."""

    def __init__(self, storage: PostgresStorage) -> None:
        self.hints = threading.Semaphore(0)
        self.stop = storage.listen(self.hints.release)
        self.listener = storage._listener  # pyright: ignore[reportPrivateUsage]

    def wait_until_it_hears(self) -> None:
        """And forget what it has heard so far."""
        assert self.listener is not None
        assert self.listener.ready.wait(PATIENCE)
        while self.hints.acquire(blocking=False):
            pass

    def hears(self) -> bool:
        """Whether a hint comes."""
        return self.hints.acquire(timeout=PATIENCE)


@pytest.fixture
def ears(place: Place) -> Iterator[tuple[PostgresStorage, PostgresStorage, Ear]]:
    """A store that says something, another one, and its ear."""
    speaker, hearer = place.store(NODE), place.store(OTHER)
    mouth = Ear(speaker)
    mouth.wait_until_it_hears()
    ear = Ear(hearer)
    ear.wait_until_it_hears()
    yield speaker, hearer, ear
    mouth.stop()
    ear.stop()


def test_a_node_hears_of_what_another_one_adds(ears: tuple[PostgresStorage, PostgresStorage, Ear]) -> None:
    speaker, _, ear = ears

    enqueue(speaker, "x")
    assert ear.hears()
    ear.wait_until_it_hears()
    speaker.put_jobs([NewJob("job", Job("nightly", "mail"))], T0)
    assert ear.hears()


def test_a_node_whose_ear_was_cut_off_hears_again_by_itself(
    place: Place, ears: tuple[PostgresStorage, PostgresStorage, Ear]
) -> None:
    speaker, _, ear = ears

    place.kill_connections()
    assert ear.hears(), "it looks for what came while it heard nothing"
    ear.wait_until_it_hears()
    enqueue(speaker, "x")

    assert ear.hears()


def test_a_node_that_does_not_hear_itself_knows_that_it_hears_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "clepsydra.storage")
    monkeypatch.setattr(postgres_listener, "ANSWER_WITHIN", 0.01)
    told = threading.Event()

    def heard(_: Listener, who: str) -> None:
        told.set()

    monkeypatch.setattr(Listener, "_heard", heard)
    store = place.store(NODE)

    ear = Ear(store)
    assert told.wait(PATIENCE)
    ear.stop()
    assert ear.listener is not None
    assert ear.listener.ended.wait(PATIENCE)

    assert not ear.listener.ready.is_set()
    assert "is not heard here; behind a proxy" in caplog.text


@pytest.mark.parametrize("options", [{"pooled": True}, {"listen": False}])
def test_who_is_not_to_listen_has_no_connection_for_it(place: Place, options: dict[str, Any]) -> None:
    ear = Ear(place.store(NODE, **options))
    ear.stop()

    assert ear.listener is None


# ---- Calls that are given up on


class HangingThread:
    """A thread that begins a transaction, writes, and then hangs until it is told to go on."""

    def __init__(self, storage: PostgresStorage) -> None:
        self.storage = storage
        self.error: BaseException | None = None
        self._hangs, self._goes_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._hangs.wait(PATIENCE)

    def _run(self) -> None:
        try:
            with self.storage.transaction():
                enqueue(self.storage, "of the one that hangs")
                self._hangs.set()
                self._goes_on.wait(PATIENCE)
        except BaseException as error:
            self.error = error

    def come_back(self) -> None:
        """Let it go on, and wait for its end."""
        self._goes_on.set()
        self._thread.join(PATIENCE)


def test_a_thread_that_was_given_up_on_cannot_commit_when_it_comes_back(store: PostgresStorage) -> None:
    hanging = HangingThread(store)

    store.interrupt()
    hanging.come_back()
    enqueue(store, "of the next one")

    assert isinstance(hanging.error, StoreUnavailable)
    assert [row.id for row in store.list_executions().items] == ["of the next one"]


def test_what_a_hanging_thread_has_locked_is_free_once_it_is_given_up_on(place: Place, store: PostgresStorage) -> None:
    enqueue(store, "x", key="k")
    hanging = HangingThread(store)

    store.interrupt()
    enqueue(store, "y", key="k")
    hanging.come_back()

    assert [row.id for row in store.list_executions().items] == ["x"]


def test_an_interrupt_breaks_off_a_statement_that_takes_too_long(place: Place, store: PostgresStorage) -> None:
    begun = threading.Event()

    def sleep() -> None:
        with store.reading():
            begun.set()
            store._session().fetch("SELECT pg_sleep(30)")  # pyright: ignore[reportPrivateUsage]

    with ThreadPoolExecutor(1) as thread:
        sleeping = thread.submit(sleep)
        assert begun.wait(PATIENCE)
        store.interrupt()

        assert isinstance(sleeping.exception(PATIENCE), StoreUnavailable)
    assert store.count_executions() == 0


def test_a_closed_store_has_no_connections(place: Place) -> None:
    store = place.store(NODE)
    in_threads(3, lambda _: store.count_executions())

    store.close()
    with pytest.raises(StoreError, match="is not open"):
        store.count_executions()

    assert store._connections._sessions == []  # pyright: ignore[reportPrivateUsage]


def test_connections_of_threads_that_have_ended_are_closed(store: PostgresStorage) -> None:
    for _ in range(10):
        in_threads(1, lambda _: store.count_executions())

    assert len(store._connections._sessions) <= 3  # pyright: ignore[reportPrivateUsage]


# ---- Text and numbers


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", "\ufdd0", "é\n\t\\u0000", '{"a,b\\'])
def test_an_error_of_any_text_can_be_recorded_and_read(store: PostgresStorage, text: str) -> None:
    enqueue(store, "x")
    store.start(NODE.id, T0, items=["x"])

    store.finish([Outcome("x", "x", NODE.id, Ending.FAILED, T0, error=text)], T0)

    assert store.get_executions(["x"])["x"].error == text


def test_any_text_is_kept_whatever_encoding_the_connection_string_asks_for(place: Place) -> None:
    place.dsn += "&client_encoding=latin1"
    store = place.store(NODE)

    enqueue(store, "x", key="水时计")

    assert store.get_executions(["x"])["x"].key == "水时计"


@pytest.mark.parametrize("key", ["it's", "a\0b", "\ud800", 'quo"te', "back\\slash", "ü" * 200])
def test_a_key_of_any_text_is_found(store: PostgresStorage, key: str) -> None:
    enqueue(store, "x", key=key)

    (again,) = enqueue(store, "y", key=key)

    assert (again.id, again.created) == ("x", False)
    assert [row.id for row in store.list_executions(ExecutionFilter(keys={key, "other"})).items] == ["x"]
    assert list(store.get_executions(["x", "a\0b", "\ud800"])) == ["x"]


def test_labels_are_found_by_key_and_value(store: PostgresStorage) -> None:
    labels = (('it\'s "odd"', "ü, }"), ("team", "b"))
    store.add_executions([NewExecution("x", Work("mail", labels=labels), Cause.ENQUEUE, T0)], T0)
    enqueue(store, "y")

    for where, found in (({"team": "b"}, ["x"]), ({"team": "c"}, []), ({"team": None}, ["x"]), ({"none": None}, [])):
        assert [row.id for row in store.list_executions(ExecutionFilter(labels=cast(Any, where))).items] == found


def test_a_number_that_no_column_can_hold_is_an_error_of_the_store(store: PostgresStorage) -> None:
    with pytest.raises(StoreError) as caught:
        store.add_executions([NewExecution("x", Work("mail"), Cause.ENQUEUE, 2**70)], T0)

    assert not caught.value.transient


def test_a_failure_inside_that_is_swallowed_undoes_everything_as_well(store: PostgresStorage) -> None:
    def swallow_a_failure() -> None:
        with store.transaction():
            enqueue(store, "x")
            with suppress(ZeroDivisionError), store.transaction():
                raise ZeroDivisionError

    with pytest.raises(StoreError, match="all of it is undone"):
        swallow_a_failure()

    assert store.count_executions() == 0
