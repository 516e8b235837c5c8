"""Calendars and zones as integers: what lets a cron step cost a microsecond.

Local time is counted in whole seconds since 1970-01-01T00:00:00 on the wall. A `Zone` says how wall time and real time
lie beside each other: it cuts real time into *pieces* of constant UTC offset, found once with `zoneinfo` and kept. Each
piece knows whether its wall times are the first or the second pass of a fold and whether a gap lies before it. `Months`
is the Gregorian calendar as a table. Knows nothing of cron, of jobs, or of what time it is.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from operator import itemgetter
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from attrs import frozen

from .errors import ScheduleError, shown
from .instants import SECOND, Instant, Micros

DAY_SECONDS: Final = 86_400

FIRST_YEAR: Final = 1969
"""Local time starts here: 1970-01-01 UTC is still 1969 west of Greenwich."""

LAST_YEAR: Final = 9998
"""The last year in which a schedule runs: in the one after it some zones cannot show the last day."""

LIMIT: Final = int(datetime(LAST_YEAR, 12, 30, tzinfo=UTC).timestamp())
"""The second before which all enumeration ends."""

PLAIN, FIRST_PASS, SECOND_PASS, NEITHER = 0, 1, 2, 3
"""Which pass of a fold the wall times of a piece are; `NEITHER` matches no piece."""

Piece: TypeAlias = tuple[int, int, int, int, int]
"""Start and end (seconds, end exclusive), UTC offset, pass of the fold, length of the gap right before the start."""

# Real offset changes are never closer than 6.9 days since 1969, in any zone, so no pair of them hides between probes.
_PROBE = 2 * DAY_SECONDS
_CHUNK_BITS = 25  # 388 days of a zone are searched and kept at a time
_MARGIN = 2 * DAY_SECONDS  # no fold is as long as this: its passes may lie across a chunk's edge
_MOST_CHUNKS = 512
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = int(datetime(2, 1, 1, tzinfo=UTC).timestamp())  # every zone can show it
_START = itemgetter(0)


@frozen
class Transition:
    """An instant at which a zone's UTC offset changes; the offsets are seconds east of UTC."""

    at: Instant
    offset_before: int
    offset_after: int


