"""What is the memory store's own: its indexes, its bounds, and that nothing which is read can change what is stored.

What every store promises is checked by the conformance suite.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.model.errors import InvalidArgument, StoreError
from clepsydra.model.execution import (
    FINISHED,
    UNFINISHED,
    UNSTARTED,
    Cause,
    Ending,
    Execution,
    Kind,
    Outcome,
    Range,
    State,
)
from clepsydra.model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.job import Job, JobRecord, JobState
from clepsydra.model.policies import Overlap
from clepsydra.model.schedule import Every
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage import memory_queues
from clepsydra.storage.memory import MemoryStorage
from clepsydra.storage.protocol import Fire, NewExecution, NewJob, Settle

START: Instant = 1_700_000_000 * SECOND
NODE = Node("node-1", "here", START, 0)


@pytest.fixture
def ids() -> Iterator[str]:
    return (f"{number:08}" for number in range(10**8))


@pytest.fixture
def storage() -> MemoryStorage:
    return opened()


def opened(keep: int = 10_000) -> MemoryStorage:
    storage = MemoryStorage(keep=keep)
    storage.open(NODE, START)
    return storage


def put(storage: MemoryStorage, name: str, ids: Iterator[str], overlap: Overlap = Overlap.ALLOW) -> JobRecord:
    job = Job(name, "task", Every(seconds=1), overlap=overlap)
    return storage.put_jobs([NewJob(next(ids), job)], START)[0].record


def job_called(storage: MemoryStorage, name: str) -> JobRecord:
    return storage.list_jobs(JobFilter(names=name)).items[0]


def fire(storage: MemoryStorage, name: str, ids: Iterator[str], *, settled: tuple[Settle, ...] = ()) -> str:
    """Fire the job one second after its cursor, and give the execution's id."""
    record = job_called(storage, name)
    at, execution_id = record.cursor + SECOND, next(ids)
    item = Fire(record.id, record.generation, record.cursor, at, execution_id, at, at, settled)
    assert storage.fire([item], at).applied == [record.id]
    return execution_id


def start(storage: MemoryStorage, *execution_ids: str) -> None:
    assert len(storage.start(NODE.id, now(storage), items=execution_ids).claims) == len(execution_ids)


def finish(storage: MemoryStorage, *execution_ids: str) -> None:
    rows = storage.get_executions(execution_ids)
    ends = [Outcome(row.id, row.attempt_id, NODE.id, Ending.SUCCEEDED, now(storage)) for row in rows.values()]
    assert len(storage.finish(ends, now(storage)).applied) == len(execution_ids)


def run(storage: MemoryStorage, name: str, ids: Iterator[str]) -> str:
    execution_id = fire(storage, name, ids)
    start(storage, execution_id)
    finish(storage, execution_id)
    return execution_id


def now(storage: MemoryStorage) -> Instant:
    return max(record.cursor for record in storage.list_jobs(limit=1000).items)


def waiting(execution_id: str, not_before: Instant = START, priority: int = 0, queue: str = "default") -> NewExecution:
    return NewExecution(execution_id, Work("task", queue=queue, priority=priority), Cause.ENQUEUE, not_before)


# ---- Nobody's hand in the store


def test_changing_what_was_read_changes_nothing(storage: MemoryStorage, ids: Iterator[str]) -> None:
    put(storage, "job", ids)
    execution_id = fire(storage, "job", ids)

    storage.get_executions([execution_id])[execution_id].state = State.FAILED
    storage.list_executions().items[0].attempt = 9
    storage.ready(now(storage), 9)[0].not_before = 0
    job_called(storage, "job").cursor = 0
    for record in storage.load_jobs() or ():
        record.state = JobState.STOPPED

    assert storage.get_executions([execution_id])[execution_id].state is State.PENDING
    assert storage.list_executions().items[0].attempt == 1
    assert storage.ready(now(storage), 9)[0].not_before == START + SECOND
    assert job_called(storage, "job").cursor == START + SECOND
    assert job_called(storage, "job").state is JobState.ACTIVE


