"""The expressions and zones of the cron benchmark, and how a reader of them is timed. For ours and the peers'.

Nothing but the standard library, because it runs in the peers' environments.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

EXPRESSIONS = (
    *("* * * * *", "*/5 * * * *", "*/15 * * * *", "0 * * * *", "0 */2 * * *", "0 */6 * * *", "17 * * * *"),
    *("0 0 * * *", "0 9 * * *", "30 2 * * *", "59 23 * * *", "15,45 * * * *", "0 8-18 * * *", "*/10 8-18 * * *"),
    *("0 0 * * 0", "5 4 * * sun", "30 2 * * 1-5", "0 22 * * 1-5", "0 9 * * mon,wed,fri", "*/20 9-17 * * 1-5"),
    *("0 0 1 * *", "15 14 1 * *", "0 12 15 * *", "0 0 1,15 * *", "30 6 28 * *", "0 0 31 * *", "0 0 1 1 *"),
    *("0 0 1 */3 *", "0 0 29 2 *", "0 3 1-7 6-8 *"),
)
"""Thirty, as they are met with."""
ZONES = ("UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe")
START = datetime(2026, 1, 1, tzinfo=UTC)
PARSES = 20


def timed(
    parse: Callable[[str, str], object] | None,
    make: Callable[[str, str], Callable[[], object]],
    size: int,
    zones: tuple[str, ...] = ZONES,
    *,
    forget: Callable[[], object] = lambda: None,
    may_fail: bool = False,
) -> dict[str, float]:
    """Medians over the expressions: of a parse, and of so many steps in each zone.

    They are read in a row, after all that is remembered of any was forgotten, as a process does that meets them first.
    """
    numbers: dict[str, float] = {}
    if parse is not None:
        numbers["parse, microseconds"] = statistics.median(parsed(parse, forget))
    for zone in zones:
        costs = [each for text in EXPRESSIONS if (each := stepped(make, text, zone, size, may_fail)) is not None]
        numbers[f"step in {zone}, microseconds"] = statistics.median(costs)
        if may_fail:
            numbers[f"expressions of {len(EXPRESSIONS)} that it steps over"] = float(len(costs))
    return numbers


def parsed(parse: Callable[[str, str], object], forget: Callable[[], object]) -> list[float]:
    """Microseconds for each expression."""
    took = [0.0] * len(EXPRESSIONS)
    for _ in range(PARSES):
        forget()
        for place, text in enumerate(EXPRESSIONS):
            began = time.perf_counter()
            parse(text, "Europe/Zurich")
            took[place] += time.perf_counter() - began
    return [each / PARSES * 1e6 for each in took]


def stepped(
    make: Callable[[str, str], Callable[[], object]], text: str, zone: str, size: int, may_fail: bool
) -> float | None:
    """Microseconds of a step; None where it fails and may."""
    try:
        return cost(make(text, zone), size)
    except Exception:  # whatever another program raises
        if may_fail:
            return None
        raise


def cost(step: Callable[[], object], size: int) -> float:
    """Microseconds of one, over so many."""
    began = time.perf_counter()
    for _ in range(size):
        step()
    return (time.perf_counter() - began) / size * 1e6


def start(zone: str) -> datetime:
    """Where the steps begin, there."""
    return START.astimezone(ZoneInfo(zone))
