"""A heat map of the week in characters: seven days of twenty-four hours, each as dark as it is busy. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from .words import Paint

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_BLOCKS: Final = " ░▒▓█"
_ASCII: Final = " .:*#"
_COLOURS: Final = (None, "grey", "green", "yellow", "red")


def heat_map(week: Sequence[Sequence[int]], paint: Paint, *, ascii_only: bool = False) -> Iterator[str]:
    """The lines of the map, with a legend: a shade for each quarter of what the busiest hour has."""
    most = max(max(day) for day in week)
    shades = _ASCII if ascii_only else _BLOCKS
    yield "     " + "".join(f"{hour:02} " for hour in range(24))
    for name, day in zip(_DAYS, week, strict=True):
        yield f"{name}  " + "".join(_cell(count, most, shades, paint) for count in day)
    yield "     " + ", ".join(_legend(most, shades))


def _cell(count: int, most: int, shades: str, paint: Paint) -> str:
    level = _level(count, most)
    return paint(_COLOURS[level], shades[level] * 2) + " "


def _level(count: int, most: int) -> int:
    """0 for none, else 1 to 4 by quarters of the most."""
    return 0 if count == 0 else min(4, 1 + (4 * (count - 1)) // most) if most > 1 else 4


def _legend(most: int, shades: str) -> Iterator[str]:
    levels = {_level(count, most): count for count in _steps(most)}
    for level, least in sorted(levels.items()):
        yield f"{shades[level]} {least} or more" if level else "blank: none"


def _steps(most: int) -> Iterator[int]:
    """The least count of each level, ascending last so that it stays."""
    yield 0
    for level in (4, 3, 2, 1):
        least = 1 + ((level - 1) * most + 3) // 4 if level > 1 else 1
        if least <= most:
            yield least
