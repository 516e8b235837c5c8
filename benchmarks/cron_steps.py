"""What does it cost to read a cron expression, and what does one step of it cost?

Claim: in each of four zones a step takes at most an eighth of cronsim's time and a twentieth of croniter's, at the
median over thirty expressions, and reading one takes at most twice what croniter takes. They are read in a row, after
all that is remembered of any was forgotten. croniter and cronsim step on one object that is reused, which is their best
case. Beside them stand relatives of croniter in Rust and in C, for what a compiled step costs.

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
        return Cron(text, tz=zone).bind("", "", 0)

    def make(text: str, zone: str) -> Callable[[], object]:
        bound = Cron(text, tz=zone).bind("", "", 0)
        at = int(START.timestamp()) * 1_000_000

        def step() -> None:
            nonlocal at
            at = bound.next_after(at) or at

        return step

    numbers: Mapping[str, float] = timed(parse, make, size, forget=forget)
    return numbers


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

    numbers: Mapping[str, float] = timed(parse, lambda text, zone: parse(text, zone).get_next, size)
    return numbers


def cronsim(size: int) -> Mapping[str, float]:
    """Its object reused."""
    from cronsim import CronSim

    def parse(text: str, zone: str) -> CronSim:
        return CronSim(text, start(zone))

    numbers: Mapping[str, float] = timed(parse, lambda text, zone: parse(text, zone).__next__, size)
    return numbers


def of_peer(name: str, size: int) -> Mapping[str, float]:
    """One of the peers, in its environment."""
    numbers: Mapping[str, float] = peers.measured(name, "cron_steps", size)
    return numbers


def beside(part: Any, name: str) -> Contender:
    """One of the peers, as a peer or as a limit."""
    words = peers.configured(name, "cron_steps")
    contender: Contender = part(partial(of_peer, name), requirement=name, configured=words)
    return contender


CONTENDERS: Mapping[str, Measure] = {
    "clepsydra": Contender(ours, "ours", "A bound schedule on integers."),
    "croniter": peer(croniter, "croniter", "With datetimes, its object reused."),
    "cronsim": peer(cronsim, "cronsim", "Its object reused."),
    "APScheduler 3.11": beside(peer, "apscheduler3"),
    "croniter-rs": beside(limit, "croniter_rs"),
    "cronexpr": beside(limit, "cronexpr"),
}
READ = "parse, microseconds"
STEPS = [f"step in {zone}, microseconds" for zone in ZONES]
BARS = [
    *(Bar(measure=step, at_most=1 / 8, beside="cronsim") for step in STEPS),
    *(Bar(measure=step, at_most=1 / 20, beside="croniter") for step in STEPS),
    Bar(measure=READ, at_most=2, beside="croniter"),
]

if __name__ == "__main__":
    side_by_side.main(
        "cron: to read an expression, and one step of it", CONTENDERS, size=100, bars=BARS, plotted=[READ, *STEPS]
    )
