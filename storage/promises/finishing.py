"""Finishing: signs of life and outcomes, fenced by attempt and node."""

from __future__ import annotations

from ...model.execution import Ending, Kind, Outcome, State
from ...model.filters import ExecutionFilter
from ...model.instants import MINUTE
from ..protocol import Beat
from .ground import NODE, OTHER, T0, World, a_job, promise


@promise("OR1", "JQ4", "JQ5")
def a_success_or_a_failure_is_recorded_with_its_time_and_text(world: World) -> None:
    """State, end, result and error; the attempt's start and node stay readable."""
    done, failed = world.claim(world.enqueue()), world.claim(world.enqueue())

    answer = world.store.finish(
        [
            world.outcome(done, now=T0 + 5, result='{"sent":1}'),
            world.outcome(failed, Ending.FAILED, T0 + 6, error="ValueError: no"),
        ],
        T0 + 9,
    )

    assert answer.applied == {done.attempt_id, failed.attempt_id}
    assert (answer.stale, answer.ready, answer.ended) == (set(), {}, [])
    first, second = world.get(done.execution_id), world.get(failed.execution_id)
    assert (first.state, first.finished_at, first.result, first.error) == (State.SUCCEEDED, T0 + 5, '{"sent":1}', None)
    assert (second.state, second.finished_at, second.result, second.error) == (
        *(State.FAILED, T0 + 6, None, "ValueError: no"),
    )
    assert (first.node, first.started_at, first.occupies) == (NODE.id, T0, False)
    assert world.store.running() == []


@promise("OR8", "OR31")
def a_finish_tells_which_jobs_have_ended_and_when(world: World) -> None:
    """A completion-driven job counts from there: however it ended, but not while it goes on."""
    record = world.put(a_job(overlap="allow"))
    first, second = world.fire(record, T0 + MINUTE), world.fire(record, T0 + 2 * MINUTE)
    one, two = world.claim(first, T0 + 2 * MINUTE), world.claim(second, T0 + 2 * MINUTE)

    going_on = world.finish(one, Ending.RETRY, T0 + 3 * MINUTE)
    ended = world.finish(two, Ending.FAILED, T0 + 3 * MINUTE)

    assert going_on.ended == []
    assert ended.ended == [(record.id, T0 + 3 * MINUTE)]


@promise("OR22", "JQ16", "QS14")
def a_repeated_outcome_is_applied_once_and_the_first_wins(world: World) -> None:
    """The repeat of a report is answered as applied; another one for the same attempt is stale."""
    claim = world.claim(world.enqueue())
    first = world.outcome(claim, now=T0 + 1, result="1")
    world.store.finish([first], T0 + 1)

    again = world.store.finish([first], T0 + 2)
    other = world.finish(claim, Ending.FAILED, T0 + 3, error="no")

    assert (again.applied, again.stale) == ({claim.attempt_id}, set())
    assert (other.applied, other.stale) == (set(), {claim.attempt_id})
    row = world.get(claim.execution_id)
    assert (row.state, row.result, row.error, row.finished_at) == (State.SUCCEEDED, "1", None, T0 + 1)


@promise("OR12", "GS15")
def an_outcome_of_another_node_or_of_an_older_attempt_is_stale(world: World) -> None:
    """The fence is attempt and node: what was given away cannot be finished."""
    claim = world.claim(world.enqueue())
    unknown = Outcome(world.id(), world.id(), NODE.id, Ending.SUCCEEDED, T0)

    foreign = world.finish(claim, node=OTHER.id)
    world.store.rescue([NODE.id], T0, world.id)
    late = world.finish(claim)
    nobody = world.store.finish([unknown], T0)

    assert (foreign.stale, late.stale, nobody.stale) == ({claim.attempt_id}, {claim.attempt_id}, {unknown.attempt_id})
    assert world.state(claim.execution_id) is State.PENDING


