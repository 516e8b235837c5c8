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
) -> dict[str, float]:
    """Medians over the expressions: of a parse, and of so many steps in each zone."""
    numbers: dict[str, float] = {}
    if parse is not None:
        read = parse
        costs = [cost(lambda text=text: read(text, "Europe/Zurich"), PARSES) for text in EXPRESSIONS]
        numbers["parse, microseconds"] = statistics.median(costs)
    for zone in zones:
        costs = [cost(make(text, zone), size) for text in EXPRESSIONS]
        numbers[f"step in {zone}, microseconds"] = statistics.median(costs)
    return numbers


def cost(step: Callable[[], object], size: int) -> float:
    """Microseconds of one, over so many."""
    began = time.perf_counter()
    for _ in range(size):
        step()
    return (time.perf_counter() - began) / size * 1e6


def start(zone: str) -> datetime:
    """Where the steps begin, there."""
    return START.astimezone(ZoneInfo(zone))
