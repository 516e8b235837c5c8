"""The tables of one cron expression and how they are stepped, in local seconds.

A `Rule` holds which seconds of an hour, which hours and which days an expression names, and finds the first of them
from a local second on, or the last one up to it. The days of a month depend only on its length and first weekday, so 28
masks say all of them and a jump over months or to a leap day is a few look-ups, never a walk. Knows nothing of text,
zones or real time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias, assert_never

from attrs import frozen

from .calendar import DAY_SECONDS, FIRST_YEAR, LIMIT, Months, all_months, month_kind, near_months


@frozen
class FromEnd:
    """`L` and `L-n`: so many days before the month's last."""

    days: int


@frozen
class NearestWeekday:
    """`nW`: Monday to Friday, nearest to that day within its month; past the month's end the last day counts."""

    day: int


@frozen
class NthWeekday:
    """`FRI#2`, and `FRIL` with n None: the n-th such weekday of the month, or the last."""

    weekday: int
    n: int | None


Special: TypeAlias = FromEnd | NearestWeekday | NthWeekday
"""A day that a month's length and first weekday decide."""


@frozen
class DaySet:
    """What a restricted day field names."""

    plain: tuple[int, ...]
    special: tuple[Special, ...]


# --- days ----------------------------------------------------------------------------------------------------------

