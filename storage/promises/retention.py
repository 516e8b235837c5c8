"""Verdicts and retention: what is accounted for, back to the horizon, and what may leave."""

from __future__ import annotations

from ...model.execution import Ending, Kind
from ...model.filters import ExecutionFilter, JobFilter
from ...model.instants import DAY, HOUR, MINUTE, SECOND, to_datetime
from ...model.job import JobState
from ...model.schedule import Every, Once
from ..audit import audit
from ..protocol import Settle, TaskRow
from .ground import T0, World, a_job, promise


@promise("QE17", "QE18", "GS15")
def the_verdicts_of_a_whole_life_add_up(world: World) -> None:
    """Fires, misfires, pauses, redeploys, a removal and a second life: every nominal time once, in every window."""
    record = world.put(a_job(overlap="skip"))
    world.run(world.fire(record, T0 + MINUTE), now=T0 + MINUTE)
    world.fire(record, T0 + 4 * MINUTE)
    world.store.set_job_state(JobFilter(), JobState.PAUSED, T0 + 5 * MINUTE)
    world.store.set_job_state(JobFilter(), JobState.ACTIVE, T0 + 7 * MINUTE)
    world.put(a_job(schedule=Every(seconds=30)), T0 + 9 * MINUTE)
    world.fire(record, T0 + 10 * MINUTE)
    world.store.delete_jobs(JobFilter(), T0 + 11 * MINUTE)
    world.put(now=T0 + 13 * MINUTE)
    world.fire(world.job(), T0 + 14 * MINUTE)

    world.check_law_1()
    assert world.settled() == {
        1: "fired",
        2: "coalesced",
        3: "coalesced",
        **dict.fromkeys((4, 5, 6, 7), "paused"),
        8: "superseded",
        9: "coalesced",
        10: "removed",
        11: "removed",
        14: "waiting",
    }
    pages = world.store.verdicts("report", T0, T0 + HOUR)
    assert [page.horizon for page in pages] == [T0, T0 + 13 * MINUTE]
    assert [page.cursor for page in pages] == [T0 + 11 * MINUTE, T0 + 14 * MINUTE]
    for start in range(-1, 16):
        for length in (1, 3, 7):
            window = T0 + start * MINUTE, T0 + (start + length) * MINUTE
            assert audit(world.store.verdicts("report", *window), start=window[0], end=window[1]) == []