@promise("OR21", "JQ6", "JQ8")
def a_retry_is_a_new_attempt_of_the_same_execution(world: World) -> None:
    """Not before its time, behind its peers, with its priority; the attempt that failed is history."""
    claim = world.claim(world.enqueue(priority=3))
    follows = world.id()
    outcome = world.outcome(claim, Ending.RETRY, T0 + 1, error="no", next_attempt_id=follows, not_before=T0 + MINUTE)

    answer = world.store.finish([outcome], T0 + 1)

    assert (answer.applied, answer.ready) == ({claim.attempt_id}, {})
    assert world.ready(T0 + MINUTE - 1) == []
    assert world.ready(T0 + MINUTE) == [claim.execution_id]
    row = world.get(claim.execution_id)
    assert (row.attempt, row.attempt_id, row.state, row.node) == (2, follows, State.PENDING, None)
    assert (row.work.priority, row.due_at, row.error, row.occupies) == (3, T0, "no", True)
    (past,) = world.store.list_attempts(claim.execution_id)
    assert (past.id, past.number, past.node, past.not_before, past.started_at, past.ended_at) == (
        *(claim.attempt_id, 1, NODE.id, T0, T0, T0 + 1),
    )
    assert (past.ending, past.error) == ("retry", "no")
    again = world.claim(claim.execution_id, T0 + MINUTE)
    assert (again.attempt, again.attempt_id) == (2, follows)


@promise("OR21")
def a_snooze_and_a_give_back_use_no_attempt(world: World) -> None:
    """The number stays, the fence is new; what is ready again at once is counted per queue."""
    claim = world.claim(world.enqueue(queue="mail"))

    world.finish(claim, Ending.SNOOZED, T0, not_before=T0 + MINUTE)
    snoozed = world.claim(claim.execution_id, T0 + MINUTE, OTHER.id)
    answer = world.finish(snoozed, Ending.GIVEN_BACK, T0 + MINUTE, OTHER.id)

    assert answer.ready == {"mail": 1}
    row = world.get(claim.execution_id)
    assert (row.attempt, row.state, row.not_before) == (1, State.PENDING, T0 + MINUTE)
    assert len({claim.attempt_id, snoozed.attempt_id, row.attempt_id}) == 3
    endings = [(past.id, past.ending, past.node) for past in world.store.list_attempts(claim.execution_id)]
    assert endings == [
        (claim.attempt_id, "snoozed", NODE.id),
        (snoozed.attempt_id, "given_back", OTHER.id),
    ]


@promise("QS14", "OR23")
def a_repeated_retry_gives_one_attempt_however_late_it_comes(world: World) -> None:
    """Recognised by the attempt that follows, and by history when that one has ended too."""
    claim = world.claim(world.enqueue())
    retry = world.outcome(claim, Ending.RETRY)
    world.store.finish([retry], T0)

    waiting = world.store.finish([retry], T0)
    second = world.claim(claim.execution_id)
    running = world.store.finish([retry], T0)
    world.finish(second, Ending.RETRY)
    late = world.store.finish([retry], T0)

    for answer in (waiting, running, late):
        assert (answer.applied, answer.stale) == ({claim.attempt_id}, set())
    assert world.get(claim.execution_id).attempt == 3
    assert len(world.store.list_attempts(claim.execution_id)) == 2


@promise("OR2", "OR23")
def the_late_end_of_what_was_cancelled_changes_nothing_but_frees_its_job(world: World) -> None:
    """Finished states are immutable: a success is stale, a retry gives no new try, a cancellation is its own end."""
    endings = {Ending.SUCCEEDED: "stale", Ending.RETRY: "stale", Ending.CANCELLED: "applied"}
    for ending, expected in endings.items():
        claim = world.claim(world.enqueue())
        world.store.cancel_executions(ExecutionFilter(ids=claim.execution_id), T0)

        answers = [world.finish(claim, ending) for _ in range(2)]

        for answer in answers:
            assert claim.attempt_id in getattr(answer, expected), ending
        row = world.get(claim.execution_id)
        assert (row.state, row.occupies, row.attempt, row.result) == (State.CANCELLED, False, 1, None)


@promise("OR24")
def what_has_not_started_can_be_failed_but_not_interrupted(world: World) -> None:
    """A failure of waiting work is final, its time `cancelled`; a retry of it is stale."""
    execution = world.fire(world.put(), T0 + MINUTE)
    report = Outcome(execution, execution, NODE.id, Ending.FAILED, T0 + MINUTE, error="no")
    again = Outcome(execution, execution, NODE.id, Ending.RETRY, T0, next_attempt_id=world.id())

    assert world.store.finish([again], T0 + MINUTE).stale == {execution}
    assert world.store.finish([report], T0 + MINUTE).applied == {execution}
    assert (world.state(execution), world.verdict(execution)) == (State.FAILED, Kind.CANCELLED)
    assert world.ready(T0 + MINUTE) == []
    world.check_law_1()