class Zone:
    """One zone's pieces, found on demand. Shared by everything in that zone: ask `zone(name)` for it."""

    __slots__ = ("_chunks", "current", "info", "name")

    def __init__(self, name: str, info: tzinfo) -> None:
        self.name = name
        self.info = info
        self._chunks: dict[int, tuple[Piece, ...]] = {}
        # The piece asked for last. Read and replaced as one tuple, so threads need no lock.
        self.current: Piece = (0, 0, 0, PLAIN, 0)
        if info is UTC:
            self.current = (0, LIMIT, 0, PLAIN, 0)

    def piece_at(self, second: int) -> Piece:
        """The piece in which this second of real time lies."""
        piece = self.current
        if piece[0] <= second < piece[1]:
            return piece
        pieces = self._chunk(second >> _CHUNK_BITS)
        piece = pieces[bisect_right(pieces, second, key=_START) - 1]
        self.current = piece
        return piece

    def offset_at(self, second: int) -> int:
        """The UTC offset in seconds; outside what a `datetime` can name, that of the nearest second it can."""
        at = _EPOCH + timedelta(seconds=min(max(second, _EARLIEST), LIMIT))
        delta = at.astimezone(self.info).utcoffset()
        return 0 if delta is None else delta.days * DAY_SECONDS + delta.seconds

    def changes(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Each offset change in `[start, end)`: the second, the offset before, the offset after."""
        found: list[tuple[int, int, int]] = []
        left, before = start - 1, self.offset_at(start - 1)
        while left < end - 1:
            right = min(left + _PROBE, end - 1)
            after = self.offset_at(right)
            if after != before:
                found.append((self._change_between(left, right, before), before, after))
            left, before = right, after
        return found

    def _change_between(self, left: int, right: int, before: int) -> int:
        """The first second with another offset than `before`, which holds at `left` and no more at `right`."""
        while right - left > 1:
            middle = (left + right) // 2
            if self.offset_at(middle) == before:
                left = middle
            else:
                right = middle
        return right

    def _chunk(self, number: int) -> tuple[Piece, ...]:
        pieces = self._chunks.get(number)
        if pieces is None:
            pieces = self._cut(number << _CHUNK_BITS, min((number + 1) << _CHUNK_BITS, LIMIT))
            if len(self._chunks) >= _MOST_CHUNKS:
                self._chunks = {}
            self._chunks[number] = pieces
        return pieces

    def _cut(self, start: int, end: int) -> tuple[Piece, ...]:
        """The pieces between two seconds of real time."""
        changes = self.changes(start - _MARGIN, end + _MARGIN)
        edges = [start - _MARGIN, *(at for at, _, _ in changes), end + _MARGIN]
        offsets = [self.offset_at(start - _MARGIN), *(after for _, _, after in changes)]
        # How far wall time falls back (positive) or leaps (negative) at each edge; the outermost edges are no changes.
        falls = [0, *(before - after for _, before, after in changes), 0]
        pieces: list[Piece] = []
        for index, offset in enumerate(offsets):
            pieces += _passes(edges[index], edges[index + 1], offset, falls[index], falls[index + 1])
        return tuple(_clipped(piece, start, end) for piece in pieces if piece[0] < end and piece[1] > start)


def _passes(start: int, end: int, offset: int, fell: int, falls: int) -> list[Piece]:
    """A stretch of one offset as up to three pieces: second pass of the last fold, plain, first pass of the next."""
    second_until = min(start + max(fell, 0), end)
    first_from = max(end - max(falls, 0), second_until)
    cuts = ((start, second_until, SECOND_PASS), (second_until, first_from, PLAIN), (first_from, end, FIRST_PASS))
    return [
        (left, right, offset, which, max(-fell, 0) if left == start else 0)
        for left, right, which in cuts
        if left < right
    ]


def _clipped(piece: Piece, start: int, end: int) -> Piece:
    left, right, offset, which, gap = piece
    return (max(left, start), min(right, end), offset, which, gap if left >= start else 0)


def zone_name(name: object) -> str:
    """The name itself, if it is that of a zone. Raises `ScheduleError` if it is not."""
    if not isinstance(name, str):
        raise ScheduleError(f"tz={shown(name)}: must be the IANA name of a zone as text, e.g. 'Europe/Zurich'")
    return zone(name).name


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The zone of this IANA name; one object for each name. Raises `ScheduleError` for an unknown one."""
    if name == "UTC":  # needs no database
        return Zone(name, UTC)
    try:
        return Zone(name, ZoneInfo(name))
    except (LookupError, ValueError, OSError):  # not there, not a name, not a zone file
        raise ScheduleError(f"tz={shown(name)}: {_what_is_known(name)}") from None


def _what_is_known(name: str) -> str:
    known = available_timezones()
    if not known:
        return "no time zones are installed on this system; pip install tzdata"
    folded = {each.lower(): each for each in sorted(known)}
    close = difflib.get_close_matches(name.strip().replace(" ", "_").lower()[:64], folded, n=1, cutoff=0.5)
    hint = f"did you mean {folded[close[0]]!r}?" if close else "zones are called like 'Europe/Zurich'"
    return f"is not a known time zone; {hint}"


def transitions(tz: str, after: Instant, before: Instant) -> list[Transition]:
    """The changes of a zone's UTC offset at instants `after <= at < before`, in order."""
    start, end = max(0, -(-after // SECOND)), min(LIMIT, -(-before // SECOND))
    return [Transition(at * SECOND, old, new) for at, old, new in zone(tz).changes(start, end)]


def local_datetime(local: int) -> datetime:
    """Local seconds as the naive datetime that a clock on the wall shows."""
    return datetime(1970, 1, 1) + timedelta(seconds=local)


def local_seconds(wall: datetime) -> tuple[int, Micros]:
    """A naive datetime as local seconds and the microseconds beyond them."""
    return (wall - datetime(1970, 1, 1)) // timedelta(seconds=1), wall.microsecond


def seconds_named(tz: str, local: int) -> list[int]:
    """The seconds of real time at which the wall clock shows `local`: none in a gap, two in a fold."""
    there = zone(tz)
    offsets = {there.offset_at(local - _MARGIN), there.offset_at(local + _MARGIN)}
    return sorted({local - offset for offset in offsets if there.offset_at(local - offset) == offset})


class Months:
    """The Gregorian calendar from January 1969 on: each month's first day (days since 1970) and its kind.

    A month's kind is its length and the weekday of its first day: there are 28, and what days a cron names in a month
    depends on nothing else. That is why jumps over months cost no search.
    """

    __slots__ = ("end", "kinds", "last_year", "starts")

    def __init__(self, last_year: int) -> None:
        starts: list[int] = []
        kinds = bytearray()
        day = -365
        for year in range(FIRST_YEAR, last_year + 1):
            for length in _lengths(year):
                starts.append(day)
                kinds.append(month_kind(length, weekday(day)))
                day += length
        self.last_year = last_year
        self.starts = tuple(starts)
        self.kinds = bytes(kinds)
        self.end = day


def weekday(day: int) -> int:
    """The weekday of a day since 1970; Sunday is 0."""
    return (day + 4) % 7  # 1970-01-01 was a Thursday


def month_kind(length: int, first_weekday: int) -> int:
    """The number of a month's kind, 0 to 27."""
    return (length - 28) * 7 + first_weekday


def _lengths(year: int) -> tuple[int, ...]:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


_NEAR_YEAR = 2199


@lru_cache(maxsize=1)
def near_months() -> Months:
    """The months that schedules meet in practice; a table of some 2,800."""
    return Months(_NEAR_YEAR)


@lru_cache(maxsize=1)
def all_months() -> Months:
    """All months up to `LAST_YEAR`; built when a walk first leaves the near ones."""
    return Months(LAST_YEAR)