def test_an_answer_does_not_change_with_the_store(storage: MemoryStorage, ids: Iterator[str]) -> None:
    added = put(storage, "job", ids)
    seen = storage.get_executions([execution_id := fire(storage, "job", ids)])[execution_id]
    paused = storage.set_job_state(EVERY_JOB, JobState.PAUSED, now(storage))[0].record
    storage.set_job_state(EVERY_JOB, JobState.ACTIVE, now(storage))

    assert (added.state, added.cursor) == (JobState.ACTIVE, START)
    assert (paused.state, paused.cursor) == (JobState.PAUSED, START + SECOND)
    assert seen.state is State.PENDING


def test_a_refused_fire_tells_of_a_job_that_does_not_change_with_the_store(
    storage: MemoryStorage, ids: Iterator[str]
) -> None:
    record = put(storage, "job", ids)
    fire(storage, "job", ids)
    stale = Fire(record.id, record.generation, record.cursor, START + 9 * SECOND, next(ids), START + 9 * SECOND)

    refused = storage.fire([stale], START + 9 * SECOND).refused[record.id].record
    fire(storage, "job", ids)

    assert refused is not None
    assert refused.cursor == START + SECOND


# ---- Opening again


def test_what_was_stored_is_there_after_closing_and_opening(storage: MemoryStorage, ids: Iterator[str]) -> None:
    put(storage, "job", ids)
    execution_id = fire(storage, "job", ids)

    storage.close()
    storage.close()
    storage.open(Node("node-2", "here", START, 0), START)

    assert [record.name for record in storage.load_jobs() or ()] == ["job"]
    assert execution_id in storage.get_executions([execution_id])
    assert [node.id for node in storage.nodes()] == ["node-2"]


def test_a_node_that_was_not_closed_stays_until_it_is_rescued(storage: MemoryStorage, ids: Iterator[str]) -> None:
    put(storage, "job", ids)
    execution_id = fire(storage, "job", ids)
    start(storage, execution_id)

    storage.open(Node("node-2", "here", START, 0), START)
    registered = [node.id for node in storage.nodes()]
    rescued = storage.rescue([NODE.id], now(storage), lambda: next(ids))

    assert registered == ["node-1", "node-2"]
    assert rescued.retried == 1
    assert [node.id for node in storage.nodes()] == ["node-2"]


def test_opening_what_is_open_keeps_its_heartbeat(storage: MemoryStorage) -> None:
    storage.heartbeat_node(NODE.id, START)

    storage.open(NODE, START)

    assert [node.beat for node in storage.nodes()] == [1]


def test_transactions_nest(storage: MemoryStorage) -> None:
    with pytest.raises(ZeroDivisionError), storage.transaction(), storage.transaction():
        raise ZeroDivisionError

    with storage.transaction(), storage.reading(), storage.transaction(), storage.reading():
        storage.add_executions([waiting("a")], START)

    assert storage.count_executions() == 1


# ---- Bounds


def test_the_newest_finished_executions_are_kept(ids: Iterator[str]) -> None:
    storage = opened(keep=3)
    put(storage, "job", ids)

    done = [run(storage, "job", ids) for _ in range(10)]

    assert [row.id for row in storage.list_executions().items] == done[-3:]


def test_a_tenth_more_is_tolerated_so_that_dropping_pays(ids: Iterator[str]) -> None:
    storage = opened(keep=20)
    put(storage, "job", ids)

    counts: list[int] = []
    for _ in range(30):
        run(storage, "job", ids)
        counts.append(storage.count_executions())

    assert counts == [*range(1, 23), 20, 21, 22, 20, 21, 22, 20, 21]


def test_nothing_finished_is_kept_where_nothing_is_to_be_kept(ids: Iterator[str]) -> None:
    storage = opened(keep=0)
    put(storage, "job", ids)

    for _ in range(3):
        run(storage, "job", ids)

    assert storage.count_executions() == 0
    assert storage.verdicts("job", START, START + 9 * SECOND)[0].horizon == START + 3 * SECOND + 1