@promise("OR22")
def each_outcome_of_a_batch_stands_for_itself(world: World) -> None:
    """A stale one does not hold up the others."""
    good, bad = world.claim(world.enqueue()), world.claim(world.enqueue())

    answer = world.store.finish([world.outcome(bad, node=OTHER.id), world.outcome(good)], T0)

    assert (answer.applied, answer.stale) == ({good.attempt_id}, {bad.attempt_id})
    assert world.state(bad.execution_id) is State.RUNNING


@promise()
def a_heartbeat_tells_whether_an_attempt_is_kept_to_be_cancelled_or_gone(world: World) -> None:
    """`gone`: finished, given to another attempt, another node's, or unknown."""
    kept, asked, done, lost, foreign = (world.claim(world.enqueue()) for _ in range(5))
    world.store.cancel_executions(ExecutionFilter(ids=asked.execution_id), T0)
    world.finish(done)
    world.finish(lost, Ending.GIVEN_BACK)
    world.finish(foreign, Ending.GIVEN_BACK)
    taken = world.claim(foreign.execution_id, node=OTHER.id)
    claims = (kept, asked, done, lost, foreign, taken)
    beats = [Beat(claim.execution_id, claim.attempt_id) for claim in claims]

    answers = world.store.heartbeat(NODE.id, [*beats, Beat("nobody", "nothing")], T0)

    assert answers == {
        **dict(zip((claim.attempt_id for claim in claims), ("kept", "cancel", *["gone"] * 4), strict=True)),
        "nothing": "gone",
    }
    world.finish(asked, Ending.CANCELLED)
    assert world.store.heartbeat(NODE.id, beats[1:2], T0) == {asked.attempt_id: "gone"}


@promise()
def progress_is_kept_for_the_attempt_that_reports_it(world: World) -> None:
    """With its heartbeat, while it runs; the next attempt begins without."""
    claim = world.claim(world.enqueue())

    world.store.heartbeat(NODE.id, [Beat(claim.execution_id, claim.attempt_id, '{"done":1}')], T0)
    world.store.heartbeat(NODE.id, [Beat(claim.execution_id, claim.attempt_id)], T0)
    assert world.get(claim.execution_id).progress == '{"done":1}'
    world.store.heartbeat(OTHER.id, [Beat(claim.execution_id, claim.attempt_id, '{"done":2}')], T0)

    assert world.get(claim.execution_id).progress == '{"done":1}'
    world.finish(claim, Ending.RETRY)
    assert world.get(claim.execution_id).progress is None


@promise("OR22")
def an_outcome_that_says_that_nothing_hangs_on_it_is_held_to_its_fence_all_the_same(world: World) -> None:
    """`alone` is a hint: another node's outcome, a repeat and a cancelled one are told apart; a job's frees the job."""
    record = world.put()
    of_job, others, repeated = world.claim(world.manual(record)), world.claim(world.enqueue()), world.enqueue()
    done = world.outcome(world.claim(repeated), now=T0 + 1)
    cancelled = world.claim(world.enqueue())
    world.store.finish([done], T0 + 1)
    world.store.cancel_executions(ExecutionFilter(ids=[cancelled.execution_id]), T0)

    answer = world.store.finish(
        [
            world.outcome(of_job, alone=True),
            world.outcome(others, node=OTHER.id),
            done,
            world.outcome(cancelled, now=T0 + 2),
        ],
        T0 + 2,
    )

    assert answer.applied == {of_job.attempt_id, done.attempt_id}
    assert answer.stale == {others.attempt_id, cancelled.attempt_id}
    assert answer.ended == [(record.id, T0)]
    assert world.get(repeated).finished_at == T0 + 1
    assert world.get(cancelled.execution_id).state is State.CANCELLED
    assert {row.id for row in world.store.running()} == {others.execution_id}