@promise()
def verdicts_give_what_lies_in_the_window_only(world: World) -> None:
    """Half open: a time at its end is outside; ranges that touch it are given whole."""
    record = world.put(a_job(overlap="allow"))
    for index in range(1, 4):
        world.fire(record, T0 + index * MINUTE)
    world.fire(record, T0 + 8 * MINUTE)

    def seen(start: int, end: int) -> tuple[list[int], int]:
        (page,) = world.store.verdicts("report", T0 + start * MINUTE, T0 + end * MINUTE)
        return [(mark.nominal - T0) // MINUTE for mark in page.marks], len(page.ranges)

    assert seen(1, 3) == ([1, 2], 0)
    assert seen(3, 4) == ([3], 1)
    assert seen(5, 6) == ([], 1)
    assert seen(8, 9) == ([8], 0)
    assert seen(0, 9) == ([1, 2, 3, 8], 1)


@promise()
def an_auditor_finds_a_hole_and_a_double_verdict(world: World) -> None:
    """The check of law 1 checks: a fire that leaves a time out, or settles one twice, is found."""
    record = world.put()
    world.fire(record, T0 + 2 * MINUTE, settled=())
    world.fire(record, T0 + 4 * MINUTE, settled=[Settle(Kind.MISSED, T0 + 3 * MINUTE, T0 + 4 * MINUTE + 1)])

    found = audit(world.store.verdicts("report", T0, T0 + HOUR))

    assert [(violation.nominal - T0) // MINUTE for violation in found] == [1, 4]


@promise("OR40")
def history_deletes_what_finished_before_strictly(world: World) -> None:
    """Equal timestamps are kept, and what is unfinished, however old."""
    rows = [world.enqueue() for _ in range(4)]
    for index, row in enumerate(rows[:3]):
        world.run(row, now=T0 + index)

    deleted = world.store.delete_history(T0 + 1, 100)

    assert (deleted.executions, deleted.ranges, deleted.jobs, deleted.total) == (1, 0, 0, 1)
    assert world.ids() == rows[1:]
    assert world.store.delete_history(T0 + DAY, 100).executions == 2
    assert world.ids() == rows[3:]


@promise("OR40")
def history_is_deleted_in_batches_oldest_first(world: World) -> None:
    """At most `limit` rows a call, executions, ranges and jobs together; fewer means that nothing is left."""
    rows = [world.enqueue() for _ in range(5)]
    for row in reversed(rows):
        world.run(row, now=T0 + 100 - rows.index(row))

    assert world.store.delete_history(T0 + DAY, 2).total == 2
    assert world.ids() == rows[:3]
    assert world.store.delete_history(T0 + DAY, 2).total == 2
    assert world.store.delete_history(T0 + DAY, 2).total == 1
    assert world.store.delete_history(T0 + DAY, 2).total == 0


@promise("OR40")
def the_attempts_of_a_deleted_execution_go_with_it(world: World) -> None:
    """Nothing of it is left to read."""
    claim = world.claim(world.enqueue())
    world.finish(claim, Ending.RETRY)
    world.run(claim.execution_id)

    world.store.delete_history(T0 + DAY, 10)

    assert list(world.store.list_attempts(claim.execution_id)) == []
    assert world.store.get_executions([claim.execution_id]) == {}


@promise("OR40")
def a_horizon_moves_with_what_is_deleted_and_law_1_holds_from_there(world: World) -> None:
    """After each batch the pages still add up, and nothing older is promised."""
    record = world.put(a_job(overlap="allow"))
    for index in (2, 4, 5, 9):
        world.run(world.fire(record, T0 + index * MINUTE), now=T0 + index * MINUTE)
    horizons = [world.job().horizon]

    while world.store.delete_history(T0 + 9 * MINUTE, 1).total:
        world.check_law_1()
        horizons.append(world.job().horizon)

    assert horizons == sorted(horizons)
    assert T0 + 5 * MINUTE < horizons[-1] <= T0 + 9 * MINUTE
    assert len(world.ids()) == 1


@promise("OR40", "OR41")
def a_horizon_never_passes_what_is_unfinished(world: World) -> None:
    """An old execution that still runs keeps its time, and all later ones, accounted for."""
    record = world.put(a_job(overlap="allow"))
    old = world.claim(world.fire(record, T0 + 3 * MINUTE), T0 + 3 * MINUTE)
    for index in (6, 9):
        world.run(world.fire(record, T0 + index * MINUTE), now=T0 + index * MINUTE)

    while world.store.delete_history(T0 + DAY, 2).total:
        world.check_law_1()

    assert world.job().horizon <= T0 + 3 * MINUTE
    assert old.execution_id in world.ids()
    assert {3: "fired", 4: "coalesced", 6: "fired", 9: "fired"}.items() <= world.settled().items()
    world.finish(old, now=T0 + 10 * MINUTE)
    while world.store.delete_history(T0 + DAY, 2).total:
        world.check_law_1()
    assert world.ids() == []
    world.check_law_1()


@promise("OR41")
def a_removed_job_is_forgotten_when_nothing_of_it_is_left(world: World) -> None:
    """Its verdicts can be read until retention takes them; what still runs keeps it."""
    record = world.put()
    claim = world.claim(world.fire(record, T0 + MINUTE), T0 + MINUTE)
    world.store.delete_jobs(JobFilter(), T0 + 3 * MINUTE)

    while world.store.delete_history(T0 + DAY, 10).total:
        world.check_law_1()
    assert len(world.store.verdicts("report", T0, T0 + DAY)) == 1
    world.finish(claim, now=T0 + 4 * MINUTE)
    while world.store.delete_history(T0 + DAY, 10).total:
        world.check_law_1()

    assert list(world.store.verdicts("report", T0, T0 + DAY)) == []
    assert world.ids() == []


@promise("OR40")
def the_schedule_that_a_job_has_is_never_forgotten(world: World) -> None:
    """Retention takes what is past; a job that goes on stays accountable."""
    world.put()
    world.put(a_job(schedule=Every(minutes=2)), T0 + 10 * MINUTE)
    while world.store.delete_history(T0 + DAY, 10).total:
        world.check_law_1()

    world.fire(world.job(), T0 + DAY)

    world.check_law_1()
    assert world.settled()[24 * 60] == "waiting"
    assert world.store.count_jobs() == 1


@promise("OR40")
def a_job_that_is_done_stays_until_it_is_removed(world: World) -> None:
    """Stopped is a state, not a removal: retention takes its executions and leaves its row."""
    record = world.put(a_job(schedule=Once(to_datetime(T0 + MINUTE))))
    world.run(world.fire(record, T0 + MINUTE, finishes=True), now=T0 + MINUTE)

    while world.store.delete_history(T0 + DAY, 10).total:
        world.check_law_1()

    assert world.job().state is JobState.STOPPED
    assert world.store.count_executions(ExecutionFilter()) == 0


@promise("OR42")
def tasks_are_kept_whether_they_are_used_or_not(world: World) -> None:
    """History takes executions; the list of tasks is what code registers."""
    world.store.put_tasks([TaskRow("reports.make"), TaskRow("mail.unused")])
    world.put()
    world.run(world.enqueue("reports.make"))

    while world.store.delete_history(T0 + DAY, 10).total:
        pass

    assert [task.name for task in world.store.list_tasks()] == ["mail.unused", "reports.make"]


@promise()
def jobs_that_no_calendar_drives_are_outside_the_ledger(world: World) -> None:
    """Completion-driven and manual jobs have executions and verdicts, and nothing to enumerate."""
    world.put(a_job(schedule=Every(seconds=30, after_completion=True)))
    execution = world.fire(world.job(), T0 + 30 * SECOND)
    world.run(execution, now=T0 + 40 * SECOND)
    world.store.set_job_state(JobFilter(), JobState.PAUSED, T0 + MINUTE)
    world.store.set_job_state(JobFilter(), JobState.ACTIVE, T0 + 2 * MINUTE)
    world.store.delete_executions(ExecutionFilter())
    world.store.delete_jobs(JobFilter(), T0 + 3 * MINUTE)

    world.check_law_1()