@pytest.mark.parametrize("keep", [-1, 1.5, "many"])
def test_what_is_no_count_cannot_be_kept(keep: Any) -> None:
    with pytest.raises(InvalidArgument, match="keep="):
        MemoryStorage(keep=keep)


def test_what_is_dropped_moves_the_horizon_of_its_job_only(ids: Iterator[str]) -> None:
    storage = opened(keep=2)
    put(storage, "busy", ids)
    put(storage, "idle", ids)

    for _ in range(5):
        run(storage, "busy", ids)

    (page,) = storage.verdicts("busy", START, START + 60 * SECOND)
    assert page.horizon == START + 3 * SECOND + 1
    assert [mark.nominal for mark in page.marks] == [START + 4 * SECOND, START + 5 * SECOND]
    assert job_called(storage, "idle").horizon == START


def test_the_unfinished_are_never_dropped(ids: Iterator[str]) -> None:
    storage = opened(keep=2)
    put(storage, "job", ids)
    unfinished = [fire(storage, "job", ids) for _ in range(20)]
    start(storage, *unfinished[:10])

    assert storage.stats()[State.RUNNING] == 10
    assert storage.stats()[State.PENDING] == 10


def test_the_unfinished_keeps_back_what_finished_after_it(ids: Iterator[str]) -> None:
    storage = opened(keep=2)
    put(storage, "job", ids)
    stuck = fire(storage, "job", ids)
    for _ in range(6):
        run(storage, "job", ids)
    kept_back, horizon = storage.count_executions(), job_called(storage, "job").horizon

    start(storage, stuck)
    finish(storage, stuck)
    run(storage, "job", ids)

    assert (kept_back, horizon) == (7, START)
    assert storage.count_executions() == 2
    assert job_called(storage, "job").horizon == START + 7 * SECOND + 1


def test_what_was_cancelled_and_still_runs_is_not_dropped(ids: Iterator[str]) -> None:
    storage = opened(keep=0)
    put(storage, "job", ids)
    execution_id = fire(storage, "job", ids)
    start(storage, execution_id)

    storage.cancel_executions(EVERY_EXECUTION, now(storage))
    while_it_runs = storage.count_executions()
    finish_of = Outcome(execution_id, execution_id, NODE.id, Ending.CANCELLED, now(storage))
    storage.finish([finish_of], now(storage))

    assert (while_it_runs, storage.count_executions()) == (1, 0)


def test_a_retried_execution_counts_as_finished_again_when_it_is(ids: Iterator[str]) -> None:
    storage = opened(keep=3)
    storage.add_executions([waiting(row_id) for row_id in "abcd"], START)
    storage.cancel_executions(ExecutionFilter(ids=["a", "b", "c"]), START)

    storage.retry_executions(ExecutionFilter(ids=["a"]), START, lambda: next(ids))
    storage.cancel_executions(ExecutionFilter(ids=["d"]), START)
    storage.cancel_executions(ExecutionFilter(ids=["a"]), START)

    assert {row.id for row in storage.list_executions().items} == {"c", "d", "a"}


def test_ranges_are_bounded_and_move_the_horizon(ids: Iterator[str]) -> None:
    storage = opened(keep=3)
    record = put(storage, "job", ids)
    spans = [Range(record.id, Kind.MISSED, START + at, START + at + 1, 1) for at in range(8)]

    for span in spans:
        with storage.transaction():
            storage.insert_ranges([span])

    (page,) = storage.verdicts("job", START, START + SECOND)
    assert page.ranges == spans[-3:]
    assert page.horizon == spans[-3].start


def test_ranges_after_an_unfinished_execution_are_kept_back(ids: Iterator[str]) -> None:
    storage = opened(keep=2)
    record = put(storage, "job", ids)
    fire(storage, "job", ids)
    late = START + 10 * SECOND

    for at in range(8):
        with storage.transaction():
            storage.insert_ranges([Range(record.id, Kind.MISSED, late + at, late + at + 1, 1)])

    (page,) = storage.verdicts("job", START, late + SECOND)
    assert (len(page.ranges), page.horizon) == (8, START)


