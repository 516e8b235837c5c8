"""The cases QE1 to QE6, QE17 to QE33 of `contracts.md`: what fires, and when. Each test bears the name of its case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from clepsydra import Cron, Every, Kind, Misfire, Once, Reboot, State
from clepsydra.model.events import StageRestarted

from .support import FaultyStorage, Heard, World, executions_of, grid, kinds, states, violations

pytestmark = pytest.mark.anyio


async def test_qe01_a_job_of_every_second_fires_once_in_each() -> None:
    world = World()
    async with world.running_with(world.job("tick", Cron("* * * * * *"))):
        await world.pass_time(3)

    assert world.times("tick") == [1, 2, 3]
    assert world.nominals("tick") == [1, 2, 3]


async def test_qe02_a_job_of_a_far_year_does_not_fire() -> None:
    world = World()
    async with world.running_with(world.job("far", Cron("0 0 0 1 1 ? 2099"))):
        await world.pass_time(10)

    assert world.ran == []


async def test_qe03_a_reboot_job_runs_once_at_the_start_and_not_when_a_stage_restarts() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.scheduler(world.job("boot", Reboot()), world.job("tick", Every(1))) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(2)
        store.fail("fire", RuntimeError)
        await world.pass_time(3)
        assert heard.of(StageRestarted)

    assert world.times("boot") == pytest.approx([0], abs=0.01)


async def test_qe03_a_reboot_job_runs_again_at_the_next_start() -> None:
    world = World()
    for _ in range(2):
        async with world.scheduler(world.job("boot", Reboot())):
            await world.pass_time(5)

    assert world.times("boot") == pytest.approx([0, 5], abs=0.01)


async def test_qe04_a_paused_reboot_job_runs_once_when_it_is_resumed() -> None:
    """Our choice, Quantum's too: the start that it has missed is made up for, once."""
    world = World()
    async with world.scheduler(world.job("boot", Reboot(), paused=True)) as scheduler:
        await world.pass_time(5)
        assert world.ran == []
        await scheduler.resume_job("boot")
        await world.pass_time(5)

    assert world.times("boot") == [5]


async def test_qe05_an_earlier_job_added_behind_a_far_one_fires_on_time() -> None:
    world = World()
    async with world.running_with(world.job("far", Every(hours=5))) as scheduler:
        await world.pass_time(1)
        await scheduler.add_job(world.job("near", Every(2)))
        await world.pass_time(2)

    assert world.times("near") == [3]


async def test_qe06_a_firing_job_goes_on_when_another_is_added() -> None:
    world = World()
    async with world.running_with(world.job("first", Every(1))) as scheduler:
        await world.pass_time(2)
        await scheduler.add_job(world.job("second", Every(1)))
        await world.pass_time(2)

    assert world.times("first") == [1, 2, 3, 4]
    assert world.times("second") == [3, 4]


async def down_for(world: World, misfire: Misfire, seconds: float) -> None:
    """A job of every second fires twice, is down for so long and a half second, and runs for three seconds more."""
    job = world.job("tick", Every(1), misfire=misfire)
    async with world.scheduler(job):
        await world.pass_time(2)
    world.clock.suspend(seconds + 0.5)
    async with world.scheduler(job) as scheduler:
        await world.pass_time(3)
        assert await violations(scheduler) == []
        assert len(await kinds(scheduler, "tick")) == 5 + seconds


async def test_qe17_all_that_was_missed_is_caught_up_with_in_order() -> None:
    world = World()
    await down_for(world, Misfire("all", grace=0), 50)

    assert world.nominals("tick") == grid(1, 55)
    assert world.times("tick")[-3:] == [53, 54, 55]


async def test_qe18_none_of_what_was_missed_runs() -> None:
    world = World()
    await down_for(world, Misfire("none", grace=0), 50)

    assert world.nominals("tick") == [1, 2, 53, 54, 55]


async def test_qe19_the_latest_of_what_was_missed_runs_once() -> None:
    world = World()
    await down_for(world, Misfire("latest"), 50)

    assert world.nominals("tick") == [1, 2, 52, 53, 54, 55]


async def test_qe20_what_fired_is_not_fired_again_after_a_crash() -> None:
    world = World()
    async with world.scheduler(world.job("tick", Every(10))) as scheduler:
        await world.pass_time(10)
        scheduler.stop(hard=True)
    world.clock.suspend(0.3)
    async with world.scheduler(world.job("tick", Every(10))):
        await world.pass_time(1)

    assert world.nominals("tick") == [10]


async def test_qe21_what_was_claimed_and_never_ran_runs_as_a_second_attempt_of_the_same_execution() -> None:
    """Decided differently: at least once is a second attempt, never a second execution."""
    store = FaultyStorage()
    world = World(storage=store.storage)
    store.fail("start", RuntimeError, "after")
    async with world.running_with(world.job("once", Once(world.at(5)))) as scheduler:
        await world.pass_time(6)
        (execution,) = await executions_of(scheduler, "once")

    assert execution.state is State.SUCCEEDED
    assert execution.attempt_id != execution.id
    assert world.times("once") == [5]


async def test_qe22_a_job_that_is_removed_and_added_again_has_no_runs_for_the_gap() -> None:
    world = World()
    async with world.running_with(world.job("tick", Cron("* * * * *"), misfire=Misfire("all"))) as scheduler:
        await world.pass_time(90)
        await scheduler.remove_job("tick")
        await world.pass_time(180)
        await scheduler.add_job(world.job("tick", Cron("* * * * *"), misfire=Misfire("all")))
        await world.pass_time(60)

    assert world.times("tick") == [60, 300]


