"""The cases QE7 to QE16 and QE38 to QE47 of `contracts.md`: what commands do to jobs."""

from __future__ import annotations

from typing import Any

import pytest

from clepsydra import (
    Cron,
    Every,
    InvalidArgument,
    Job,
    JobExists,
    JobNotFound,
    JobState,
    Kind,
    Once,
    ScheduleError,
    Scheduler,
    StoreBusy,
    StoreUnavailable,
    UnknownTask,
)
from clepsydra.model.events import JobUpdated
from clepsydra.storage.memory import MemoryStorage

from .support import FaultyStorage, Heard, World, kinds, slots, verdicts, violations

pytestmark = pytest.mark.anyio


async def test_qe07_nothing_fires_after_a_remove_is_acknowledged() -> None:
    """Decided differently: the store holds it; what is queued is settled as removed, what runs goes on."""
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("wall", Once(world.at(1)), "wait"), world.job("tick", Every(2))
    ) as scheduler:
        await world.pass_time(5)  # the only slot is taken: what is due waits
        await scheduler.remove_job("tick")
        world.open_gate()
        await world.pass_time(10)
        assert Kind.FIRED not in await kinds(scheduler, "tick")
        assert await violations(scheduler, "tick", "wall") == []

    assert world.names() == ["wall"]


async def test_qe08_removing_an_unknown_job_raises_and_leaves_the_others_alone() -> None:
    """Decided differently: the face raises `JobNotFound`, or passes over it where that is asked for."""
    world = World()
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        with pytest.raises(JobNotFound, match=r"'other'.*'tick'"):
            await scheduler.remove_job("other")
        await scheduler.remove_job("other", missing_ok=True)
        await world.pass_time(2)

    assert world.times("tick") == [1, 2]


async def test_qe09_only_the_new_definition_fires_after_a_replace() -> None:
    """Decided differently: the store holds it, by generation and state at each start."""
    world = World()
    async with world.running_with(world.job("job", Every(1), "say", args={"text": "A"})) as scheduler:
        await world.pass_time(2)
        await scheduler.add_job(world.job("job", Every(1), "say", args={"text": "B"}))
        await world.pass_time(3)

    assert world.names() == ["A", "A", "B", "B", "B"]


async def test_qe09_what_waits_for_a_slot_starts_under_the_new_definition() -> None:
    world = World(stages=slots(1))
    async with world.running_with(
        world.job("wall", Once(world.at(1)), "wait"), world.job("job", Every(3), "say", args={"text": "A"})
    ) as scheduler:
        await world.pass_time(4)
        await scheduler.add_job(world.job("job", Every(3), "say", args={"text": "B"}))
        world.open_gate()
        await world.pass_time(1)

    assert world.names() == ["wall", "B"]


async def test_qe10_an_active_job_replaced_by_a_paused_one_does_not_fire() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        await world.pass_time(1)
        await scheduler.add_job(world.job("job", Every(1), "say", args={"text": "B"}, paused=True))
        await world.pass_time(5)
        assert scheduler.get_job("job").state is JobState.PAUSED

    assert world.names() == ["job"]


async def test_qe11_a_paused_job_replaced_by_an_active_one_fires() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1), paused=True)) as scheduler:
        await world.pass_time(3)
        await scheduler.add_job(world.job("job", Every(1)))
        await world.pass_time(2)

    assert world.times("job") == [4, 5]


@pytest.mark.parametrize("schedule", [Cron("0 0 0 1 1 ? 2020"), Once("2020-01-01T00:00:00+00:00")])
async def test_qe12_a_schedule_without_a_time_to_come_is_refused_when_it_is_added(schedule: Cron | Once) -> None:
    """Decided differently: refused, never parked in silence."""
    world = World()
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        with pytest.raises(ScheduleError, match=r"'past'.*no time to come"):
            await scheduler.add_job(world.job("past", schedule))
        await world.pass_time(1)
        assert scheduler.find_job("past") is None

    assert world.times("tick") == [1]


async def test_qe12_a_declared_date_that_has_passed_at_a_restart_is_finished() -> None:
    """Decided differently: code that still declares it is no error."""
    world = World()
    for _ in range(2):
        async with world.scheduler(world.job("once", Once(world.at(3)))) as scheduler:
            await world.pass_time(5)
            record = scheduler.get_job("once")
            assert (record.state, record.reason) == (JobState.STOPPED, "exhausted")

    assert world.times("once") == [3]