_LENGTHS: Final = ((31,), (28, 29), (31,), (30,), (31,), (30,), (31,), (31,), (30,), (31,), (30,), (31,))
_ALL_DAYS: Final = tuple((1 << (28 + kind // 7)) - 1 for kind in range(28))


def _weekday_mask(kind: int, weekday: int) -> int:
    length, first = 28 + kind // 7, (weekday - kind) % 7
    return sum(1 << day for day in range(first, length, 7))


_WEEKDAY_MASKS: Final = tuple(tuple(_weekday_mask(kind, weekday) for kind in range(28)) for weekday in range(7))


@lru_cache(maxsize=1024)
def days_named(
    days: DaySet | None, weekdays: DaySet | None, months: tuple[int, ...], years: tuple[int, ...] | None
) -> Days:
    """The table of days; a day field that is None does not restrict."""
    if days is None and weekdays is None:
        return Days(_ALL_DAYS, months, years)
    return Days(_month_masks(days, weekdays), months, years)


def _month_masks(days: DaySet | None, weekdays: DaySet | None) -> tuple[int, ...]:
    """The days of each kind of month, bit 0 for the 1st. The classic rule: OR where both fields restrict."""
    plain = 0
    for day in days.plain if days is not None else ():
        plain |= 1 << (day - 1)
    masks = [plain & all_days for all_days in _ALL_DAYS]
    for weekday in weekdays.plain if weekdays is not None else ():
        masks = [mask | on for mask, on in zip(masks, _WEEKDAY_MASKS[weekday], strict=True)]
    for each in (days, weekdays):
        for special in each.special if each is not None else ():
            masks = [mask | on for mask, on in zip(masks, _special_masks(special), strict=True)]
    return tuple(masks)


@lru_cache(maxsize=256)
def _special_masks(special: Special) -> tuple[int, ...]:
    return tuple(_special_mask(special, kind) for kind in range(28))


def _special_mask(special: Special, kind: int) -> int:
    match special:
        case FromEnd(days):
            return 1 << (27 + kind // 7 - days) if days < 28 + kind // 7 else 0
        case NearestWeekday(day):
            return 1 << (_nearest_weekday(day, kind) - 1)
        case NthWeekday(weekday, n) if n is not None:
            return _WEEKDAY_MASKS[weekday][kind] & (0b1111111 << 7 * (n - 1))  # seven days hold one of each
        case NthWeekday(weekday):
            return 1 << (_WEEKDAY_MASKS[weekday][kind].bit_length() - 1)
        case _:
            assert_never(special)


def _nearest_weekday(day: int, kind: int) -> int:
    length = 28 + kind // 7
    day = min(day, length)
    falls_on = (kind + day - 1) % 7
    if falls_on == 6:  # Saturday: Friday, unless that is last month's
        return day - 1 if day > 1 else 3
    if falls_on == 0:  # Sunday: Monday, unless that is next month's
        return day + 1 if day < length else day - 2
    return day


class Days:
    """Which days an expression names; days are counted from 1970-01-01. Shared between rules."""

    __slots__ = ("_ahead", "_back", "_masks", "_near", "_years", "any", "possible")

    def __init__(self, masks: tuple[int, ...], months: tuple[int, ...], years: tuple[int, ...] | None) -> None:
        self.any = masks is _ALL_DAYS and len(months) == 12 and years is None
        self._masks = masks
        self._years = years
        # How many months to go on, or back, from each month of the year to one that is named.
        self._ahead, self._back = _month_tables(months)
        self._near = near_months()
        self.possible = self._any_in(months) if years is None else self.at_or_after(_new_year(years[0])) is not None

    def _any_in(self, months: tuple[int, ...]) -> bool:
        """Whether a day is named at all: every month begins on every weekday at some time."""
        firsts = (month_kind(length, 0) for month in months for length in _LENGTHS[month - 1])
        return any(any(self._masks[first : first + 7]) for first in firsts)

    def at_or_after(self, day: int) -> int | None:
        """The first named day from `day` on."""
        if self.any:
            return day
        near = self._near
        if day >= near.end:
            return self._forward(all_months(), day)
        found = self._forward(near, day)
        if found is None and (self._years is None or self._years[-1] > near.last_year):
            return self._forward(all_months(), near.end)
        return found

    def _forward(self, table: Months, day: int) -> int | None:
        starts, kinds = table.starts, table.kinds
        here = self._month_from(bisect_right(starts, day) - 1)
        while here is not None and here < len(starts):
            start, mask = starts[here], self._masks[kinds[here]]
            if start < day:
                mask = mask >> (day - start) << (day - start)
            if mask:
                return start + (mask & -mask).bit_length() - 1
            here = self._month_from(here + 1)
        return None

    def _month_from(self, month: int) -> int | None:
        """The first named month from this one on."""
        month += self._ahead[month % 12]
        if self._years is None:
            return month
        index = bisect_left(self._years, FIRST_YEAR + month // 12)
        if index == len(self._years):
            return None
        january = (self._years[index] - FIRST_YEAR) * 12
        return month if month >= january else january + self._ahead[0]

    def at_or_before(self, day: int) -> int | None:
        """The last named day up to `day`."""
        if self.any:
            return day
        table = self._near if day < self._near.end else all_months()
        starts, kinds = table.starts, table.kinds
        here = self._month_until(bisect_right(starts, day) - 1)
        while here is not None and here >= 0:
            start, mask = starts[here], self._masks[kinds[here]]
            mask &= (2 << min(day - start, 31)) - 1
            if mask:
                return start + mask.bit_length() - 1
            here = self._month_until(here - 1)
        return None

    def _month_until(self, month: int) -> int | None:
        """The last named month up to this one."""
        month -= self._back[month % 12]
        if self._years is None:
            return month
        index = bisect_right(self._years, FIRST_YEAR + month // 12) - 1
        if index < 0:
            return None
        december = (self._years[index] - FIRST_YEAR) * 12 + 11
        return month if month <= december else december - self._back[11]


@lru_cache(maxsize=1024)
def _month_tables(months: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each month of the year, how many months ahead, and back, a named one is."""
    ahead, back = [0] * 12, [0] * 12
    to_next = to_last = 0
    for step in range(24):  # twice around the year: by the second time it is known how far the last one is
        earlier, later = 11 - step % 12, step % 12
        to_next = 0 if earlier + 1 in months else to_next + 1
        to_last = 0 if later + 1 in months else to_last + 1
        ahead[earlier], back[later] = to_next, to_last
    return tuple(ahead), tuple(back)


def _new_year(year: int) -> int:
    return near_months().starts[(year - FIRST_YEAR) * 12]


# --- times of day --------------------------------------------------------------------------------------------------

_SHARED: Final = tuple(range(3600))  # so that a table of numbers is a table of pointers only


@lru_cache(maxsize=1024)
def seconds_of_hour(seconds: Sequence[int], minutes: Sequence[int]) -> tuple[int, ...]:
    """The seconds within an hour that these minutes and seconds name, in order."""
    return tuple(_SHARED[minute * 60 + second] for minute in minutes for second in seconds)


class Rule:
    """One expression as tables. Compared by identity: equal fields share one rule."""

    __slots__ = ("_first", "_from_hour", "_last", "_to_hour", "days", "hours", "in_hour", "unit")

    def __init__(self, in_hour: tuple[int, ...], hours: tuple[int, ...], days: Days, unit: int) -> None:
        self.in_hour = in_hour
        self.hours = hours
        self.days = days
        self.unit = unit
        """Seconds: what one match of the expression is as long as, a minute or a second."""
        self._from_hour, self._to_hour = _hour_tables(hours)
        self._first = hours[0] * 3600 + in_hour[0]
        self._last = hours[-1] * 3600 + in_hour[-1]

    def at_or_after(self, local: int) -> int | None:
        """The first named local second from `local` on."""
        day, of_day = divmod(local, DAY_SECONDS)
        days = self.days
        found = day if days.any else days.at_or_after(day)
        if found != day:
            return None if found is None else found * DAY_SECONDS + self._first
        hour, of_hour = divmod(of_day, 3600)
        named = self._from_hour[hour]
        in_hour = self.in_hour
        if named == hour:
            if of_hour <= in_hour[-1]:
                return local - of_hour + in_hour[bisect_left(in_hour, of_hour)]
            named = self._from_hour[hour + 1]
        if named < 24:
            return local - of_day + named * 3600 + in_hour[0]
        found = day + 1 if days.any else days.at_or_after(day + 1)
        return None if found is None else found * DAY_SECONDS + self._first

    def at_or_before(self, local: int) -> int | None:
        """The last named local second up to `local`."""
        day, of_day = divmod(local, DAY_SECONDS)
        days = self.days
        found = day if days.any else days.at_or_before(day)
        if found != day:
            return None if found is None else found * DAY_SECONDS + self._last
        hour, of_hour = divmod(of_day, 3600)
        named = self._to_hour[hour]
        in_hour = self.in_hour
        if named == hour:
            if of_hour >= in_hour[0]:
                return local - of_hour + in_hour[bisect_right(in_hour, of_hour) - 1]
            named = self._to_hour[hour - 1]
        if named >= 0:
            return local - of_day + named * 3600 + in_hour[-1]
        found = day - 1 if days.any else days.at_or_before(day - 1)
        return None if found is None else found * DAY_SECONDS + self._last

    def leaves_nothing_of(self, other: Rule) -> bool:
        """Whether in each hour that this rule names, all is named that the other names in any hour."""
        return _within(other.in_hour, self.in_hour, self.unit)

    def named_until(self, local: int, whole_hours: bool) -> int:
        """The end of the run of matches in which `local`, itself one, lies. May fall short of it, never beyond it.

        `whole_hours` if an hour that is named may count as named throughout.
        """
        if not whole_hours and len(self.in_hour) * self.unit < 3600:
            return local + self.unit
        day, of_day = divmod(local, DAY_SECONDS)
        hour = of_day // 3600 + 1
        while hour < 24 and self._from_hour[hour] == hour:
            hour += 1
        if hour < 24 or len(self.hours) < 24:
            return day * DAY_SECONDS + hour * 3600
        return self._days_until(day) * DAY_SECONDS

    def named_since(self, local: int, whole_hours: bool) -> int:
        """The start of the run of matches in which `local` lies. May fall short of it, never before it."""
        if not whole_hours and len(self.in_hour) * self.unit < 3600:
            return local
        day, of_day = divmod(local, DAY_SECONDS)
        hour = of_day // 3600
        while hour > 0 and self._to_hour[hour - 1] == hour - 1:
            hour -= 1
        if hour > 0 or len(self.hours) < 24:
            return day * DAY_SECONDS + hour * 3600
        return self._days_since(day) * DAY_SECONDS

    def _days_until(self, day: int) -> int:
        """The first day after `day` that is not named, or one a month on."""
        if self.days.any:
            return LIMIT // DAY_SECONDS + 2
        end = day + 1
        while end < day + 31 and self.days.at_or_after(end) == end:
            end += 1
        return end

    def _days_since(self, day: int) -> int:
        """The first of the named days in a row that lead to `day`, or one a month back."""
        if self.days.any:
            return -2
        start = day
        while start > day - 31 and self.days.at_or_before(start - 1) == start - 1:
            start -= 1
        return start


@lru_cache(maxsize=1024)
def _hour_tables(hours: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each hour the first named one from it on (24: none), and the last up to it (-1: none)."""
    from_hour, to_hour = list[int](), list[int]()
    for earlier, later in pairwise((-1, *hours, 24)):
        from_hour += [later] * (later - earlier)
        to_hour += [earlier] * (later - earlier)
    return tuple(from_hour), (*to_hour[1:], -1)  # [-1] is asked for when hour 0 is not the answer


@lru_cache(maxsize=1024)
def _within(inner: tuple[int, ...], outer: tuple[int, ...], unit: int) -> bool:
    return {second // unit for second in inner} <= {second // unit for second in outer}
