"""Opening, nodes, changes, transactions: what concerns the store as a whole."""

from __future__ import annotations

from ...model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter
from ...model.instants import MINUTE
from ...model.job import JobState
from ..protocol import TaskRow
from .ground import NODE, OTHER, T0, World, a_job, promise, raises


@promise("QU7", "JQ23")
def opening_and_closing_twice_is_no_error_and_keeps_the_data(world: World) -> None:
    """`open` and `close` are idempotent, and what was stored is there after both."""
    world.put()
    execution = world.enqueue()

    world.store.open(NODE, T0)
    world.store.close()
    world.store.close()
    world.store = world.make.again(world.store)
    world.store.open(NODE, T0)
    world.store.open(NODE, T0)

    assert world.job().name == "report"
    assert world.ids() == [execution]


@promise("OR44")
def empty_batches_change_nothing(world: World) -> None:
    """Every batch method takes an empty batch as a no-op."""
    before = world.store.changes(-1).revision

    assert list(world.store.put_jobs([], T0)) == []
    assert world.store.fire([], T0).applied == []
    assert list(world.store.add_executions([], T0)) == []
    assert world.store.place([], T0).executions == []
    assert world.store.start(NODE.id, T0).claims == []
    assert world.store.heartbeat(NODE.id, [], T0) == {}
    assert world.store.finish([], T0).applied == set()
    assert world.store.get_executions([]) == {}
    world.store.put_tasks([])

    assert world.store.changes(-1).revision == before
    assert world.store.load_jobs() is None


@promise("OR10")
def an_empty_collection_in_a_filter_means_nothing_and_none_means_any(world: World) -> None:
    """`None` matches everything, an empty collection nothing: for lists, counts, cancelling, stopping and removing."""
    world.put()
    world.enqueue()
    no_job, nothing = JobFilter(ids=()), ExecutionFilter(ids=())

    assert world.store.count_executions(nothing) == 0
    assert list(world.store.list_executions(nothing).items) == []
    assert list(world.store.cancel_executions(nothing, T0)) == []
    assert list(world.store.cancel_executions(ExecutionFilter(states=()), T0)) == []
    assert world.store.delete_executions(nothing, force=True) == 0
    assert list(world.store.retry_executions(nothing, T0, world.id)) == []
    assert sum(world.store.stats(nothing).values()) == 0
    assert world.store.count_jobs(no_job) == 0
    assert list(world.store.list_jobs(no_job).items) == []
    assert list(world.store.set_job_state(no_job, JobState.STOPPED, T0)) == []
    assert list(world.store.delete_jobs(no_job, T0)) == []
    assert world.store.count_executions(EVERY_EXECUTION) == 1
    assert world.store.count_jobs(EVERY_JOB) == 1


@promise()
def a_node_is_registered_while_it_is_open_and_its_beat_counts_up(world: World) -> None:
    """An observer sees each node, and that its heartbeat changes."""
    (node,) = world.store.nodes()
    assert (node.id, node.name) == (NODE.id, NODE.name)

    first = {node.id: node.beat for node in world.store.heartbeat_node(NODE.id, T0)}
    second = {node.id: node.beat for node in world.store.heartbeat_node(NODE.id, T0 + MINUTE)}

    assert second[NODE.id] > first[NODE.id] > node.beat


@promise()
def a_node_that_was_forgotten_by_mistake_registers_again_with_its_heartbeat(world: World) -> None:
    """A live node that others took for dead is back with its next sign of life."""
    world.store.rescue([NODE.id], T0, world.id)
    assert [node.id for node in world.store.nodes()] == []

    world.store.heartbeat_node(NODE.id, T0)

    assert [node.id for node in world.store.nodes()] == [NODE.id]


@promise()
def a_heartbeat_of_a_node_that_nobody_knows_registers_nothing(world: World) -> None:
    """Only the node that opened the store speaks for itself."""
    world.store.heartbeat_node(OTHER.id, T0)

    assert [node.id for node in world.store.nodes()] == [NODE.id]


@promise()
def changes_tell_jobs_put_changed_and_removed_since_a_revision(world: World) -> None:
    """A reader that polls with the last revision it has seen misses nothing and sees nothing twice."""
    start = world.store.changes(-1).revision
    kept, removed = world.put(a_job("kept")), world.put(a_job("removed"))

    first = world.store.changes(start)
    world.store.set_job_state(JobFilter(names="kept"), JobState.PAUSED, T0)
    world.store.delete_jobs(JobFilter(names="removed"), T0)
    second = world.store.changes(first.revision)

    assert {record.name for record in first.jobs} == {"kept", "removed"}
    assert [(record.id, record.state) for record in second.jobs] == [(kept.id, JobState.PAUSED)]
    assert list(second.removed) == [(removed.id, "removed")]
    assert first.complete
    assert second.complete
    third = world.store.changes(second.revision)
    assert (list(third.jobs), list(third.removed), third.revision) == ([], [], second.revision)


