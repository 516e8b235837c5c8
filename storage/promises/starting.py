"""Starting: the only claim, once per attempt, by one node, and only what still ought to start."""

from __future__ import annotations

from ...model.execution import Ending, Kind, State
from ...model.filters import ExecutionFilter, JobFilter
from ...model.instants import MINUTE, SECOND
from ...model.job import JobState
from ...model.policies import Misfire
from ..protocol import Claim, TaskRoom
from .ground import NODE, OTHER, T0, World, a_job, promise


@promise("JQ4", "OR1", "QU14")
def a_start_gives_all_that_is_needed_to_run(world: World) -> None:
    """The claim carries the work and its circumstances; the row says who runs it since when, and the time has fired."""
    record = world.put(a_job(args={"v": 1}))
    execution = world.fire(record, T0 + MINUTE, due_at=T0 + MINUTE + 5)

    answer = world.start(execution, now=T0 + 2 * MINUTE)

    row = world.get(execution)
    assert answer.claims == [
        Claim(
            *(execution, execution, 1, record.job.work, row.cause, T0 + MINUTE, T0 + MINUTE + 5),
            *(record.id, "report", T0 + MINUTE),
        )
    ]
    assert (row.state, row.node, row.started_at, row.first_started_at) == (
        *(State.RUNNING, NODE.id, T0 + 2 * MINUTE, T0 + 2 * MINUTE),
    )
    assert (row.verdict, row.occupies) == (Kind.FIRED, True)
    assert world.ready(T0 + 2 * MINUTE) == []
    world.check_law_1()


@promise("OR12", "JQ14", "QU23")
def one_node_starts_an_attempt_and_starting_again_gives_it_the_same_claim(world: World) -> None:
    """Compare and set: the winner may ask again when its answer was lost; every other node is refused."""
    execution = world.enqueue()
    first = world.claim(execution)

    again = world.start(execution, now=T0 + MINUTE)
    other = world.start(execution, now=T0 + MINUTE, node=OTHER.id)

    assert again.claims == [first]
    assert world.get(execution).started_at == T0
    assert (other.claims, other.refused) == ([], {execution: "running"})


@promise("JQ14", "OR12")
def of_several_nodes_that_start_the_same_at_the_same_moment_one_does(world: World) -> None:
    """Whether they name it or take what is best: each execution is one node's."""
    named, chosen = world.enqueue(queue="named"), world.enqueue()

    answers = world.at_once(lambda store, number: store.start(f"node-{number}", T0, items=[named], free={"default": 1}))

    winners = {claim.execution_id: f"node-{number}" for number, answer in enumerate(answers) for claim in answer.claims}
    assert sum(len(answer.claims) for answer in answers) == 2
    assert set(winners) == {named, chosen}
    for number, answer in enumerate(answers):
        assert (named in answer.refused) == (winners[named] != f"node-{number}")


@promise("OR11", "OR1")
def what_is_not_waiting_is_refused_with_its_state(world: World) -> None:
    """Cancelled, finished, unknown: each with its reason, and the others of the call start."""
    cancelled, finished, waiting, unknown = world.enqueue(), world.enqueue(), world.enqueue(), world.id()
    world.store.cancel_executions(ExecutionFilter(ids=cancelled), T0)
    world.run(finished)

    answer = world.start(unknown, cancelled, finished, waiting)

    assert [claim.execution_id for claim in answer.claims] == [waiting]
    assert answer.refused == {unknown: "gone", cancelled: "cancelled", finished: "succeeded"}


@promise("QU15", "JQ25", "JQ10")
def work_without_code_on_this_node_is_left_waiting(world: World) -> None:
    """With `tasks` only those are chosen, and a named one is refused; it stays visible for a node that has the code."""
    known, unknown = world.enqueue("mail.welcome"), world.enqueue("mail.gone", priority=9)

    chosen = world.store.start(NODE.id, T0, free={"default": 5}, tasks={"mail.welcome"})
    named = world.store.start(NODE.id, T0, items=[unknown], tasks={"mail.welcome"})

    assert [claim.execution_id for claim in chosen.claims] == [known]
    assert named.refused == {unknown: "no code for its task here"}
    assert world.state(unknown) is State.PENDING
    assert [claim.execution_id for claim in world.store.start(OTHER.id, T0, free={"default": 5}).claims] == [unknown]