def test_ranges_go_with_the_epoch_that_names_their_times(ids: Iterator[str]) -> None:
    storage = opened(keep=1)
    for minutes in range(1, 3):
        job = Job("job", "task", Every(minutes=minutes))
        storage.put_jobs([NewJob(next(ids), job)], START + minutes * 60 * SECOND)
    record = storage.put_jobs([NewJob(next(ids), Job("job", "task", Every(minutes=9)))], START + 200 * SECOND)[0].record

    (page,) = storage.verdicts("job", START, record.cursor + SECOND)
    assert page.horizon > START + 120 * SECOND
    assert all(span.end > page.horizon for span in page.ranges)


def test_history_of_which_something_is_left_to_read_is_not_forgotten(ids: Iterator[str]) -> None:
    storage = opened()
    put(storage, "job", ids)
    done, late = run(storage, "job", ids), START + 60 * SECOND
    storage.put_jobs([NewJob(next(ids), Job("job", "task", Every(minutes=5)))], START + SECOND)
    with storage.transaction():
        early = storage.forget_removed(late, 9)
    storage.delete_executions(ExecutionFilter(ids=done))
    with storage.transaction():
        while_a_range_is_left = storage.forget_removed(late, 9)
        storage.delete_ranges(late, 9)
        at_last = storage.forget_removed(late, 9)

    assert (early, while_a_range_is_left, at_last) == (0, 0, 1)


def test_a_removed_job_is_remembered_while_something_is_left_to_read(ids: Iterator[str]) -> None:
    storage = opened()
    put(storage, "job", ids)
    done, late = run(storage, "job", ids), START + 60 * SECOND
    storage.delete_jobs(EVERY_JOB, START + 9 * SECOND)
    with storage.transaction():
        early = storage.forget_removed(late, 9)
    storage.delete_executions(ExecutionFilter(ids=done))
    with storage.transaction():
        while_a_range_is_left = storage.forget_removed(late, 9)
        storage.delete_ranges(late, 9)
        too_soon, at_last = storage.forget_removed(START, 9), storage.forget_removed(late, 9)

    assert (early, while_a_range_is_left, too_soon, at_last) == (0, 0, 0, 1)
    assert storage.verdicts("job", START, late) == []


def test_epochs_of_what_is_unfinished_are_kept_back(ids: Iterator[str]) -> None:
    storage = opened(keep=1)
    put(storage, "job", ids)
    running = fire(storage, "job", ids)
    start(storage, running)

    for minutes in range(1, 8):
        job = Job("job", "task", Every(minutes=minutes))
        storage.put_jobs([NewJob(next(ids), job)], START + 9 * SECOND)

    (page,) = storage.verdicts("job", START, START + 60 * SECOND)
    assert len(page.epochs) == 8
    assert page.horizon == START


def test_past_epochs_are_bounded_and_move_the_horizon(ids: Iterator[str]) -> None:
    storage = opened(keep=3)
    for minutes in range(1, 8):
        job = Job("job", "task", Every(minutes=minutes))
        storage.put_jobs([NewJob(next(ids), job)], START + minutes * SECOND)

    (page,) = storage.verdicts("job", START, START + SECOND)
    assert [epoch.generation for epoch in page.epochs] == [4, 5, 6, 7]
    assert page.horizon == START + 4 * SECOND + 1


def test_removed_jobs_are_remembered_within_the_bound(ids: Iterator[str]) -> None:
    storage = opened(keep=3)
    for _ in range(8):
        put(storage, "job", ids)
        storage.delete_jobs(EVERY_JOB, START)
    revision = storage.changes(-1).revision

    assert len(storage.verdicts("job", START, START + SECOND)) == 3
    assert not storage.changes(0).complete
    assert len(storage.changes(0).removed) == 3
    assert storage.changes(revision).complete