async def test_qe23_a_job_added_after_an_hour_has_its_first_run_at_its_next_time() -> None:
    world = World()
    async with world.running_with() as scheduler:
        await world.pass_time(3601)
        await scheduler.add_job(world.job("tick", Cron("* * * * *"), misfire=Misfire("all")))
        await world.pass_time(60)

    assert world.times("tick") == [3660]


async def test_qe24_no_time_fires_twice_when_the_wall_clock_is_set_back() -> None:
    world = World()
    async with world.running_with(world.job("tick", Cron("* * * * *"))) as scheduler:
        await world.pass_time(300)
        world.clock.step(-3600)
        await world.pass_time(3600 + 120)
        assert await violations(scheduler) == []

    assert world.nominals("tick") == grid(60, 420, 60)


async def test_qe25_the_misfire_policy_judges_what_a_clock_set_forward_leaps_over() -> None:
    world = World()
    async with world.running_with(world.job("tick", Cron("* * * * *"))) as scheduler:
        await world.pass_time(60)
        world.clock.step(3600)
        await world.pass_time(30)
        assert world.nominals("tick") == [60, 3660]
        await world.pass_time(60)
        assert await kinds(scheduler, "tick") == [Kind.FIRED, *[Kind.COALESCED] * 59, Kind.FIRED, Kind.FIRED]

    assert world.nominals("tick") == [60, 3660, 3720]


async def test_qe26_a_suspend_is_noticed_within_the_longest_wait() -> None:
    world = World()
    async with world.running_with(world.job("daily", Cron("0 6 * * *"))):
        await world.pass_time(10)
        world.clock.suspend(8 * 3600)
        await world.pass_time(30)

    assert world.nominals("daily") == [6 * 3600]
    assert 8 * 3600 <= world.times("daily")[0] <= 8 * 3600 + 40


def zurich(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def fires_between(cron: Cron, start: datetime, length: timedelta) -> list[datetime]:
    world = World(start=start)
    async with world.running_with(world.job("job", cron)) as scheduler:
        await world.clock.advance(length)
        assert await violations(scheduler) == []
    return [ran.nominal for ran in world.ran if ran.nominal is not None]


async def test_qe27_a_wildcard_cron_loses_nothing_in_the_gap_of_spring() -> None:
    fires = await fires_between(
        Cron("*/10 * * * *", tz="Europe/Zurich"), zurich("2026-03-28T23:55:00"), timedelta(hours=3, minutes=10)
    )

    assert len(fires) == 19
    assert {later - earlier for earlier, later in pairwise(fires)} == {timedelta(minutes=10)}


async def test_qe28_a_wildcard_cron_keeps_its_beat_through_the_fold_of_autumn() -> None:
    fires = await fires_between(
        Cron("*/10 * * * *", tz="Europe/Zurich"), zurich("2026-10-24T22:55:00"), timedelta(hours=5, minutes=10)
    )

    assert len(fires) == 31
    assert {later - earlier for earlier, later in pairwise(fires)} == {timedelta(minutes=10)}


async def test_qe29_a_fixed_time_in_the_fold_fires_once_at_its_first_pass() -> None:
    fires = await fires_between(
        Cron("30 2 * * *", tz="Europe/Zurich"), zurich("2026-10-24T12:00:00"), timedelta(hours=24)
    )

    assert fires == [zurich("2026-10-25T00:30:00")]


async def test_qe30_a_fixed_time_in_the_gap_fires_once_right_after_it() -> None:
    fires = await fires_between(
        Cron("30 2 * * *", tz="Europe/Zurich"), zurich("2026-03-28T12:00:00"), timedelta(hours=24)
    )

    assert fires == [zurich("2026-03-29T01:00:00")]


async def test_qe31_jobs_go_on_within_a_tick_when_their_stage_crashes() -> None:
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1))) as scheduler:
        heard = Heard(scheduler)
        await world.pass_time(2)
        store.fail("fire", RuntimeError)
        await world.pass_time(3)
        assert heard.of(StageRestarted)[0].stage == "execution_broadcaster"

    assert world.nominals("tick") == [1, 2, 3, 4, 5]


async def test_qe32_a_crash_of_the_stage_that_reads_the_clock_replays_no_old_times() -> None:
    """There is no clock task here: the execution broadcaster reads the clock itself."""
    store = FaultyStorage()
    world = World(storage=store.storage)
    async with world.running_with(world.job("tick", Every(1), misfire=Misfire("all"))):
        await world.pass_time(100)
        store.fail("fire", RuntimeError, "after")
        await world.pass_time(5)

    assert world.nominals("tick") == grid(1, 105)


async def test_qe33_jobs_due_at_one_instant_start_in_the_order_of_their_registration() -> None:
    world = World()
    names = ["e", "b", "d", "a", "c"]
    async with world.running_with(*(world.job(name, Cron("* * * * * *")) for name in names)):
        await world.pass_time(3)

    assert world.names() == names * 3


async def test_qe33_the_order_holds_over_a_restart() -> None:
    world = World()
    names = ["e", "b", "d", "a", "c"]
    async with world.running_with(*(world.job(name, Cron("* * * * * *")) for name in names)):
        pass
    async with world.scheduler() as scheduler:
        await world.pass_time(1)
        assert {len(await states(scheduler, name)) for name in names} == {1}

    assert world.names() == names