@promise()
def changes_tell_which_running_attempts_were_asked_to_stop(world: World) -> None:
    """A cancel request reaches the node that runs it, and is over when the task has stopped."""
    claim = world.claim(world.enqueue())
    before = world.store.changes(-1).revision

    world.store.cancel_executions(ExecutionFilter(ids=claim.execution_id), T0)

    assert list(world.store.changes(before).cancelled) == [(claim.execution_id, claim.attempt_id)]
    world.finish(claim)
    assert list(world.store.changes(before).cancelled) == []


@promise()
def after_a_purge_changes_are_not_complete_or_name_what_is_gone(world: World) -> None:
    """A reader never goes on with jobs that were purged."""
    record = world.put()
    before = world.store.changes(-1).revision

    world.store.purge()

    changes = world.store.changes(before)
    assert changes.revision > before
    assert not changes.complete or (record.id, record.name) in changes.removed


@promise()
def a_call_that_raises_has_changed_nothing(world: World) -> None:
    """Each call is atomic: a batch with a bad item leaves nothing of the others."""
    record = world.put()
    known = world.enqueue()
    bad = [world.new("mail.other"), world.new("mail.changed", id=known)]

    with raises(ValueError):
        world.store.add_executions(bad, T0)
    with raises(LookupError):
        world.store.add_executions([world.new(), world.new(job_id="nobody", job_name="nobody")], T0)

    assert world.ids() == [known]
    assert world.job().cursor == record.cursor


@promise()
def a_transaction_that_raises_has_changed_nothing(world: World) -> None:
    """Calls made in one `transaction` block are undone together, where the store may block (its lane relies on it).

    A store that does not block is called directly, one call after the other, and may keep those that were made.
    """
    if not world.store.blocking:
        return
    world.put(a_job("first"))

    with raises(KeyError), world.store.transaction():
        world.put(a_job("second"))
        world.enqueue()
        world.store.set_last_execution_date(T0)
        raise KeyError("second")

    assert world.store.count_jobs() == 1
    assert world.ids() == []
    assert world.store.last_execution_date() is None
    world.put(a_job("third"))
    assert world.store.count_jobs() == 2


@promise()
def calls_in_one_transaction_see_each_other_and_are_kept(world: World) -> None:
    """A flush of several calls is one commit."""
    with world.store.transaction():
        record = world.put()
        execution = world.fire(record, T0 + MINUTE)
        claim = world.claim(execution, T0 + MINUTE)
        world.finish(claim)

    assert world.state(execution).value == "succeeded"


@promise()
def what_is_handed_out_or_in_is_a_copy(world: World) -> None:
    """Changing an answer changes nothing in the store, nor does changing what was given to it."""
    world.put()
    execution = world.enqueue()

    world.job().cursor = 0
    world.get(execution).attempt = 77
    world.store.ready(T0, 1)[0].attempt = 77
    (world.store.load_jobs() or [])[0].generation = 77

    assert world.job().cursor == T0
    assert world.job().generation == 1
    assert world.get(execution).attempt == 1


@promise()
def tasks_are_put_by_name_and_listed_in_order(world: World) -> None:
    """A task put again replaces the one of its name; every field comes back."""
    old = TaskRow("mail.welcome", ("hello",), "Says hello.", '{"type":"object"}', None)
    new = TaskRow("mail.welcome", ("hello", "greet"), "Greets.", None, '{"type":"null"}')
    world.store.put_tasks([old, TaskRow("a.b_1")])

    world.store.put_tasks([new])
    world.reopen()

    listed = world.store.list_tasks()
    assert [task.name for task in listed] == ["a.b_1", "mail.welcome"]
    assert (tuple(listed[1].aliases), listed[1].description) == (("hello", "greet"), "Greets.")
    assert (listed[1].input_schema, listed[1].output_schema) == (None, '{"type":"null"}')


@promise()
def nothing_is_quarantined_in_a_store_that_is_whole(world: World) -> None:
    """`take_quarantined` gives rows that could not be understood, once."""
    world.put()
    world.enqueue()
    world.store.load_jobs()

    assert list(world.store.take_quarantined()) == []