def test_a_purge_makes_every_reader_load_anew(storage: MemoryStorage, ids: Iterator[str]) -> None:
    put(storage, "job", ids)
    before = storage.changes(-1).revision

    storage.purge()

    assert storage.load_jobs() is None
    assert not storage.changes(before).complete


def test_nothing_is_left_of_jobs_whose_executions_are_gone(ids: Iterator[str]) -> None:
    storage = opened(keep=0)
    for number in range(5):
        put(storage, f"job {number}", ids)
        run(storage, f"job {number}", ids)
        storage.delete_jobs(EVERY_JOB, START)
    storage.delete_history(START + SECOND, 100)

    assert storage.delete_history(START + SECOND, 100).total == 0
    assert storage.verdicts("job 1", START, START + SECOND) == []


def test_the_waiting_lines_do_not_grow_with_what_has_started(storage: MemoryStorage) -> None:
    for batch in range(100):
        later = START + batch * SECOND
        ids = [f"{batch:03}-{number:03}" for number in range(100)]
        storage.add_executions([waiting(row_id, later) for row_id in ids], START)
        storage.start(NODE.id, later, items=ids)

    assert storage.ready(START + 100 * SECOND, 5) == []
    assert storage._waiting.size < 2_000  # pyright: ignore[reportPrivateUsage]


# ---- The waiting lines


def test_what_waits_for_later_keeps_its_time_when_much_else_goes(storage: MemoryStorage) -> None:
    ids = [f"{number:04}" for number in range(3_000)]
    random.Random(7).shuffle(ids)
    storage.add_executions([waiting(row_id, START + int(row_id)) for row_id in ids], START - SECOND)
    left = {row_id for row_id in ids if row_id.endswith("00")}

    storage.cancel_executions(ExecutionFilter(ids=set(ids) - left), START)
    storage.add_executions([waiting("more", START + 9_999)], START - SECOND)

    assert storage._waiting.size == 31  # pyright: ignore[reportPrivateUsage]
    for number in range(0, 2_900, 100):
        assert storage.next_due(START + number) == {"default": START + number + 100}
        assert len(storage.ready(START + number, 99)) == number // 100 + 1


def test_a_clock_set_back_hides_what_had_come_due_until_it_comes_due_again(storage: MemoryStorage) -> None:
    storage.add_executions([waiting("a", START), waiting("b", START + 5), waiting("c", START + 9)], START)
    before = [row.id for row in storage.ready(START + 5, 9)]

    after_the_step = [row.id for row in storage.ready(START + 1, 9)]

    assert before == ["a", "b"]
    assert after_the_step == ["a"]
    assert storage.next_due(START + 1) == {"default": START + 5}
    assert storage.next_due(START + 1, ignore=["b"]) == {"default": START + 9}
    assert storage.next_due(START + 5) == {"default": START + 9}


def test_what_is_put_before_its_place_in_the_line_starts_in_its_place(storage: MemoryStorage) -> None:
    storage.add_executions([waiting("c"), waiting("d", priority=1)], START)
    storage.start(NODE.id, START, free={"default": 1})
    storage.add_executions([waiting("b"), waiting("e", priority=1), waiting("a", START + 1)], START)

    assert [row.id for row in storage.ready(START, 9)] == ["e", "b", "c"]
    assert [row.id for row in storage.ready(START + 1, 9)] == ["e", "a", "b", "c"]


def test_many_that_come_due_at_once_are_in_order(storage: MemoryStorage) -> None:
    ids = [f"{number:05}" for number in range(3_000)]
    for row_id in random.Random(5).sample(ids, len(ids)):
        storage.add_executions([waiting(row_id, START + 1 + int(row_id) % 7, queue=f"q{int(row_id) % 3}")], START)

    assert storage.ready(START, 9) == []
    assert [row.id for row in storage.ready(START + 9, 5_000)] == ids
    assert [row.id for row in storage.ready(START + 9, 5_000, queues=["q1"])] == ids[1::3]
    assert [row.id for row in storage.ready(START + 9, 2, after=(0, ids[40]))] == ids[41:43]