@promise("JQ9", "JQ12", "QE37", "GS1", "GS4")
def each_queue_gives_as_many_of_its_best_as_it_has_room_for(world: World) -> None:
    """Free slots are per queue: a full queue never stands in another's way, and a queue that runs dry is named."""
    low = [world.enqueue(queue="slow") for _ in range(2)]
    high = world.enqueue(queue="slow", priority=1)
    fast = world.enqueue(queue="fast")
    full = world.enqueue(queue="full", priority=99)

    answer = world.store.start(NODE.id, T0, free={"slow": 2, "fast": 3, "full": 0, "idle": 1})

    assert {claim.execution_id for claim in answer.claims} == {high, low[0], fast}
    by_queue = [claim.execution_id for claim in answer.claims if claim.work.queue == "slow"]
    assert by_queue == [high, low[0]]
    assert answer.dry == {"fast", "idle"}
    assert world.ready() == [full, low[1]]


@promise("GS1")
def named_and_chosen_work_start_in_one_call_without_being_counted_twice(world: World) -> None:
    """What is named is not chosen again; both may be asked for at once."""
    named, chosen, left = world.enqueue(), world.enqueue(), world.enqueue()

    answer = world.store.start(NODE.id, T0, items=[named, named], free={"default": 1})

    assert [claim.execution_id for claim in answer.claims] == [named, chosen]
    assert world.ready() == [left]


@promise("QE9", "GS15")
def what_starts_after_a_redeploy_is_the_new_definition(world: World) -> None:
    """Kept work, a retry included, runs what the job says by now."""
    claim = world.claim(world.fire(world.put(a_job(overlap="allow")), T0 + MINUTE), T0 + MINUTE)
    waiting = world.fire(world.job(), T0 + 2 * MINUTE)
    world.put(a_job(overlap="allow", task="reports.new"), T0 + 2 * MINUTE)
    world.finish(claim, Ending.RETRY, T0 + 2 * MINUTE)

    answer = world.store.start(NODE.id, T0 + 2 * MINUTE, free={"default": 5}, tasks={"reports.new"})

    assert {(started.execution_id, started.work.task) for started in answer.claims} == {
        (claim.execution_id, "reports.new"),
        (waiting, "reports.new"),
    }
    assert world.get(waiting).generation == 2


@promise("GS15", "QE10")
def what_was_on_its_way_when_its_job_ended_is_not_started(world: World) -> None:
    """The acknowledgement of a pause, a stop or a removal holds at every later `start`, on any node."""
    for name in ("paused", "stopped", "removed"):
        execution = world.fire(world.put(a_job(name)), T0 + MINUTE)
        where = JobFilter(names=name)
        if name == "removed":
            world.store.delete_jobs(where, T0 + MINUTE)
        else:
            world.store.set_job_state(where, JobState(name), T0 + MINUTE)

        answer = world.start(execution, now=T0 + MINUTE, node=OTHER.id)

        assert (answer.claims, answer.refused) == ([], {execution: "skipped"})


@promise()
def what_an_exhausted_job_has_fired_still_runs(world: World) -> None:
    """A schedule that is over, or a limit that is reached, takes nothing back."""
    execution = world.fire(world.put(a_job(limit=1)), T0 + MINUTE)

    world.run(execution, now=T0 + 5 * MINUTE)

    assert world.verdict(execution) is Kind.FIRED


@promise("OR35")
def work_that_could_not_start_by_its_time_is_expired(world: World) -> None:
    """`start_by` is the last moment to start, enqueued or fired. A retry is not held to it, but what was enqueued and
    given back without having begun.
    """
    record = world.put(a_job(start_by=10))
    fired = world.fire(record, T0 + MINUTE)
    enqueued = world.enqueue(start_by=T0 + MINUTE)
    retried = world.claim(world.enqueue(start_by=T0), T0)
    world.finish(retried, Ending.RETRY)

    early = world.start(fired, now=T0 + MINUTE + 10 * SECOND + 1)
    late = world.start(enqueued, retried.execution_id, now=T0 + MINUTE + 1)

    assert [(gone.execution_id, gone.kind) for gone in (*early.settled, *late.settled)] == [
        (fired, Kind.EXPIRED),
        (enqueued, Kind.EXPIRED),
    ]
    assert [claim.execution_id for claim in late.claims] == [retried.execution_id]
    assert (world.state(fired), world.verdict(fired)) == (State.EXPIRED, Kind.EXPIRED)
    assert (world.state(enqueued), world.verdict(enqueued)) == (State.EXPIRED, None)
    unbegun = world.claim(world.enqueue(start_by=T0 + MINUTE), T0 + MINUTE)
    world.finish(unbegun, Ending.GIVEN_BACK, T0 + MINUTE, unbegun=True)
    world.finish(late.claims[0], Ending.GIVEN_BACK, T0 + MINUTE + 1, unbegun=True)
    again = world.start(unbegun.execution_id, retried.execution_id, now=T0 + MINUTE + 2)
    assert world.state(unbegun.execution_id) is State.EXPIRED
    assert [claim.execution_id for claim in again.claims] == [retried.execution_id]
    on_time = world.enqueue(start_by=T0 + MINUTE)
    world.claim(on_time, T0 + MINUTE)
    world.check_law_1()


