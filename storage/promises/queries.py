"""Queries: every filter, every order, pages by keyset, counts; and texts and times that come back as they went in."""

from __future__ import annotations

from ...model.execution import Cause, Ending, Execution, Kind, State
from ...model.filters import ExecutionFilter, JobFilter, Order
from ...model.instants import MINUTE
from ...model.job import JobRecord, JobState
from ...model.payload import to_labels
from ...model.schedule import Every
from .ground import NODE, OTHER, T0, World, a_job, promise, raises

EXECUTION_ORDERS = [order for order in Order if order not in (Order.NAME, Order.NAME_DESC)]
JOB_ORDERS = [Order.ID, Order.ID_DESC, Order.CREATED, Order.CREATED_DESC, Order.NAME, Order.NAME_DESC]


def populate(world: World) -> None:
    """Executions and jobs of every sort."""
    labels = (("tenant", "acme"), ("env", "test"))
    for index in range(3):
        record = world.put(
            a_job(f"job-{index}", labels=dict(labels[: index % 3]), overlap="allow", paused=False),
            T0 + (index % 2) * MINUTE,
            declared=index == 1,
        )
        first = world.fire(record, T0 + 2 * MINUTE)
        second = world.fire(record, T0 + 3 * MINUTE)
        world.run(first, (Ending.SUCCEEDED, Ending.FAILED, Ending.CANCELLED)[index], T0 + 3 * MINUTE + index % 2)
        if index:
            world.claim(second, T0 + 3 * MINUTE, OTHER.id)
    world.manual(world.job("job-0"), T0 + 4 * MINUTE)
    for index in range(8):
        world.enqueue(
            ("mail.welcome", "mail.bye")[index % 2],
            T0 + index % 3,
            due_at=T0 + (7 - index) // 3 * MINUTE,
            queue=("default", "mail")[index // 4],
            priority=index % 3,
            labels=labels[: index % 3],
            key=f"k{index}" if index % 2 else None,
        )
    world.store.set_job_state(JobFilter(names="job-2"), JobState.PAUSED, T0 + 4 * MINUTE)
    world.store.cancel_executions(ExecutionFilter(keys=["k1"]), T0 + 5 * MINUTE)


def execution_filters(rows: list[Execution]) -> list[ExecutionFilter]:
    """Each field by itself, several values, none, and some together."""
    return [
        ExecutionFilter(),
        ExecutionFilter(ids=[rows[0].id, rows[-1].id, "nobody"]),
        ExecutionFilter(ids=()),
        ExecutionFilter(job_ids=rows[0].job_id or ""),
        ExecutionFilter(jobs=["job-0", "job-2"]),
        ExecutionFilter(jobs=()),
        ExecutionFilter(tasks="mail.welcome"),
        ExecutionFilter(queues=["mail"]),
        *(ExecutionFilter(states=state) for state in State),
        ExecutionFilter(states=()),
        ExecutionFilter(states=(State.PENDING, State.RUNNING)),
        *(ExecutionFilter(causes=cause) for cause in Cause),
        ExecutionFilter(verdicts=Kind.FIRED),
        ExecutionFilter(verdicts=(Kind.PAUSED, Kind.CANCELLED)),
        ExecutionFilter(keys=["k1", "k3", "k9"]),
        ExecutionFilter(nodes=OTHER.id),
        ExecutionFilter(labels={"tenant": "acme"}),
        ExecutionFilter(labels={"tenant": None}),
        ExecutionFilter(labels={"tenant": None, "env": "test"}),
        ExecutionFilter(labels={"tenant": "acme", "env": "other"}),
        ExecutionFilter(due=(T0 + MINUTE, T0 + 3 * MINUTE)),
        ExecutionFilter(due=(None, T0 + MINUTE)),
        ExecutionFilter(due=(T0, T0)),
        ExecutionFilter(nominal=(T0 + 2 * MINUTE, None)),
        ExecutionFilter(nominal=(T0 + 2 * MINUTE, T0 + 3 * MINUTE)),
        ExecutionFilter(created=(T0 + 1, T0 + 2)),
        ExecutionFilter(finished=(None, T0 + 3 * MINUTE + 1)),
        ExecutionFilter(finished=(T0, None)),
        ExecutionFilter(states=State.SUCCEEDED, jobs="job-0", labels={}, causes=Cause.SCHEDULE),
    ]


def sort_value(row: Execution, order: Order) -> int | str | None:
    """What an order looks at."""
    match order.removeprefix("-"):
        case "due":
            return row.due_at
        case "created":
            return row.created_at
        case "finished":
            return row.finished_at
        case _:
            return row.id


def in_order(rows: list[Execution], order: Order) -> list[Execution]:
    """Rows as an order wants them: by value, those without one last, ties by id."""
    rows = sorted(rows, key=lambda row: row.id)
    absent = [row for row in rows if sort_value(row, order) is None]
    present = [row for row in rows if sort_value(row, order) is not None]
    return [*sorted(present, key=lambda row: sort_value(row, order) or 0, reverse=order.startswith("-")), *absent]


@promise("OR3", "OR9", "QU1", "QU2", "JQ17", "JQ19", "JQ21")
def every_filter_means_the_same_in_lists_counts_and_stats(world: World) -> None:
    """What `ExecutionFilter.matches` says of a row is what every store answers."""
    assert list(world.store.list_executions().items) == []
    populate(world)
    rows = list(world.store.list_executions(limit=1000).items)

    for where in execution_filters(rows):
        expected = [row for row in rows if where.matches(row)]
        assert list(world.store.list_executions(where, limit=1000).items) == expected, where
        assert world.store.count_executions(where) == len(expected), where
        stats = world.store.stats(where)
        assert set(stats) == set(State)
        for state in State:
            assert stats[state] == sum(row.state is state for row in expected), (where, state)


@promise("OR4", "JQ19")
def pages_show_each_row_once_in_every_order(world: World) -> None:
    """Ties by id ascending in both directions, rows without the value last, whatever the size of the page."""
    populate(world)
    rows = list(world.store.list_executions(limit=1000).items)

    for order in EXECUTION_ORDERS:
        expected = [row.id for row in in_order(rows, order)]
        for size in (1, 2, 7, len(rows), 1000):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = world.store.list_executions(ExecutionFilter(), order, size, cursor)
                assert len(page.items) <= size
                seen += [row.id for row in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert seen == expected, (order, size)


@promise("JQ19")
def a_page_may_be_asked_for_by_offset(world: World) -> None:
    """So many rows of the same order are passed over; beyond the end there is nothing."""
    populate(world)
    rows = list(world.store.list_executions(limit=1000).items)
    expected = [row.id for row in in_order(rows, Order.DUE_DESC)]

    for offset in (0, 3, len(rows) - 1, len(rows) + 5):
        page = world.store.list_executions(ExecutionFilter(), Order.DUE_DESC, 4, offset=offset)
        assert [row.id for row in page.items] == expected[offset : offset + 4], offset


@promise("JQ19")
def a_page_tells_how_many_there_are_where_that_is_asked_for(world: World) -> None:
    """The total is of all that match, whatever the page; without the question there is no answer."""
    populate(world)
    where = ExecutionFilter(tasks="mail.welcome")
    many = world.store.count_executions(where)

    for cursor, offset in ((None, 0), (None, 3), (None, 1000), (world.store.list_executions(where, limit=2).cursor, 0)):
        page = world.store.list_executions(where, Order.ID, 2, cursor, offset, total=True)
        assert page.total == many > 2, (cursor, offset)
    assert world.store.list_executions(where, Order.ID, 2, total=True).cursor is not None
    assert world.store.list_executions(ExecutionFilter(ids=()), total=True).total == 0
    assert world.store.list_executions(where).total is None


@promise("OR3")
def labels_tasks_and_times_are_counted_as_ora_counts_them(world: World) -> None:
    """Of three: two by a label's value, one of them of a task, three by the label, two by both, one by its time."""
    world.enqueue("a", labels=(("foo", "bar"),), due_at=T0 + 5)
    world.enqueue("b", labels=(("foo", "bar"),), due_at=T0 + MINUTE)
    world.enqueue("b", labels=(("foo", "baz"),), due_at=T0 + MINUTE)

    for where, many in (
        (ExecutionFilter(labels={"foo": "bar"}), 2),
        (ExecutionFilter(labels={"foo": "bar"}, tasks="a"), 1),
        (ExecutionFilter(labels={"foo": None}), 3),
        (ExecutionFilter(labels=[("foo", None), ("foo", "bar")]), 2),
        (ExecutionFilter(due=(T0, T0 + 10)), 1),
    ):
        assert world.store.count_executions(where) == many, where
        assert len(world.ids(where)) == many, where


@promise("OR9", "OR14")
def states_nodes_and_tasks_are_counted_as_ora_counts_them(world: World) -> None:
    """Nine of two tasks, in every state that they can come to; one that was retried counts once, by where it is now."""
    rows = [world.enqueue(task) for task in "aaaaabbbb"]
    for execution in rows[:2]:
        world.run(execution)
    world.run(rows[2], Ending.FAILED)
    world.claim(rows[3])
    again = [rows[5], rows[8]]
    for execution in again:
        world.finish(world.claim(execution), Ending.RETRY)
        world.claim(execution)
    world.claim(rows[6])

    cancelled = world.store.cancel_executions(ExecutionFilter(ids=[rows[6], rows[8]]), T0)

    def count(*states: State, **more: str) -> int:
        return world.store.count_executions(ExecutionFilter(states=states or None, **more))  # type: ignore[arg-type]

    assert [gone.execution_id for gone in cancelled] == [rows[6], rows[8]]
    assert [past.ending for past in world.store.list_attempts(rows[8])] == ["retry"]
    assert [count(state) for state in (State.PENDING, State.RUNNING, State.SUCCEEDED, State.FAILED)] == [2, 2, 2, 1]
    assert (count(State.CANCELLED), count(State.PENDING, State.FAILED), count()) == (2, 3, 9)
    assert world.store.count_executions(ExecutionFilter(states=())) == 0
    assert count(nodes=NODE.id) == 7
    assert (count(tasks="a"), count(State.PENDING, tasks="b"), count(State.SUCCEEDED, tasks="b")) == (5, 1, 0)
    jobs = [world.put(a_job(name, task=task)) for name, task in (("one", "A"), ("two", "A"), ("three", "B"))]
    world.store.set_job_state(JobFilter(ids=jobs[0].id), JobState.STOPPED, T0)
    assert world.store.count_jobs(JobFilter(tasks="A", states="active")) == 1
    assert world.store.count_jobs(JobFilter(states=("active", "stopped"))) == 3


@promise("QU2")
def each_task_has_its_completed_incomplete_and_failed_ones(world: World) -> None:
    """Six in mixed states of three tasks, with and without the task, in the order of their ids."""
    rows = [world.enqueue(task) for task in "abcabc"]
    world.run(rows[0])
    world.run(rows[1], Ending.FAILED)
    world.claim(rows[2])
    world.run(rows[3])

    assert world.ids() == rows
    assert world.ids(ExecutionFilter(states="completed")) == [rows[0], rows[3]]
    assert world.ids(ExecutionFilter(states="incomplete")) == [rows[2], rows[4], rows[5]]
    assert world.ids(ExecutionFilter(states="failed")) == [rows[1]]
    assert world.ids(ExecutionFilter(tasks="a", states="completed")) == [rows[0], rows[3]]
    assert world.ids(ExecutionFilter(tasks="b", states="incomplete")) == [rows[4]]
    assert world.ids(ExecutionFilter(tasks="c", states="failed")) == []


@promise("JQ17")
def all_of_a_correlation_are_found(world: World) -> None:
    """Group and id are labels with reserved keys; every match is given, and none for an id that nobody has."""
    labels = to_labels(None, group="orders", correlation="7")
    three = [world.enqueue(labels=labels) for _ in range(3)]
    other = world.enqueue(labels=to_labels(None, group="parcels", correlation="7"))

    assert world.ids(ExecutionFilter(group="orders", correlation="7")) == three
    assert world.ids(ExecutionFilter(correlation="7")) == [*three, other]
    assert world.ids(ExecutionFilter(correlation="8")) == []
    assert world.store.delete_executions(ExecutionFilter(group="orders"), force=True) == 3
    assert world.ids() == [other]


@promise("OR5")
def rows_that_come_while_paging_disturb_no_others(world: World) -> None:
    """What was there is shown once each, although rows come and go between the pages."""
    old = [world.enqueue(now=T0 + index) for index in range(9)]
    seen: list[str] = []
    cursor: str | None = None

    while True:
        page = world.store.list_executions(ExecutionFilter(), Order.CREATED, 2, cursor)
        seen += [row.id for row in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        world.enqueue(now=T0 - len(seen))
        world.store.delete_executions(ExecutionFilter(ids=seen[-1]), force=True)

    assert seen == old


@promise("OR6")
def a_cursor_that_no_page_had_is_refused(world: World) -> None:
    """Garbage, and a cursor of another order, raise `ValueError`, for executions and for jobs."""
    for _ in range(3):
        world.enqueue()
    world.put(a_job("one"))
    world.put(a_job("two"))
    of_due = world.store.list_executions(ExecutionFilter(), Order.DUE, 1).cursor
    of_name = world.store.list_jobs(JobFilter(), Order.NAME, 1).cursor
    assert of_due is not None
    assert of_name is not None

    for cursor in ("", "garbage", "!!!", "e30", "WzEsMl0", of_due, "\ud800", of_name[:-3]):
        with raises(ValueError):
            world.store.list_executions(ExecutionFilter(), Order.ID, 10, cursor)
        with raises(ValueError):
            world.store.list_jobs(JobFilter(), Order.ID, 10, cursor)


@promise("OR6")
def an_order_that_a_list_does_not_have_is_refused(world: World) -> None:
    """Executions have no name to be ordered by, jobs no due time."""
    with raises(ValueError):
        world.store.list_executions(ExecutionFilter(), Order.NAME)
    with raises(ValueError):
        world.store.list_jobs(JobFilter(), Order.DUE)


@promise("OR9", "OR10")
def jobs_are_filtered_ordered_and_paged_alike(world: World) -> None:
    """Every job filter as `JobFilter.matches` says it, every order of jobs, by pages."""
    populate(world)
    world.put(a_job("A", task="other.task", schedule=Every(hours=1)), T0)
    rows = list(world.store.load_jobs() or [])
    filters = [
        JobFilter(),
        JobFilter(ids=[rows[0].id, rows[2].id]),
        JobFilter(ids=()),
        JobFilter(names=["job-1", "A", "nobody"]),
        JobFilter(tasks="other.task"),
        JobFilter(states=JobState.PAUSED),
        JobFilter(states=(JobState.ACTIVE, JobState.PAUSED)),
        JobFilter(states=()),
        JobFilter(labels={"tenant": "acme"}),
        JobFilter(labels={"env": None}),
        JobFilter(created=(T0 + 1, None)),
        JobFilter(created=(None, T0 + 1)),
        JobFilter(declared=True),
        JobFilter(declared=False, states=JobState.ACTIVE),
    ]

    for where in filters:
        expected = [row for row in rows if where.matches(row)]
        assert list(world.store.list_jobs(where, Order.ID).items) == expected, where
        assert world.store.count_jobs(where) == len(expected), where
    for order in JOB_ORDERS:
        assert _paged(world, order) == [row.id for row in _jobs_in_order(rows, order)], order


def _paged(world: World, order: Order) -> list[str]:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = world.store.list_jobs(JobFilter(), order, 1, cursor)
        seen += [record.id for record in page.items]
        cursor = page.cursor
        if cursor is None:
            return seen


def _jobs_in_order(rows: list[JobRecord], order: Order) -> list[JobRecord]:
    def value(record: JobRecord) -> tuple[int, str]:
        match order.removeprefix("-"):
            case "created":
                return record.created_at, ""
            case "name":
                return 0, record.name
            case _:
                return 0, record.id

    return sorted(sorted(rows, key=lambda row: row.id), key=value, reverse=order.startswith("-"))


@promise("QU4", "JQ18")
def unknown_ids_are_absent_from_the_answer(world: World) -> None:
    """No error for what is not there, beside what is."""
    execution = world.enqueue()

    assert set(world.store.get_executions([execution, "nobody"])) == {execution}
    assert list(world.store.list_attempts("nobody")) == []
    assert list(world.store.verdicts("nobody", T0, T0 + MINUTE)) == []


@promise("OR18")
def any_text_comes_back(world: World) -> None:
    """NUL, lone surrogates, quotes, emoji, a megabyte: accepted, and readable again."""
    texts = [
        "a\0b",
        "\ud800 lone \udfff",
        "'\"; DROP TABLE executions; --",
        "\U0001f570 Zoë\r\n\t",
        "x" * 1_000_000,
        "",
    ]
    claims = [world.claim(world.enqueue()) for _ in texts]
    outcomes = [world.outcome(claim, Ending.FAILED, error=text) for claim, text in zip(claims, texts, strict=True)]

    assert len(world.store.finish(outcomes, T0).applied) == len(texts)
    world.reopen()

    for claim, text in zip(claims, texts, strict=True):
        error = world.get(claim.execution_id).error or ""
        readable = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        for word in readable.replace("\0", " ").replace("\ufffd", " ").split():
            assert word in error, (text[:20], error[:40])
        error.encode("utf-8", "surrogatepass")


@promise("OR18")
def texts_that_users_search_by_come_back_exactly(world: World) -> None:
    """Keys, labels, queues and arguments of any script, and those that look like one another."""
    for text in ("k", "K", "ключ", "%", "_", "a'b", 'a"b', "é", "e\u0301", " ", "\u00a0", "NULL", "0", "1e3"):
        execution = world.enqueue(key=text, queue=text, labels=((text, text),), args=f'{{"x":"{ord(text[0])}"}}')

        row = world.get(execution)
        assert (row.key, row.work.queue, row.work.labels) == (text, text, ((text, text),))
        assert world.ids(ExecutionFilter(keys=text)) == [execution], text
        assert world.ids(ExecutionFilter(queues=text)) == [execution], text
        assert world.ids(ExecutionFilter(labels={text: text})) == [execution], text
        assert world.ids(ExecutionFilter(labels={text: None})) == [execution], text
        started = world.store.start(NODE.id, T0, free={text: 5})
        assert [claim.execution_id for claim in started.claims] == [execution], text


@promise("OR20")
def long_lists_of_ids_are_no_limit(world: World) -> None:
    """Batches may be longer than what one statement of a database can name."""
    items = [world.new() for _ in range(2500)]
    world.store.add_executions(items, T0)
    ids = [item.id for item in items]

    assert (
        world.store.count_executions(ExecutionFilter(ids=[*ids, *(f"no-{index}" for index in range(40_000))])) == 2500
    )
    assert len(world.store.get_executions(ids)) == 2500
    assert world.ready(ignore=ids[1:]) == ids[:1]
    assert len(world.store.start(NODE.id, T0, items=ids).claims) == 2500
    assert len(world.store.running(limit=10_000)) == 2500