async def test_qe12_a_date_that_passes_before_its_first_declaration_is_finished_at_once() -> None:
    world = World()
    async with world.scheduler(world.job("once", Once("2020-01-01T00:00:00+00:00"))) as scheduler:
        await world.pass_time(5)
        assert scheduler.get_job("once").state is JobState.STOPPED

    assert world.ran == []


async def test_qe13_an_unknown_zone_is_refused_at_once() -> None:
    with pytest.raises(ScheduleError, match="Europe/Zuerich"):
        Cron("* * * * *", tz="Europe/Zuerich")


async def test_qe14_a_job_without_a_schedule_runs_only_on_request() -> None:
    """Decided differently: it is a job for `run_job`; Quantum's stage crashes on it."""
    world = World()
    async with world.running_with(world.job("manual"), world.job("tick", Every(1))) as scheduler:
        await world.pass_time(2)
        assert scheduler.next_run("manual") is None

    assert world.names() == ["tick", "tick"]


async def test_qe15_a_paused_job_runs_on_request_and_stays_paused() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1), paused=True)) as scheduler:
        handle = await scheduler.run_job("job")
        await handle.wait(timeout=1)
        await world.pass_time(3)
        assert scheduler.get_job("job").state is JobState.PAUSED

    assert world.times("job") == [0]


async def test_qe16_a_manual_job_runs_once_on_request() -> None:
    world = World()
    async with world.running_with(world.job("manual")) as scheduler:
        handle = await scheduler.run_job("manual")
        execution = await handle.wait(timeout=1)
        await world.pass_time(3)

    assert (execution.cause, execution.nominal) == ("manual", None)
    assert world.times("manual") == [0]


async def test_qe38_the_second_declaration_of_a_name_raises() -> None:
    """Decided differently: in code it raises at once."""
    world = World()
    scheduler = world.scheduler(world.job("job", Every(1)))

    with pytest.raises(JobExists, match="'job'"):

        @scheduler.job(Every(2), name="job", task_name="other")
        async def other() -> None: ...

    with pytest.raises(JobExists, match="'job'"):
        world.scheduler(world.job("job", Every(1)), world.job("job", Every(2)))


async def test_qe39_a_declared_job_whose_task_is_unknown_is_refused_by_name() -> None:
    """Decided differently: code that declares what it lacks is told so; what is stored waits (next test)."""
    with pytest.raises(UnknownTask, match=r"'no\.such'"):
        Scheduler(jobs=[Job("job", "no.such", Every(1))])


async def test_qe39_a_stored_job_whose_task_is_gone_waits_and_is_shown_while_the_others_run() -> None:
    world = World()
    async with world.running_with(world.job("old", Every(2), "say", args={"text": "old"}), world.job("tick", Every(1))):
        pass
    del world.tasks["say"]
    async with world.scheduler() as scheduler:
        await world.pass_time(4)
        assert scheduler.health().unknown_tasks == ["say"]
        assert await violations(scheduler) == []
        assert None in {verdict.kind for verdict in await verdicts(scheduler, "old")}

    assert world.names() == ["tick"] * 4


async def test_qe40_an_unknown_option_is_refused_in_declarations_and_at_run_time_alike() -> None:
    world = World()
    options: dict[str, Any] = {"colour": "blue"}

    with pytest.raises(InvalidArgument, match="colour"):
        world.scheduler().job(Every(1), **options)
    with pytest.raises(TypeError, match="colour"):
        world.job("job", Every(1), **options)
    async with world.running_with() as scheduler:
        with pytest.raises(InvalidArgument, match="colour"):
            await scheduler.enqueue(world.tasks["note"].call(), **options)


async def test_qe41_jobs_and_find_see_what_was_added_just_before() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await scheduler.add_job(world.job("job", Every(1)))

        assert [record.name for record in scheduler.jobs] == ["job"]
        assert scheduler.find_job("job") == scheduler.get_job("job")


async def test_qe42_find_never_waits_and_a_command_gives_up_at_its_deadline() -> None:
    """Quantum's call has a timeout; ours is answered from memory, and only what must be durable may be late."""
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        store.down = lambda: StoreUnavailable("away")
        assert scheduler.find_job("tick") is not None
        with pytest.raises(StoreBusy):
            await world.clock_moves(scheduler.remove_job("tick"))
        store.down = None
        await world.pass_time(5)
        assert await violations(scheduler) == []
        assert world.ran