def test_executions_of_one_nominal_time_need_different_targets(storage: MemoryStorage, ids: Iterator[str]) -> None:
    record = put(storage, "job", ids)
    row = storage.get_executions([execution_id := fire(storage, "job", ids)])[execution_id]
    first, second = (evolve(row, id=row_id, attempt_id=row_id, target=row_id) for row_id in ("x", "y"))
    again = evolve(row, id="z", attempt_id="z", target="x")

    with pytest.raises(StoreError, match="nominal time and target"):
        storage.insert_executions([first, second, again])
    none_was_inserted = storage.count_executions() == 1
    storage.insert_executions([second, first])

    assert none_was_inserted
    (page,) = storage.verdicts("job", START, START + 9 * SECOND)
    assert [mark.execution_id for mark in page.marks] == [execution_id, "x", "y"]
    assert storage.unfinished_of_jobs([record.id])[record.id] == [row, first, second]


# ---- Every index agrees with the rows


STATES = list(State)


@given(st.integers(0, 2**32))
def test_every_index_agrees_with_the_rows_whatever_is_changed(seed: int) -> None:
    draw, storage = random.Random(seed), MemoryStorage(keep=10**6)
    with patch.object(memory_queues, "_FEW", draw.choice((0, 3, 1024))):
        for step in range(60):
            about_now = step // 3
            change_something(draw, storage, about_now)
            agrees(storage, draw, about_now + draw.randint(-3, 3))


def change_something(draw: random.Random, storage: MemoryStorage, about_now: Instant) -> None:
    ids = [row.id for row in storage.list_executions(limit=10**6).items]
    action = draw.choice(("insert", "insert", "update", "update", "update", "delete")) if ids else "insert"
    if action == "insert":
        first = int(ids[-1]) + 1 if ids else 0
        storage.insert_executions([drawn(draw, first + number, about_now) for number in range(draw.randint(1, 3))])
    elif action == "update":
        rows = storage.executions_by_id(draw.sample(ids, min(len(ids), 3)), lock=draw.random() < 0.5)
        for row in rows.values():
            change(draw, row, about_now)
        storage.update_executions(list(rows.values()))
    else:
        storage.delete_execution_rows(draw.sample(ids, min(len(ids), 2)))


def drawn(draw: random.Random, number: int, about_now: Instant) -> Execution:
    row_id, job_id = f"{number:04}", draw.choice((None, "j1", "j2"))
    row = Execution(
        row_id, Work("task"), Cause.SCHEDULE, about_now, about_now, about_now, row_id, job_id=job_id, job_name=job_id
    )
    row.nominal = number if job_id and draw.random() < 0.8 else None
    change(draw, row, about_now)
    return row


def change(draw: random.Random, row: Execution, about_now: Instant) -> None:
    row.state = draw.choice(STATES)
    row.occupies = row.state is State.RUNNING or (row.state is State.CANCELLED and draw.random() < 0.5)
    row.not_before = about_now + draw.randint(-3, 8)
    row.attempt_id = row.id if draw.random() < 0.5 else f"{row.id}-{draw.randint(0, 9)}"
    row.work = Work(draw.choice(("task", "other")), queue=draw.choice("qr"), priority=draw.randint(-1, 1))
    row.target, row.node = draw.choice(("", "n1", "n2")), draw.choice((None, "n1", "n2"))
    row.key = f"key of {row.id}" if draw.random() < 0.3 else None
    row.finished_at = about_now + draw.randint(-3, 0) if row.state in FINISHED else None
    row.cancel_revision = draw.randint(0, 3)


