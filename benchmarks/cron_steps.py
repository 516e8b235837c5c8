"""What does it cost to read a cron expression, and what does one step of it cost?

Claim: in each of four zones a step takes at most an eighth of cronsim's time and a twentieth of croniter's, at the median
over thirty expressions, and reading one takes at most twice what croniter takes. Read for the first time, that is: what
is remembered of an expression is forgotten before each. croniter and cronsim step on one object that is reused, which is
their best case. Beside them stand relatives of croniter in Rust and in C, for what a compiled step costs.

    python benchmarks/cron_steps.py [--size 100] [--rounds 5]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import peers
import side_by_side
from contenders import Bar, Contender, Measure, limit, peer
from peer_programs.crons import START, ZONES, start, timed

from clepsydra import Cron


def ours(size: int) -> Mapping[str, float]:
    """A bound schedule, asked for the time after its last."""

    def parse(text: str, zone: str) -> object:
        forget()
        return Cron(text, tz=zone).bind("", "", 0)

    def make(text: str, zone: str) -> Callable[[], object]:
        bound = Cron(text, tz=zone).bind("", "", 0)
        at = int(START.timestamp()) * 1_000_000

        def step() -> None:
            nonlocal at
            at = bound.next_after(at) or at

        return step

    return timed(parse, make, size)


def forget() -> None:
    """All that is remembered of expressions."""
    for remembered in REMEMBERED:
        remembered.cache_clear()


REMEMBERED: list[Any] = [
    each
    for name, module in sorted(sys.modules.items())
    if name.startswith("clepsydra.model.cron")
    for each in vars(module).values()
    if hasattr(each, "cache_clear") and each.__module__ == name
]


def croniter(size: int) -> Mapping[str, float]:
    """With datetimes, its object reused."""
    import croniter as package

    def parse(text: str, zone: str) -> Any:
        return package.croniter(text, start(zone), ret_type=datetime)

    return timed(parse, lambda text, zone: parse(text, zone).get_next, size)


def cronsim(size: int) -> Mapping[str, float]:
    """Its object reused."""
    from cronsim import CronSim

    def parse(text: str, zone: str) -> CronSim:
        return CronSim(text, start(zone))

    return timed(parse, lambda text, zone: parse(text, zone).__next__, size)


def of_peer(name: str, size: int) -> Mapping[str, float]:
    """One of the peers, in its environment."""
    numbers: Mapping[str, float] = peers.measured(name, "cron_steps", size)
    return numbers


APSCHEDULER = "`CronTrigger.from_crontab`, asked for its next time with the last one, as its scheduler does."
CRONITER_RS = "croniter's relative in Rust. It drops the zone and steps on naive times, so it is in UTC alone."
CRONEXPR = "supertinycron, in C. UTC alone; it has no object for an expression, so each step reads it again."

CONTENDERS: Mapping[str, Measure] = {
    "clepsydra": Contender(ours, "ours", "A bound schedule on integers; for a parse, all that it remembers is forgotten."),
    "croniter": peer(croniter, "croniter", "With datetimes, its object reused."),
    "cronsim": peer(cronsim, "cronsim", "Its object reused."),
    "APScheduler 3.11": peer(partial(of_peer, "apscheduler3"), "apscheduler3", APSCHEDULER),
    "croniter-rs": limit(partial(of_peer, "croniter_rs"), CRONITER_RS, "croniter_rs"),
    "cronexpr": limit(partial(of_peer, "cronexpr"), CRONEXPR, "cronexpr"),
}
STEPS = [f"step in {zone}, microseconds" for zone in ZONES]
BARS = [
    *(Bar(measure=step, at_most=1 / 8, beside="cronsim") for step in STEPS),
    *(Bar(measure=step, at_most=1 / 20, beside="croniter") for step in STEPS),
    Bar(measure="parse, microseconds", at_most=2, beside="croniter"),
]

if __name__ == "__main__":
    side_by_side.main("cron: to read an expression, and one step of it", CONTENDERS, size=100, bars=BARS)
