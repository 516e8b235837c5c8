"""Rows, indexes and filters of the SQLite store.

Whichever index leads to rows, they are the same rows; and damage stays where it is.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.model.errors import InvalidArgument
from clepsydra.model.execution import UNFINISHED, Attempt, Cause, Ending, Execution, Kind, Outcome, State
from clepsydra.model.filters import EVERY_EXECUTION, ExecutionFilter, JobFilter, Order
from clepsydra.model.instants import HOUR, SECOND, Instant
from clepsydra.model.job import Job
from clepsydra.model.payload import to_labels
from clepsydra.model.policies import OnLeaseLost, Recovery, Retry
from clepsydra.model.schedule import Every
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage import sqlite_executions
from clepsydra.storage.paging import EXECUTION_COLUMNS as ORDERS
from clepsydra.storage.paging import page_rows
from clepsydra.storage.protocol import NewExecution, NewJob
from clepsydra.storage.rows import (
    EXECUTION_COLUMNS,
    EXECUTION_DEFAULTS,
    execution_from_row,
    execution_to_row,
    loaded,
    stored,
)
from clepsydra.storage.sql import execution_conditions, execution_sorting
from clepsydra.storage.sqlite import SQLiteStorage
from clepsydra.storage.sqlite_queries import SQLITE

T0: Instant = 1_767_614_400 * SECOND
NODE = Node("node-1", "here", T0, 0)
TASKS, QUEUES, NODES = ("mail", "report"), ("default", "slow"), ("node-1", "node-2")
LABELS: tuple[tuple[tuple[str, str], ...], ...] = ((), (("team", "a"),), (('it\'s "odd"', "ü, }"), ("team", "b")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStorage]:
    storage = SQLiteStorage(path, synchronous="NORMAL")
    storage.open(NODE, T0)
    yield storage
    storage.close()


def enqueue(storage: SQLiteStorage, *ids: str, due_at: Instant = T0, key: str | None = None) -> None:
    storage.add_executions([NewExecution(one, Work("mail"), Cause.ENQUEUE, due_at, key=key) for one in ids], T0)


def damage(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


# ---- Text


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_comes_back_as_it_was_and_is_stored_as_clean_text(text: str) -> None:
    kept = stored(text)

    assert loaded(kept) == text
    assert kept is not None
    assert "\0" not in kept
    kept.encode()


@pytest.mark.parametrize(
    "text", ["", "plain", "a\0b", "\ud800", "\ud83d\ude00", "\ufdd0", "é\n\t\\u0000", "x" * 1_000_000]
)
def test_an_error_of_any_text_can_be_recorded_and_read(store: SQLiteStorage, text: str) -> None:
    enqueue(store, "x")
    store.start(NODE.id, T0, items=["x"])

    store.finish([Outcome("x", "x", NODE.id, Ending.FAILED, T0, error=text)], T0)

    assert store.get_executions(["x"])["x"].error == text


@pytest.mark.parametrize("key", ["it's", "a\0b", "\ud800", 'quo"te', "ü" * 300])
def test_a_key_of_any_text_is_found(store: SQLiteStorage, key: str) -> None:
    enqueue(store, "x", key=key)

    again = store.add_executions([NewExecution("y", Work("mail"), Cause.ENQUEUE, T0, key=key)], T0)

    assert [(one.id, one.created) for one in again] == [("x", False)]
    assert ids(store.list_executions(ExecutionFilter(keys={key, "other"})).items) == ["x"]


# ---- Rows


def test_the_schema_has_the_defaults_that_an_insert_leaves_out(store: SQLiteStorage, path: Path) -> None:
    needed = [name for name, value in zip(EXECUTION_COLUMNS, EXECUTION_DEFAULTS, strict=True) if type(value) is object]

    with closing(sqlite3.connect(path)) as connection:
        marks = ", ".join("?" * len(needed))
        connection.execute(f"INSERT INTO executions ({', '.join(needed)}) VALUES ({marks})", needed)
        row = connection.execute(f"SELECT {', '.join(EXECUTION_COLUMNS)} FROM executions").fetchone()

    defaults = [value for value in EXECUTION_DEFAULTS if type(value) is not object]
    assert [value for name, value in zip(EXECUTION_COLUMNS, row, strict=True) if name not in needed] == defaults


def some_executions(draw: random.Random, count: int) -> list[Execution]:
    return [some_execution(draw, f"{number:04}") for number in range(count)]


def some_execution(draw: random.Random, row_id: str) -> Execution:
    def instant(*, least: int = 0) -> Instant:
        return T0 + draw.randint(least, 20) * SECOND

    state = draw.choice(list(State))
    job = draw.choice((None, "nightly", "hourly"))
    created = instant()
    return Execution(
        row_id,
        Work(
            draw.choice(TASKS),
            draw.choice(("{}", '{"to":"é"}')),
            draw.choice(QUEUES),
            draw.randint(-1, 1),
            draw.choice(LABELS),
            draw.choice((Retry(), Retry(3))),
            draw.choice((None, SECOND)),
            draw.choice((None, SECOND)),
            draw.choice(list(Recovery)),
            draw.choice((3, None)),
            draw.choice(list(OnLeaseLost)),
        ),
        draw.choice(list(Cause)),
        created,
        instant(),
        draw.choice((created, created - SECOND, instant())),
        f"{draw.randrange(1000):03}-{row_id}",
        state,
        None if job is None else f"id of {job}",
        job,
        draw.randint(0, 3),
        None if job is None or draw.random() < 0.3 else T0 + int(row_id) * SECOND,
        draw.choice(("", "", *NODES)),
        draw.randint(1, 3),
        draw.randint(0, 3),
        draw.choice(NODES) if state is State.RUNNING else draw.choice((None, *NODES)),
        draw.choice((None, instant())),
        draw.choice((None, instant())),
        None if state in UNFINISHED else draw.choice((None, instant(), instant())),
        draw.choice((None, instant())),
        draw.choice((None, "k1", 'k"2')),
        draw.random() < 0.3,
        draw.choice((0, 0, 7)),
        draw.choice((None, *Kind)),
        draw.choice((None, "", "because\0")),
        draw.choice((None, "null")),
        draw.choice((None, "Error: é")),
        draw.choice((None, "1")),
    )


def test_every_field_of_an_execution_comes_back(store: SQLiteStorage) -> None:
    rows = some_executions(random.Random(1), 300)

    with store.transaction():
        store.insert_executions(rows)

    assert list(store.get_executions([row.id for row in rows]).values()) == rows
    assert all(execution_from_row(execution_to_row(row)) == row for row in rows)


def test_an_update_writes_all_that_has_changed_whether_it_was_read_before_or_not(store: SQLiteStorage) -> None:
    draw = random.Random(2)
    before, after = some_executions(draw, 200), some_executions(draw, 200)
    for old, new in zip(before, after, strict=True):
        new.cause, new.created_at, new.nominal = old.cause, old.created_at, old.nominal
        new.job_id, new.job_name = old.job_id, old.job_name
    with store.transaction():
        store.insert_executions(before)

    with store.transaction():
        store.executions_by_id([row.id for row in before[::2]], lock=True)
        store.update_executions(after)
        store.update_executions(after)

    assert list(store.get_executions([row.id for row in after]).values()) == after
    with store.reading():
        assert answers(store) == answers_by_hand(after)


def answers(storage: SQLiteStorage) -> dict[str, Any]:
    """What the indexes give."""
    return {
        "open": {job: ids(rows) for job, rows in storage.unfinished_of_jobs(["id of nightly", "id of hourly"]).items()},
        "running": ids(storage.running_rows(None, None, None)),
        "targeted": ids(storage.targeted_rows(["node-1"])),
        "cancelled": sorted(row_id for row_id, _ in storage.cancelled_since(6)),
        "placing": ids(storage.unplaced_rows(T0 + HOUR, 1000)),
        "ready": sorted(ids(storage.ready_rows(T0 + 10 * SECOND, None, 1000))),
    }


def answers_by_hand(rows: list[Execution]) -> dict[str, Any]:
    occupying = [row for row in rows if row.state in UNFINISHED or row.occupies]
    jobs = {"id of nightly", "id of hourly"} & {row.job_id for row in occupying}
    runs = [row for row in occupying if row.state is State.RUNNING or (row.state is State.CANCELLED and row.occupies)]
    waiting = [row for row in rows if row.state in (State.PENDING, State.PLACING, State.HELD)]
    return {
        "open": {
            job: [
                row.id
                for row in rows
                if row.job_id == job and (row.state in UNFINISHED or row.occupies or row.finished_at is None)
            ]
            for job in jobs
        },
        "running": ids(sorted((row for row in runs if row.node), key=attrgetter("attempt_id"))),
        "targeted": [row.id for row in waiting if row.target not in ("", "node-1")],
        "cancelled": [row.id for row in rows if row.cancel_revision > 6 and row.occupies],
        "placing": [row.id for row in rows if row.state is State.PLACING],
        "ready": [row.id for row in rows if row.state is State.PENDING and row.not_before <= T0 + 10 * SECOND],
    }


# ---- Filters and orders


def some_filter(draw: random.Random) -> ExecutionFilter:
    def maybe(*choices: Any) -> Any:
        return None if draw.random() < 0.75 else frozenset(draw.sample(choices, draw.randint(0, min(3, len(choices)))))

    def between() -> Any:
        ends = [None if draw.random() < 0.4 else T0 + draw.randint(0, 20) * SECOND for _ in range(2)]
        return (None, None) if draw.random() < 0.8 else tuple(ends)

    return ExecutionFilter(
        ids=maybe(*(f"{number:04}" for number in range(300))),
        job_ids=maybe("id of nightly", "id of hourly", "id of none"),
        jobs=maybe("nightly", "hourly", "none"),
        tasks=maybe(*TASKS, "none"),
        queues=maybe(*QUEUES, "none"),
        states=maybe(*State),
        causes=maybe(*Cause),
        verdicts=maybe(*Kind),
        keys=maybe("k1", 'k"2', "k3"),
        nodes=maybe(*NODES),
        labels=draw.choice(({}, {}, {}, {"team": None}, {"team": "b"}, {'it\'s "odd"': "ü, }"}, {"none": None})),
        due=between(),
        nominal=between(),
        created=between(),
        finished=between(),
    )


@pytest.mark.parametrize("many", [5, 4096])
def test_lists_counts_and_pages_hold_what_the_filter_matches_in_the_order_that_was_asked_for(
    store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch, many: int, long_run: bool
) -> None:
    monkeypatch.setattr(sqlite_executions, "_MANY", many)
    draw = random.Random(3)
    rows = some_executions(draw, 300)
    with store.transaction():
        store.insert_executions(rows)

    for _ in range(3000 if long_run else 300):
        where = some_filter(draw)
        order = draw.choice([order for order in Order if order.value.removeprefix("-") in ORDERS])
        limit, offset = draw.choice((0, 1, 7, 400)), draw.choice((0, 0, 3, 250))
        matching = [row for row in rows if where.matches(row)]
        key = attrgetter(ORDERS[Order(order.value.removeprefix("-"))])

        assert store.count_executions(where) == len(matching)
        assert sum(store.stats(where).values()) == len(matching)
        page = store.list_executions(where, order, limit, offset=offset)
        while True:
            expected = page_rows(matching, order, key, limit, None, offset)
            assert (page.items, page.cursor) == expected
            if page.cursor is None or limit == 0:
                break
            offset += limit
            page = store.list_executions(where, order, limit, page.cursor)


def test_the_numbers_of_each_state_count_every_execution_once(store: SQLiteStorage) -> None:
    rows = some_executions(random.Random(4), 500)
    with store.transaction():
        store.insert_executions(rows)

    assert store.stats() == {state: sum(row.state is state for row in rows) for state in State}


def test_a_list_of_very_many_ids_is_no_trouble(store: SQLiteStorage) -> None:
    enqueue(store, "x")
    many = {str(number) for number in range(50_000)} | {"x"}

    assert list(store.get_executions(many)) == ["x"]
    assert store.count_executions(ExecutionFilter(ids=many)) == 1
    assert ids(store.ready(T0, 10, ignore=many - {"x"})) == ["x"]


def test_an_order_that_a_list_does_not_have_is_refused(store: SQLiteStorage) -> None:
    with pytest.raises(InvalidArgument, match="order"):
        store.list_executions(order=Order.NAME)


def test_executions_of_a_job_are_found_by_its_name_after_it_is_gone(store: SQLiteStorage) -> None:
    for round_ in range(2):
        store.put_jobs([NewJob(f"job-{round_}", Job("nightly", "mail"))], T0)
        run = NewExecution(f"x{round_}", Work("mail"), Cause.MANUAL, T0, job_id=f"job-{round_}", job_name="nightly")
        store.add_executions([run], T0)
        store.start(NODE.id, T0, items=[run.id])
        if round_ == 0:
            store.delete_jobs(JobFilter(names={"nightly"}), T0)
    store.purge()

    assert ids(store.list_executions(ExecutionFilter(jobs={"nightly"})).items) == ["x0", "x1"]


def test_names_of_jobs_that_have_left_no_trace_are_forgotten(store: SQLiteStorage, path: Path) -> None:
    store.put_jobs([NewJob("job", Job("nightly", "mail"))], T0)
    store.add_executions([NewExecution("x", Work("mail"), Cause.MANUAL, T0, job_id="job", job_name="nightly")], T0)
    store.delete_jobs(JobFilter(), T0)

    store.delete_history(T0 + SECOND, 100)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM job_names").fetchall() == []


def test_a_name_that_was_rolled_back_is_written_again(store: SQLiteStorage) -> None:
    row = Execution("x", Work("mail"), Cause.MANUAL, T0, T0, T0, "x", job_id="job", job_name="nightly")
    with suppress(ZeroDivisionError), store.transaction():
        store.insert_executions([row])
        raise ZeroDivisionError

    with store.transaction():
        store.insert_executions([row])

    assert store.count_executions(ExecutionFilter(jobs={"nightly"})) == 1


# ---- What may start


@pytest.mark.parametrize("many", [3, 4096])
def test_what_is_ready_comes_in_the_order_of_priority_and_attempt_however_much_waits_for_later(
    store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch, many: int, long_run: bool
) -> None:
    monkeypatch.setattr(sqlite_executions, "_MANY", many)
    draw = random.Random(5)
    rows = [evolve(row, state=State.PENDING) for row in some_executions(draw, 300)]
    with store.transaction():
        store.insert_executions(rows)

    for _ in range(1000 if long_run else 100):
        now = T0 + draw.randint(-2, 22) * SECOND
        node = draw.choice((None, "node-1"))
        tasks = draw.choice((None, {"mail"}, {"mail", "report"}, set[str]()))
        after = draw.choice((None, (0, "500-0100"), (1, "")))
        ignore = {row.id for row in rows if draw.random() < 0.3}
        limit = draw.choice((0, 1, 10, 1000))
        ready = [
            row
            for row in sorted(rows, key=lambda row: (-row.work.priority, row.attempt_id))
            if row.not_before <= now
            and (node is None or row.target in ("", node))
            and (tasks is None or row.work.task in tasks)
            and (after is None or (-row.work.priority, row.attempt_id) > (-after[0], after[1]))
            and row.id not in ignore
        ]
        slow = [row for row in ready if row.work.queue == "slow"]
        narrowed: dict[str, Any] = {"node_id": node, "tasks": tasks, "after": after, "ignore": ignore}

        with store.reading():
            assert store.ready_rows(now, None, limit, **narrowed) == ready[:limit]
            assert store.ready_rows(now, {"slow": limit, "none": 1}, 0, **narrowed) == slow[:limit]
            assert store.next_due_rows(now, None, ignore) == earliest(rows, now, ignore)
            assert store.next_due_rows(now, ["slow"], ()).items() <= earliest(rows, now, ()).items()


def earliest(rows: list[Execution], after: Instant, ignore: Any) -> dict[str, Instant]:
    found: dict[str, Instant] = {}
    for row in rows:
        if row.not_before > after and row.id not in ignore:
            found[row.work.queue] = min(row.not_before, found.get(row.work.queue, row.not_before))
    return found


# ---- Damage


UNREADABLE = [
    "state = 'dozing'",
    "labels = '{'",
    "rules = 'null'",
    "rules = '{\"retry\":7}'",
    "cause = x'00'",
    "verdict = 'perhaps'",
    "result = CAST(x'ff41' AS TEXT)",
]


@pytest.mark.parametrize("change", UNREADABLE)
def test_a_row_that_cannot_be_understood_is_reported_once_and_the_rest_goes_on(
    store: SQLiteStorage, path: Path, change: str
) -> None:
    enqueue(store, "a", "b", "c")

    damage(path, f"UPDATE executions SET {change} WHERE id = 'b'")
    seen = [ids(store.list_executions().items), list(store.get_executions(["a", "b"])), ids(store.ready(T0, 2))]
    reported = store.take_quarantined()
    started = store.start(NODE.id, T0, free={"default": 2})

    assert seen == [["a", "c"], ["a"], ["a", "c"]]
    assert [(one.table, one.row_id) for one in reported] == [("executions", "b")]
    assert reported[0].reason
    assert [claim.execution_id for claim in started.claims] == ["a", "c"]
    assert store.take_quarantined() == []


def test_damaged_rows_at_the_head_of_the_queue_keep_nothing_from_starting(store: SQLiteStorage, path: Path) -> None:
    enqueue(store, *(f"{number:03}" for number in range(200)))
    damage(path, "UPDATE executions SET rules = '[' WHERE id < '150'")

    started = store.start(NODE.id, T0, free={"default": 10})

    assert [claim.execution_id for claim in started.claims] == [f"{number:03}" for number in range(150, 160)]
    assert len(store.take_quarantined()) == 150
    assert store.next_due(T0 - SECOND) == {"default": T0}
    untouched = "state = 'pending' AND occupies = 0 AND coalesce(node, started_at, first_started_at) IS NULL"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"SELECT count(*) FROM executions WHERE {untouched}").fetchone() == (190,)


def test_a_damaged_row_is_nothing_to_wake_up_for(store: SQLiteStorage, path: Path) -> None:
    enqueue(store, "x", due_at=T0 + SECOND)
    damage(path, "UPDATE executions SET rules = '['")
    store.get_executions(["x"])

    assert store.next_due(T0) == {}


def test_a_damaged_row_is_reported_again_when_the_store_is_opened_again(store: SQLiteStorage, path: Path) -> None:
    enqueue(store, "x")
    damage(path, "UPDATE executions SET rules = '['")
    for _ in range(2):
        store.ready(T0, 1)

        assert len(store.take_quarantined()) == 1
        store.close()
        store.open(NODE, T0)


def test_a_damaged_job_does_not_keep_the_others_from_loading(store: SQLiteStorage, path: Path) -> None:
    store.put_jobs([NewJob(name, Job(name, "mail", Every(minutes=5))) for name in ("a", "b", "c")], T0)

    damage(path, """UPDATE jobs SET definition = replace(definition, '"every"', '"weekly"') WHERE id = 'b'""")

    assert ids(store.load_jobs()) == ["a", "c"]
    assert [(one.table, one.row_id) for one in store.take_quarantined()] == [("jobs", "b")]


def test_the_work_of_a_job_that_cannot_be_read_here_is_left_to_those_who_can(store: SQLiteStorage, path: Path) -> None:
    """As when this host does not know its time zone: it is not `removed`, and keeps nothing else from starting."""
    store.put_jobs([NewJob("a", Job("nightly", "mail", Every(minutes=5)))], T0)
    work = Work("mail")
    store.add_executions([NewExecution("1", work, Cause.MANUAL, T0, job_id="a", job_name="nightly")], T0)
    store.add_executions([NewExecution("2", work, Cause.ENQUEUE, T0)], T0)
    damage(path, "UPDATE jobs SET definition = '?'")

    started = [store.start(NODE.id, T0, free={"default": 1}) for _ in range(3)]

    assert started[0].refused == {"1": "its job cannot be read here"}
    assert [claim.execution_id for one in started for claim in one.claims] == ["2"]
    assert not any(one.settled for one in started)
    assert store.next_due(-1) == {}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT state FROM executions WHERE id = '1'").fetchall() == [("pending",)]


def test_a_damaged_job_gives_way_to_a_new_definition_and_is_remembered_as_removed(
    store: SQLiteStorage, path: Path
) -> None:
    store.put_jobs([NewJob("old", Job("nightly", "mail", Every(minutes=5)))], T0)
    revision = store.changes(0).revision
    damage(path, "UPDATE jobs SET definition = '?'")

    (change,) = store.put_jobs([NewJob("new", Job("nightly", "mail"))], T0)

    assert (change.change, change.record.id) == ("added", "new")
    assert [tuple(pair) for pair in store.changes(revision).removed] == [("old", "nightly")]
    assert ids(store.load_jobs()) == ["new"]


def test_labels_that_are_no_json_do_not_break_a_search_for_labels(store: SQLiteStorage, path: Path) -> None:
    work = Work("mail", labels=(("team", "a"),))
    store.add_executions([NewExecution(one, work, Cause.ENQUEUE, T0) for one in ("a", "b")], T0)

    damage(path, "UPDATE executions SET labels = 'team' WHERE id = 'a'")

    assert ids(store.list_executions(ExecutionFilter(labels={"team": "a"})).items) == ["b"]


# ---- Many at once


@pytest.mark.parametrize(
    "works",
    [
        [Work("mail")],
        [Work("mail", "{}"), Work("mail", '{"to":"\\"it\'s\\" ü\\n"}')],
        [Work("mail", queue="slow", labels=(("team", "a"),)), Work("mail", "[" * 1_000_000)],
        [Work("mail"), Work("report", priority=3, timeout=5)],
    ],
)
def test_what_is_enqueued_together_is_there_as_it_was_given_and_only_once(
    store: SQLiteStorage, works: list[Work]
) -> None:
    items = [
        NewExecution(one, work, Cause.ENQUEUE, T0 + SECOND)
        for one, work in zip(("a'\"ü", *"bcdef"), [*works, *works, *works], strict=False)
    ]
    first = store.add_executions(items[:2], T0)

    again = store.add_executions(items, T0 + 1)

    assert [result.created for result in (*first, *again)] == [True] * (len(items[:2]) + len(items))
    rows = store.get_executions([item.id for item in items])
    assert [(item.id, item.work, item.due_at) for item in items] == [
        (row.id, row.work, row.not_before) for row in rows.values()
    ]
    assert [row.created_at for row in rows.values()] == [T0] * 2 + [T0 + 1] * (len(items) - 2)


def test_of_outcomes_that_go_down_together_each_is_recorded_with_its_own_end_and_the_stale_are_told(
    store: SQLiteStorage,
) -> None:
    enqueue(store, *"abcde")
    store.start(NODE.id, T0, items=list("abcde"))
    ended = [
        Outcome("a", "a", NODE.id, Ending.SUCCEEDED, T0 + 1, alone=True),
        Outcome("b", "b", NODE.id, Ending.SUCCEEDED, T0 + 2, alone=True),
        Outcome("c", "c", NODE.id, Ending.SUCCEEDED, T0 + 3, result="[1]", alone=True),
        Outcome("d", "d", NODE.id, Ending.FAILED, T0 + 4, error="no", alone=True),
    ]
    stale = [
        Outcome("e", "e", "node-2", Ending.SUCCEEDED, T0 + 5, alone=True),
        Outcome("g", "g", NODE.id, Ending.SUCCEEDED, T0 + 7, alone=True),
    ]

    answers = [store.finish(outcomes, T0 + 9) for outcomes in (ended[:1], [*ended, *stale])]

    assert [(answer.applied, answer.stale) for answer in answers] == [({"a"}, set()), (set("abcd"), set("eg"))]
    rows = store.get_executions(list("abcde")).values()
    assert [(row.id, row.state.value, row.finished_at, row.result, row.error) for row in rows] == [
        ("a", "succeeded", T0 + 1, None, None),
        ("b", "succeeded", T0 + 2, None, None),
        ("c", "succeeded", T0 + 3, "[1]", None),
        ("d", "failed", T0 + 4, None, "no"),
        ("e", "running", None, None, None),
    ]


# ---- Retention


def test_attempts_leave_with_their_execution(store: SQLiteStorage, path: Path) -> None:
    enqueue(store, "x", "y")
    with store.transaction():
        store.insert_attempts([Attempt(f"{one}1", one, 1, None, T0, T0, T0, "retry", "a\0b") for one in "xy"])

    with store.transaction():
        store.delete_execution_rows(["x"])

    assert (store.list_attempts("x"), [attempt.error for attempt in store.list_attempts("y")]) == ([], ["a\0b"])


def test_history_leaves_in_batches_oldest_first(store: SQLiteStorage) -> None:
    rows = [
        Execution(
            str(number), Work("mail"), Cause.ENQUEUE, T0, T0, T0, str(number), State.SUCCEEDED, finished_at=T0 + at
        )
        for number, at in enumerate([5, 3, 9, 1, 7])
    ]
    with store.transaction():
        store.insert_executions(rows)

    taken = [store.delete_history(T0 + 8, 2).executions for _ in range(3)]

    assert taken == [2, 2, 0]
    assert ids(store.list_executions(EVERY_EXECUTION).items) == ["2"]


def test_revisions_only_grow(store: SQLiteStorage) -> None:
    given_out: list[int] = []
    for _ in range(3):
        with store.transaction():
            given_out.append(store.next_revision())

    assert all(before < after for before, after in pairwise(given_out))


@pytest.mark.parametrize("order", [Order.ID, Order.ID_DESC, Order.CREATED, Order.FINISHED])
def test_a_correlation_is_looked_up_by_its_index(store: SQLiteStorage, path: Path, order: Order) -> None:
    wanted = ExecutionFilter(correlation="7", states=State.PENDING)
    labels = to_labels({"tenant": "acme"}, correlation="7")
    items = [
        NewExecution(f"{number:03}", Work("mail", labels=labels if number % 50 == 0 else ()), Cause.ENQUEUE, T0)
        for number in range(500)
    ]
    store.add_executions(items, T0)

    assert len(store.list_executions(wanted, order).items) == 10
    with closing(sqlite3.connect(path)) as connection:
        for part in execution_sorting(order).parts(execution_conditions(SQLITE, wanted), None):
            sql = f"SELECT * FROM executions WHERE {part.conditions.text} ORDER BY {part.order} LIMIT 100"
            plan = " ".join(
                row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", part.conditions.parameters)
            )
            assert "USING INDEX correlations (<expr>=?)" in plan, plan


def test_damaged_labels_are_no_trouble_for_the_look_up_of_a_correlation(store: SQLiteStorage, path: Path) -> None:
    labels = to_labels(None, correlation="7")
    store.add_executions([NewExecution(one, Work("mail", labels=labels), Cause.ENQUEUE, T0) for one in "ab"], T0)

    damage(path, "UPDATE executions SET labels = '{\"clepsydra.correlation' WHERE id = 'a'")

    assert ids(store.list_executions(ExecutionFilter(correlation="7")).items) == ["b"]
