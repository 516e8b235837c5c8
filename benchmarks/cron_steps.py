"""What does one step of a cron schedule cost?

Claim: a step of a fixed-time cron takes at most a tenth of croniter's time, at the median over the expressions, in UTC
and in a zone with DST. croniter's object is reused from step to step, which is its best case; cronsim is measured
beside it.

    python benchmarks/cron_steps.py [--size 2000] [--rounds 5]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import side_by_side

from clepsydra import Cron

EXPRESSIONS = ("0 9 * * *", "30 2 * * 1-5", "0 0 1 * *", "15 14 1 * *", "0 22 * * 1-5", "5 4 * * sun", "0 0 29 2 *")
ZONES = ("UTC", "Europe/Zurich")
START = datetime(2026, 1, 1, tzinfo=UTC)


def steps(make: Callable[[str, str], Callable[[], object]], size: int) -> Mapping[str, float]:
    """Median microseconds of a step, per zone."""
    return {
        f"step in {zone}, microseconds": statistics.median(cost(make(e, zone), size) for e in EXPRESSIONS)
        for zone in ZONES
    }


def cost(step: Callable[[], object], size: int) -> float:
    """Microseconds of a step, over so many."""
    began = time.perf_counter()
    for _ in range(size):
        step()
    return (time.perf_counter() - began) / size * 1e6


def ours(size: int) -> Mapping[str, float]:
    """Clepsydra's bound schedule."""

    def make(expression: str, zone: str) -> Callable[[], object]:
        bound = Cron(expression, tz=zone).bind("", "", 0)
        at = int(START.timestamp()) * 1_000_000

        def step() -> None:
            nonlocal at
            at = bound.next_after(at) or at

        return step

    return steps(make, min(size, 500))


def croniter(size: int) -> Mapping[str, float]:
    """croniter, its object reused."""
    import croniter as peer

    def make(expression: str, zone: str) -> Callable[[], object]:
        return peer.croniter(expression, START.astimezone(ZoneInfo(zone)), ret_type=datetime).get_next

    return steps(make, min(size, 200))


def cronsim(size: int) -> Mapping[str, float]:
    """cronsim."""
    from cronsim import CronSim

    def make(expression: str, zone: str) -> Callable[[], object]:
        return CronSim(expression, START.astimezone(ZoneInfo(zone))).__next__

    return steps(make, min(size, 200))


if __name__ == "__main__":
    side_by_side.main(
        "one step of a fixed-time cron", {"clepsydra": ours, "croniter": croniter, "cronsim": cronsim}, size=500
    )
