"""A simulated year with a dozen jobs runs in seconds and gives the same verdicts each time, on both backends."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

import anyio

from clepsydra import BroadcasterSettings, Cron, Every, Job, MemoryStorage, Misfire, Once, Overlap, Retry, Stages

from .support import World, verdicts, violations

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)

PATIENT = Stages(execution_broadcaster=BroadcasterSettings(wait_cap=timedelta(hours=1)), loop_blocked=None)
"""A look at the clock every half minute would be a million looks a year, and most of the time that this takes."""


def jobs_of(world: World) -> list[Job]:
    every_half_hour = Cron("*/30 * * * *", tz="Europe/Zurich")
    weekdays = Cron("0 9 * * MON-FRI", tz="America/New_York")
    return [
        world.job("daily", Cron("30 2 * * *", tz="Europe/Zurich")),  # falls into both changes of the clocks
        world.job("hourly", Cron("0 * * * *", tz="Australia/Lord_Howe")),
        world.job("weekly", Cron("0 12 * * SUN")),
        world.job("weekdays", weekdays, "work", args={"seconds": 1800}),
        world.job("last_of_month", Cron("0 18 L * *")),
        world.job("quarterly", Cron("0 0 1 */3 *")),
        world.job("six_hours", Every(hours=6), jitter=600),
        world.job("both", Cron("0 6 * * *") | Cron("0 18 * * *", tz="Asia/Tokyo")),
        world.job("not_at_noon", Every(hours=4) - Cron("0 12 * * *")),
        world.job("ten_times", Every(days=7), limit=10),
        world.job("once", Once("2026-07-01T12:00:00+02:00")),
        world.job("fails", Cron("15 5 * * *"), "fail", retry=Retry(attempts=2, backoff=60)),
        world.job("slow", Every(hours=5), "work", args={"seconds": 6 * 3600}, overlap=Overlap.SKIP),
        world.job("half_hours", every_half_hour.between(NEW_YEAR, NEW_YEAR + timedelta(days=60))),
        world.job("paused", Cron("0 0 * * *")),
        world.job("caught_up", Every(hours=12), misfire=Misfire("all")),
    ]


async def live_a_year() -> list[str]:
    """Every verdict and start of a year with a suspend, a step, a pause and a restart in it, a line each."""
    world = World(start=NEW_YEAR, storage=MemoryStorage(keep=100_000), stages=PATIENT)
    jobs = jobs_of(world)
    async with world.scheduler(*jobs) as scheduler:
        await world.clock.advance(timedelta(days=100))
        await scheduler.pause_job("paused")
        await world.clock.settle()  # else trio, which shuffles its tasks, may let the news be read after the suspend
        world.clock.suspend(timedelta(hours=30))
        await world.clock.advance(timedelta(days=50))
        await scheduler.resume_job("paused")
        await world.clock.settle()
        world.clock.step(timedelta(hours=-5))
    async with world.scheduler(*jobs) as scheduler:
        await world.clock.advance_to(NEW_YEAR + YEAR)
        told = [verdict for job in jobs for verdict in await verdicts(scheduler, job.name, NEW_YEAR)]
        assert await violations(scheduler) == []
    lines = [f"{verdict.job} {verdict.nominal.isoformat()} {verdict.kind}" for verdict in told]
    return lines + [f"{ran.name} {ran.nominal} {ran.attempt} ran" for ran in world.ran]


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def first_difference(one: list[str], other: list[str]) -> tuple[str, str] | None:
    return next((pair for pair in zip_longest(one, other, fillvalue="") if pair[0] != pair[1]), None)


def test_a_year_gives_the_same_verdicts_each_time_and_on_both_backends() -> None:
    first = anyio.run(live_a_year, backend="asyncio")
    again = anyio.run(live_a_year, backend="asyncio")
    elsewhere = anyio.run(live_a_year, backend="trio")

    assert first_difference(first, again) is None
    assert first_difference(first, elsewhere) is None
    assert digest(first) == digest(again) == digest(elsewhere)
    fired = Counter(line.split()[0] for line in first if line.endswith(" fired"))
    assert (fired["once"], fired["ten_times"], fired["weekly"], fired["caught_up"]) == (1, 10, 52, 730)
    assert fired["daily"] == 364  # the suspend took one
    assert fired.total() > 15_000
