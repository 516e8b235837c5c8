"""Enqueueing: order, ids, keys, guards, and what may start when."""

from __future__ import annotations

from ...model.errors import DuplicateId, DuplicateKey, JobNotFound
from ...model.execution import Cause, Ending, State
from ...model.filters import ExecutionFilter, JobFilter
from ...model.instants import MINUTE, SECOND
from ...model.job import JobState
from ...model.policies import Retry
from ...model.strategies import All
from .ground import T0, World, a_job, promise, raises


@promise("QU3", "JQ3", "OR1")
def an_enqueued_call_is_kept_with_every_field(world: World) -> None:
    """Its work, its times and its key come back after a restart; it belongs to no job."""
    item = world.new(
        "mail.welcome",
        T0 + MINUTE,
        args='{"user":7}',
        queue="mail",
        priority=-3,
        labels=(("tenant", "acme"),),
        retry=Retry(2, backoff=0.5),
        timeout=9,
        start_by=T0 + 2 * MINUTE,
        key="welcome:7",
    )
    (result,) = world.store.add_executions([item], T0)

    world.reopen()

    assert (result.id, result.created) == (item.id, True)
    row = world.get(item.id)
    assert row.work == item.work
    assert (row.cause, row.key, row.start_by) == (Cause.ENQUEUE, "welcome:7", T0 + 2 * MINUTE)
    assert (row.created_at, row.due_at, row.not_before) == (T0, T0 + MINUTE, T0 + MINUTE)
    assert (row.job_id, row.job_name, row.nominal, row.verdict, row.target) == (None, None, None, None, "")
    assert (row.state, row.attempt, row.attempt_id, row.recoveries) == (State.PENDING, 1, item.id, 0)


@promise("JQ11", "QU2")
def work_of_one_priority_starts_in_the_order_in_which_it_was_added(world: World) -> None:
    """First in, first out by attempt id, whatever the due times were."""
    late = world.enqueue(due_at=T0 - 1)
    later = world.enqueue(due_at=T0 - MINUTE)

    assert world.ready() == [late, later]


@promise("JQ8")
def what_is_not_due_yet_waits(world: World) -> None:
    """`due_at` is a real not-before time, to the microsecond."""
    execution = world.enqueue(due_at=T0 + MINUTE)

    assert world.ready(T0 + MINUTE - 1) == []
    assert world.start(execution, now=T0 + MINUTE - 1).refused == {execution: "not due yet"}
    assert world.ready(T0 + MINUTE) == [execution]


@promise("JQ27")
def a_known_id_with_the_same_call_is_its_repeat_and_with_another_a_duplicate(world: World) -> None:
    """A repeat gives the same answer and adds nothing, once it has run too."""
    item = world.new()
    world.store.add_executions([item], T0)
    world.run(item.id)

    (again,) = world.store.add_executions([item], T0)

    assert (again.id, again.created) == (item.id, True)
    assert world.state(item.id) is State.SUCCEEDED
    with raises(DuplicateId):
        world.store.add_executions([world.new("mail.other", id=item.id)], T0)
    with raises(DuplicateId):
        world.store.add_executions([world.new(key="another", id=item.id)], T0)
    same = world.new()
    assert [result.created for result in world.store.add_executions([same, same], T0)] == [True, True]
    assert world.ids() == [item.id, same.id]
    new = world.new()
    assert [result.id for result in world.store.add_executions([item, new], T0)] == [item.id, new.id]
    with raises(DuplicateId):
        world.store.add_executions([world.new(), world.new("mail.other", id=new.id)], T0)
    assert world.ids() == [item.id, same.id, new.id]


@promise("OR17")
def a_key_is_unique_among_a_tasks_unfinished_executions(world: World) -> None:
    """`keep` gives the one that is there, waiting or running; what is finished frees its key; each task has its own."""
    first = world.enqueue(key="k")

    kept = world.store.add_executions([world.new(key="k", due_at=T0 + 9)], T0)
    other = world.store.add_executions([world.new("mail.other", key="k")], T0)
    claim = world.claim(first)
    while_running = world.store.add_executions([world.new(key="k")], T0)
    world.finish(claim)
    afterwards = world.store.add_executions([world.new(key="k")], T0)

    assert [(result.id, result.created) for result in kept] == [(first, False)]
    assert world.get(first).due_at == T0
    assert other[0].created
    assert [(result.id, result.created) for result in while_running] == [(first, False)]
    assert afterwards[0].created