def agrees(storage: MemoryStorage, draw: random.Random, moment: Instant) -> None:
    rows, _ = storage.select_executions(EVERY_EXECUTION, Order.ID, None, None)
    node, queue = draw.choice(("n1", "n2")), draw.choice("qr")
    ignore = {row.id for row in rows if draw.random() < 0.2}

    best_first = sorted(
        (row for row in rows if row.state is State.PENDING and row.not_before <= moment),
        key=lambda row: (-row.work.priority, row.attempt_id),
    )
    assert storage.ready_rows(moment, None, 10**6) == best_first
    mine = [row for row in best_first if row.work.queue == queue and row.target in ("", node) and row.id not in ignore]
    assert storage.ready_rows(moment, {queue: 2}, 0, node_id=node, ignore=ignore) == mine[:2]
    tasks = [row for row in best_first if row.work.task == "task"]
    assert storage.ready_rows(moment, None, 3, tasks={"task"}) == tasks[:3]
    if best_first:
        place = draw.randrange(len(best_first))
        after = best_first[place].work.priority, best_first[place].attempt_id
        assert storage.ready_rows(moment, None, 10**6, after=after) == best_first[place + 1 :]

    due = [row for row in rows if row.state is State.PENDING and row.not_before > moment and row.id not in ignore]
    assert storage.next_due_rows(moment, None, ignore) == {
        name: min(row.not_before for row in due if row.work.queue == name) for name in {row.work.queue for row in due}
    }

    runs = [row for row in rows if row.state is State.RUNNING or (row.state is State.CANCELLED and row.occupies)]
    runs.sort(key=lambda row: row.attempt_id)
    assert storage.running_rows(None, None, None) == runs
    assert storage.running_rows([node], 2, None) == [row for row in runs if row.node == node][:2]
    assert sorted(storage.cancelled_since(1)) == sorted(
        (row.id, row.attempt_id) for row in runs if row.occupies and row.cancel_revision > 1
    )
    orphans = [row for row in rows if row.target not in ("", node) and row.state in UNSTARTED]
    assert storage.targeted_rows([node]) == orphans
    placing = [row for row in rows if row.state is State.PLACING and row.not_before <= moment]
    assert storage.unplaced_rows(moment, 2) == placing[:2]

    for job_id in ("j1", "j2"):
        unfinished = [row for row in rows if row.job_id == job_id and (row.state in UNFINISHED or row.occupies)]
        assert storage.unfinished_of_jobs([job_id]).get(job_id, []) == unfinished
        marks = [row for row in rows if row.job_id == job_id and row.nominal is not None and 10 <= row.nominal < 60]
        assert [mark.execution_id for mark in storage.list_marks([job_id], 10, 60)] == [row.id for row in marks]
    keyed = {(row.work.task, row.key): row for row in rows if row.key is not None and row.state in UNFINISHED}
    pairs = {(row.work.task, row.key) for row in rows if row.key is not None}
    assert storage.unfinished_with_keys(pairs) == keyed
    assert storage.count_by_state(EVERY_EXECUTION) == Counter(row.state for row in rows)

    expired = [
        (row.id, row.job_id, row.nominal)
        for row in sorted(rows, key=lambda row: (row.finished_at is not None and row.finished_at, row.id))
        if row.finished and not row.occupies and row.finished_at is not None and row.finished_at < moment
        if not any(holds_back(other, row) for other in rows)
    ]
    assert storage.expired_executions(moment, 10**6) == expired


def holds_back(other: Execution, row: Execution) -> bool:
    of_one_job = row.job_id is not None and other.job_id == row.job_id and other.state in UNFINISHED
    return of_one_job and other.nominal is not None and row.nominal is not None and other.nominal <= row.nominal


def test_it_says_what_it_is() -> None:
    assert repr(MemoryStorage(keep=5)) == "MemoryStorage(keep=5)"


def test_a_row_that_is_put_aside_while_others_are_taken_is_not_lost() -> None:
    store = MemoryStorage()

    def put_aside() -> None:
        for index in range(20_000):
            store.quarantine("jobs", str(index), "damaged")

    threads = [threading.Thread(target=put_aside) for _ in range(2)]
    taken = 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += len(store.take_quarantined())
    taken += len(store.take_quarantined())

    assert taken == 40_000