async def test_qe44_a_second_start_rebuilds_everything_from_the_store() -> None:
    """Decided differently: there is no hand-over between nodes; what the next one needs is in the store."""
    world = World()
    async with world.running_with(world.job("a", Every(2)), world.job("b", Every(3))):
        await world.pass_time(4)
    async with world.scheduler(world.job("c", Every(2))) as scheduler:
        await world.pass_time(6)
        assert await violations(scheduler) == []

    assert world.times("a") == [2, 4, 6, 8, 10]
    assert world.times("b") == [3, 6, 9]
    assert world.times("c") == [6, 8, 10]


async def test_qe45_removing_a_job_with_an_overdue_fire_leaves_no_fire() -> None:
    world = World()
    async with world.running_with(world.job("tick", Cron("0 * * * *"))) as scheduler:
        world.clock.suspend(7200)  # two fires are overdue, and nobody has noticed yet
        await scheduler.remove_job("tick")
        await world.pass_time(60)
        assert await violations(scheduler, "tick") == []

    assert world.ran == []


async def test_qe46_what_is_no_command_is_refused_at_the_face() -> None:
    """Decided differently: stages accept only their own messages, which a type checker sees to."""
    world = World()
    async with world.running_with() as scheduler:
        with pytest.raises(InvalidArgument, match="job="):
            await scheduler.add_job("tick")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="call="):
            await scheduler.enqueue(["tick"])  # type: ignore[list-item]


async def test_qe47_the_event_of_a_changed_state_tells_the_old_and_the_new_one() -> None:
    world = World()
    async with world.running_with(world.job("job", Every(1))) as scheduler:
        heard = Heard(scheduler)
        await scheduler.pause_job("job")
        await scheduler.resume_job("job")

    changes = [(event.old_state, event.new_state) for event in heard.of(JobUpdated)]
    assert changes == [(JobState.ACTIVE, JobState.PAUSED), (JobState.PAUSED, JobState.ACTIVE)]


# What the store's cases QS12 to QS15 ask of the scheduler.


async def test_qs12_declared_jobs_and_those_added_at_run_time_both_run_after_a_restart() -> None:
    world = World()
    async with world.scheduler(world.job("c1", Every(2))) as scheduler:
        await scheduler.add_job(world.job("r1", Every(2)))
        await world.pass_time(2)
    async with world.scheduler(world.job("c1", Every(2))):
        await world.pass_time(2)

    assert world.times("c1") == [2, 4]
    assert world.times("r1") == [2, 4]


async def test_qs13_declared_jobs_are_not_loaded_into_a_store_that_has_had_jobs_if_pristine_is_asked_for() -> None:
    """Decided differently: this is Quantum's rule, on request; the default merges."""
    world = World()
    async with world.running_with(world.job("gone", Every(1))) as scheduler:
        await scheduler.remove_job("gone")
    async with world.scheduler(world.job("c1", Every(2)), declared="if_pristine") as scheduler:
        assert scheduler.jobs == []
    async with world.scheduler(world.job("c1", Every(2)), storage=MemoryStorage(), declared="if_pristine") as scheduler:
        assert [record.name for record in scheduler.jobs] == ["c1"]


async def test_qs14_a_put_that_fails_twice_for_a_moment_succeeds_for_its_caller_once() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        fault = store.fail("put_jobs", lambda: StoreUnavailable("for a moment"), times=2)
        record = await world.clock_moves(scheduler.add_job(world.job("job", Every(1))))
        assert fault.struck == 2
        assert [known.id for known in scheduler.jobs] == [record.id]
        await world.pass_time(3)

    assert len(world.times("job")) == 3


async def test_qs14_a_put_whose_answer_was_lost_leaves_one_job() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with() as scheduler:
        store.fail("put_jobs", lambda: StoreUnavailable("its answer was lost"), "after")
        record = await world.clock_moves(
            scheduler.add_job(
                world.job("job", Every(1)),
            )
        )
        assert (record.generation, scheduler.get_job("job").id) == (1, record.id)


async def test_qs15_a_put_that_fails_for_good_raises_at_the_caller_and_changes_nothing() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        heard = Heard(scheduler)
        store.fail("put_jobs", lambda: ValueError("never"))
        with pytest.raises(ValueError, match="never"):
            await scheduler.add_job(world.job("job", Every(1)))
        await world.pass_time(2)
        assert scheduler.find_job("job") is None
        assert heard.of(JobUpdated) == []

    assert world.times("tick") == [1, 2]