@promise("OR17")
def a_key_is_unique_within_one_batch_too(world: World) -> None:
    """The second of a batch finds the first."""
    items = [world.new(key="k"), world.new(key="k"), world.new(key="")]

    results = world.store.add_executions([*items, world.new(key="")], T0)

    assert [(result.id, result.created) for result in results] == [
        (items[0].id, True),
        (items[0].id, False),
        (items[2].id, True),
        (items[2].id, False),
    ]


@promise()
def a_key_may_replace_what_waits_but_not_what_has_started(world: World) -> None:
    """`replace` gives the waiting execution the new call and time, under its old id."""
    first = world.enqueue(key="k", args='{"v":1}')
    replacing = world.new(key="k", args='{"v":2}', due_at=T0 + MINUTE, start_by=T0 + MINUTE, on_conflict="replace")

    results = [world.store.add_executions([replacing], T0)[0] for _ in range(2)]

    assert [(result.id, result.created) for result in results] == [(first, False)] * 2
    row = world.get(first)
    assert (row.work.args, row.due_at, row.not_before, row.start_by) == (
        '{"v":2}',
        T0 + MINUTE,
        T0 + MINUTE,
        T0 + MINUTE,
    )
    world.claim(first, T0 + MINUTE)
    world.store.add_executions([world.new(key="k", args='{"v":3}', on_conflict="replace")], T0 + MINUTE)
    assert world.get(first).work.args == '{"v":2}'
    assert world.ids() == [first]


@promise()
def a_key_may_raise_and_then_nothing_of_the_batch_is_kept(world: World) -> None:
    """`raise` names the execution that has the key; what the batch added or replaced before is undone."""
    first = world.enqueue(key="k")
    other = world.enqueue(key="other", args='{"v":1}')
    batch = [
        world.new(),
        world.new(key="other", args='{"v":2}', on_conflict="replace"),
        world.new(key="k", on_conflict="raise"),
    ]

    with raises(DuplicateKey) as caught:
        world.store.add_executions(batch, T0)

    assert str(DuplicateKey("k", first)) == str(caught[0])

    assert world.ids() == [first, other]
    assert world.get(other).work.args == '{"v":1}'


@promise("OR15")
def add_executions_unless_adds_all_or_none(world: World) -> None:
    """An execution that matches keeps the batch out and is the answer; a repeat finds its own."""
    guard = ExecutionFilter(tasks="mail.welcome", states=(State.PENDING, State.RUNNING))
    batch = [world.new(), world.new()]

    first = world.store.add_executions(batch, T0, unless=guard)
    again = world.store.add_executions(batch, T0, unless=guard)
    other = world.store.add_executions([world.new()], T0, unless=guard)

    assert [(result.id, result.created) for result in first] == [(item.id, True) for item in batch]
    assert again == first
    assert [(result.id, result.created) for result in other] == [(item.id, False) for item in batch]


@promise("OR15")
def of_several_that_add_unless_at_the_same_moment_one_adds(world: World) -> None:
    """The others get what it has added: looking and adding are one, whoever else is at it."""
    guard = ExecutionFilter(tasks="mail.welcome")
    items = [world.new() for _ in range(8)]

    answers = world.at_once(lambda store, number: store.add_executions([items[number]], T0, unless=guard))

    added = [result.id for answer in answers for result in answer if result.created]
    assert world.ids() == added
    assert len(added) == 1
    assert {result.id for answer in answers for result in answer} == set(added)


@promise("QE15", "QE16")
def a_manual_run_belongs_to_its_job_and_leaves_its_cadence(world: World) -> None:
    """No nominal time, the job's work and generation, cursor and counts kept; a paused job runs it too."""
    record = world.put(a_job(labels={"tenant": "acme"}))
    world.store.set_job_state(JobFilter(), JobState.PAUSED, T0)

    execution = world.manual(record, T0 + SECOND)

    row = world.get(execution)
    assert (row.cause, row.job_id, row.job_name, row.nominal) == (Cause.MANUAL, record.id, "report", None)
    assert (row.work, row.generation) == (record.job.work, 1)
    assert (world.job().cursor, world.job().fired) == (T0, 0)
    world.run(execution, now=T0 + SECOND)
    assert (world.state(execution), world.verdict(execution)) == (State.SUCCEEDED, None)
    assert world.job().state is JobState.PAUSED