@promise("QU9", "QU10")
def no_more_of_a_task_starts_than_it_has_room_for(world: World) -> None:
    """Named or not, under any of its names; the best of other tasks get the slots, and what is passed over waits."""
    limited = [world.enqueue("limited" if index % 2 else "alias", priority=1) for index in range(5)]
    full = world.enqueue("full", priority=2)
    others = [world.enqueue("other") for _ in range(3)]
    elsewhere = world.enqueue("limited", queue="mail")
    rooms = [TaskRoom(("limited", "alias"), 3), TaskRoom(("full",), 0)]
    tasks = ("limited", "alias", "full", "other")

    first = world.store.start(NODE.id, T0, items=[limited[4], full], free={"default": 4}, tasks=tasks, rooms=rooms)

    assert [claim.execution_id for claim in first.claims] == [limited[4], limited[0], limited[1], others[0]]
    assert first.refused[full] == "no room for its task here"
    second = world.store.start(
        NODE.id, T0, free={"default": 9, "mail": 1}, tasks=tasks, rooms=[TaskRoom(("limited", "alias"), 1), rooms[1]]
    )
    assert [claim.execution_id for claim in second.claims] == [limited[2], *others[1:]]
    assert second.dry == {"default", "mail"}
    assert world.ready() == [full, limited[3], elsewhere]


@promise("QE18")
def the_misfire_window_is_looked_at_again_at_the_start(world: World) -> None:
    """What waited for a slot longer than its window is `missed`, not run."""
    record = world.put(a_job(misfire=Misfire(window=30), overlap="allow"))
    late, on_time = world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE)

    answer = world.start(late, on_time, now=T0 + 2 * MINUTE + 30 * SECOND)

    assert [(gone.execution_id, gone.kind) for gone in answer.settled] == [(late, Kind.MISSED)]
    assert [claim.execution_id for claim in answer.claims] == [on_time]
    world.check_law_1()


@promise("OR1", "QU2")
def running_lists_what_runs_by_node_and_in_pages(world: World) -> None:
    """In the order of attempt ids; what was asked to stop and has not stopped yet still runs."""
    rows = [world.enqueue() for _ in range(5)]
    world.start(*rows[:3])
    world.start(*rows[3:], node=OTHER.id)
    world.store.cancel_executions(ExecutionFilter(ids=rows[0]), T0)

    def ids(node: str | None = None, limit: int = 100, after: str | None = None) -> list[str]:
        return [row.id for row in world.store.running(node, limit, after)]

    assert ids() == rows
    assert ids(NODE.id) == rows[:3]
    assert ids(limit=2) == rows[:2]
    assert ids(limit=2, after=rows[1]) == rows[2:4]
    assert ids(OTHER.id, after=rows[3]) == rows[4:]
    assert ids("nobody") == []


@promise()
def work_of_jobs_and_work_of_none_start_together(world: World) -> None:
    """No more of both than is asked for, in the ready order; what is too late, or tried again, is judged beside it."""
    record = world.put(a_job(priority=1))
    manual, again, plain = world.manual(record), world.enqueue(), world.enqueue()
    world.run(again, Ending.RETRY)
    late, last = world.enqueue(start_by=T0), world.enqueue()

    first = world.store.start(NODE.id, T0, free={"default": 2})
    second = world.store.start(NODE.id, T0 + SECOND, free={"default": 3})

    assert sorted(claim.execution_id for claim in first.claims) == [manual, plain]
    assert sorted(claim.execution_id for claim in second.claims) == sorted([again, last])
    assert [gone.execution_id for gone in second.settled] == [late]
    assert (first.dry, second.dry) == (set(), set())
    row = world.get(last)
    assert (row.state, row.node, row.started_at, row.first_started_at, row.occupies) == (
        *(State.RUNNING, NODE.id, T0 + SECOND, T0 + SECOND, True),
    )
    assert world.get(again).first_started_at == T0