@promise("QE16", "QE49")
def a_manual_run_of_a_job_with_a_run_strategy_is_placed_first(world: World) -> None:
    """Where a job runs is its strategy's to say for manual runs as well."""
    record = world.put(a_job(schedule=None, run_on=All()))

    execution = world.manual(record)

    assert world.state(execution) is State.PLACING
    assert [row.id for row in world.store.unplaced(T0, 5)] == [execution]


@promise("QE8")
def a_manual_run_of_a_job_that_is_gone_is_refused(world: World) -> None:
    """The caller learns that there is no such job."""
    record = world.put()
    world.store.delete_jobs(JobFilter(), T0)

    with raises(JobNotFound):
        world.manual(record)


@promise("OR19", "JQ12")
def higher_priorities_are_ready_first(world: World) -> None:
    """Priority descending over the whole 32-bit range, ties in the order of adding."""
    priorities = [0, 2**31 - 1, -(2**31) + 1, 5, 0, 5]
    rows = [world.enqueue(priority=priority) for priority in priorities]

    assert world.ready() == [rows[index] for index in (1, 3, 5, 0, 4, 2)]


@promise("OR20")
def ready_work_is_paged_in_order_and_ignored_ids_are_left_out(world: World) -> None:
    """`after` goes on behind the last row seen; `ignore` holds in every page."""
    items = [world.new(priority=index % 3) for index in range(250)]
    world.store.add_executions(items, T0)
    expected = sorted(items, key=lambda item: (-item.work.priority, item.id))
    ignored = {item.id for item in expected[::3]}
    seen: list[str] = []
    after: tuple[int, str] | None = None

    while page := world.store.ready(T0, 33, after=after, ignore=ignored):
        assert len(page) <= 33
        seen += [row.id for row in page]
        after = (page[-1].work.priority, page[-1].attempt_id)

    assert seen == [item.id for item in expected if item.id not in ignored]


@promise("JQ9", "JQ13")
def ready_work_can_be_asked_for_by_queue(world: World) -> None:
    """Only the queues that are named, best first over all of them; none named is none."""
    slow = [world.enqueue(queue="slow", priority=1) for _ in range(3)]
    fast = world.enqueue(queue="fast")
    world.enqueue(queue="other", priority=9)

    assert world.ready(queues=["slow", "fast"], limit=4) == [*slow, fast]
    assert world.ready(queues=["fast"]) == [fast]
    assert world.ready(queues=["idle"]) == []
    assert world.ready(queues=[]) == []
    assert world.ready(limit=0) == []


@promise("JQ8")
def next_due_is_the_earliest_waiting_time_of_each_queue(world: World) -> None:
    """Strictly later than asked, without what is ignored, running or finished; empty when there is nothing."""
    assert dict(world.store.next_due(T0)) == {}
    world.enqueue(due_at=T0)
    soon = world.enqueue(due_at=T0 + 1)
    world.enqueue(due_at=T0 + 2)
    world.enqueue(due_at=T0 + 3, queue="mail")

    assert dict(world.store.next_due(T0)) == {"default": T0 + 1, "mail": T0 + 3}
    assert dict(world.store.next_due(T0 - 1)) == {"default": T0, "mail": T0 + 3}
    assert dict(world.store.next_due(T0 + 1)) == {"default": T0 + 2, "mail": T0 + 3}
    assert dict(world.store.next_due(T0, ignore=[soon])) == {"default": T0 + 2, "mail": T0 + 3}
    assert dict(world.store.next_due(T0, queues=["mail"])) == {"mail": T0 + 3}
    assert dict(world.store.next_due(T0, queues=[])) == {}
    claim = world.claim(soon, T0 + 1)
    assert dict(world.store.next_due(T0, queues=["default"])) == {"default": T0 + 2}
    world.finish(claim, Ending.SNOOZED, T0 + 1, not_before=T0 + MINUTE)
    assert dict(world.store.next_due(T0 + 2, queues=["default"])) == {"default": T0 + MINUTE}
