"""What `|`, `-` and `between` make of schedules.

Bound, each of them answers from its parts: a union takes the earlier of their next times, a difference steps over what
is excluded, bounds cut both ends off. Schedules that an event drives have no times to combine and are refused.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from datetime import datetime
from typing import Any

from attrs import field, frozen

from .bound import Bound, BoundSchedule
from .errors import InvalidArgument, ScheduleError, shown
from .instants import DAY, Instant, Micros, to_datetime, to_instant
from .schedule import Schedule, zone_info

MOST_PARTS = 1000
"""How many schedules may be joined in one union."""

PATIENCE: Micros = 50 * 366 * DAY
"""A schedule of which all is excluded for so long has no more times."""

MOST_EXCLUDED = 20_000
"""How many excluded stretches in a row are leapt over before the search is given up."""


def _enumerable(part: Schedule, role: str) -> Schedule:
    if part.driven_by != "time":
        raise ScheduleError(
            f"'{part.describe()}' has no times of its own and cannot be {role}; give it a job of its own"
        )
    return part


def _part(schedule: Schedule, job_id: str, name: str, anchor: Instant) -> Bound:
    bound = schedule.bind(job_id, name, anchor)
    if not isinstance(bound, Bound):
        raise ScheduleError(f"{shown(schedule)} cannot be combined: {type(bound).__name__} is no clepsydra Bound")
    return bound


@frozen
class Union(Schedule):
    """At the times of any of its members; what several name is one time."""

    members: tuple[Schedule, ...] = field(eq=frozenset)

    @classmethod
    def of(cls, *parts: Schedule) -> Schedule:
        """Flattened, each member once."""
        members: dict[Schedule, None] = {}
        for part in parts:
            for member in part.members if isinstance(part, Union) else (part,):
                members[_enumerable(member, "part of a union")] = None
        if not 0 < len(members) <= MOST_PARTS:
            raise ScheduleError(f"a union of {len(members)} schedules; 1 to {MOST_PARTS} can be joined")
        return cls(tuple(members)) if len(members) > 1 else next(iter(members))

    @property
    def tz_name(self) -> str | None:
        """The members' zone, if they have one in common."""
        names = {member.tz_name for member in self.members}
        return names.pop() if len(names) == 1 else None

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """All members bound alike."""
        return BoundUnion(tuple(_part(member, job_id, name, anchor) for member in self.members))

    def describe(self) -> str:
        """In words."""
        return "; or ".join(member.describe() for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kind": "union", "members": [member.to_json() for member in self.members]}


@frozen
class BoundUnion(Bound):
    """The times of all members, in order and each once."""

    members: tuple[Bound, ...]

    @property
    def has_exclusions(self) -> bool:
        """Whether a member has."""
        return any(member.has_exclusions for member in self.members)

    @property
    def shares_with(self) -> Hashable:
        """As the members do."""
        return ("union", frozenset(member.shares_with for member in self.members))

    def next_after(self, instant: Instant) -> Instant | None:
        """The earliest of the members' next ones."""
        return min((at for member in self.members if (at := member.next_after(instant)) is not None), default=None)

    def last_before(self, instant: Instant) -> Instant | None:
        """The latest of the members' last ones."""
        return max((at for member in self.members if (at := member.last_before(instant)) is not None), default=None)

    def times(self, start: Instant, end: Instant) -> Iterator[Instant]:
        """The members' times, merged."""
        previous = None
        for at in heapq.merge(*(member.times(start, end) for member in self.members)):
            if at != previous:
                yield at
            previous = at

    def is_excluded(self, instant: Instant) -> bool:
        """Whether no member is to run then."""
        return self.has_exclusions and not self.runs_at(instant)

    def runs_at(self, instant: Instant) -> bool:
        """Whether a member is to."""
        return any(member.runs_at(instant) for member in self.members)

    def parts(self) -> tuple[Bound, ...]:
        """All of the members'."""
        return tuple(part for member in self.members for part in member.parts())

    def covers(self, instant: Instant) -> bool:
        """Whether a member does."""
        return any(member.covers(instant) for member in self.members)

    def covered_until(self, instant: Instant, base: Bound) -> Instant:
        """The furthest that a member reaches."""
        return max(member.covered_until(instant, base) for member in self.members if member.covers(instant))

    def covered_since(self, instant: Instant, base: Bound) -> Instant:
        """The furthest that a member reaches back."""
        return min(member.covered_since(instant, base) for member in self.members if member.covers(instant))


@frozen
class Difference(Schedule):
    """At the times of `base`, except those that lie in what `without` names.

    A cron excludes the whole minute that it names, or second where it gives seconds: `Every(...) - Cron("* 12 * * *")`
    rests from 12:00 to 13:00, whatever the seconds. `Every` and `Once` exclude exact instants.
    """

    base: Schedule
    without: Schedule

    @classmethod
    def of(cls, base: Schedule, without: Schedule) -> Schedule:
        """`(a - b) - c` is kept as `a - (b | c)`."""
        _enumerable(base, "reduced by an exclusion")
        _enumerable(without, "an exclusion")
        if isinstance(base, Difference):
            return cls(base.base, Union.of(base.without, without))
        return cls(base, without)

    @property
    def tz_name(self) -> str | None:
        """The zone of what remains."""
        return self.base.tz_name

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """Both bound alike."""
        return BoundDifference(_part(self.base, job_id, name, anchor), _part(self.without, job_id, name, anchor))

    def describe(self) -> str:
        """In words."""
        return f"{self.base.describe()}; but not {self.without.describe()}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kind": "difference", "of": self.base.to_json(), "without": self.without.to_json()}


@frozen
class BoundDifference(Bound):
    """The base's times; those that are covered are nominal and excluded."""

    base: Bound
    without: Bound

    @property
    def has_exclusions(self) -> bool:
        """That is its purpose."""
        return True

    @property
    def shares_with(self) -> Hashable:
        """As both parts do."""
        return ("difference", self.base.shares_with, self.without.shares_with)

    def next_after(self, instant: Instant) -> Instant | None:
        """The base's next one that is not covered, in leaps over covered stretches."""
        at = self.base.next_after(instant)
        for _ in range(MOST_EXCLUDED):
            if at is None or not self.without.covers(at):
                return at
            if at - instant > PATIENCE:
                return None
            at = self.base.next_after(max(self.without.covered_until(at, self.base) - 1, at))
        raise _all_excluded("next", instant)

    def last_before(self, instant: Instant) -> Instant | None:
        """The base's last one that is not covered."""
        at = self.base.last_before(instant)
        for _ in range(MOST_EXCLUDED):
            if at is None or not self.without.covers(at):
                return at
            if instant - at > PATIENCE:
                return None
            at = self.base.last_before(self.without.covered_since(at, self.base))
        raise _all_excluded("last", instant)

    def times(self, start: Instant, end: Instant) -> Iterator[Instant]:
        """The base's."""
        return self.base.times(start, end)

    def count(self, start: Instant, end: Instant, limit: int | None = None) -> int:
        """The base's."""
        return self.base.count(start, end, limit)

    def is_excluded(self, instant: Instant) -> bool:
        """Whether it is covered, or excluded within the base."""
        return self.without.covers(instant) or self.base.is_excluded(instant)

    def runs_at(self, instant: Instant) -> bool:
        """Whether the base is to and nothing covers it."""
        return self.base.runs_at(instant) and not self.without.covers(instant)

    def parts(self) -> tuple[Bound, ...]:
        """The base's."""
        return self.base.parts()

    def covers(self, instant: Instant) -> bool:
        """What the base covers and the exclusion leaves."""
        return self.base.covers(instant) and not self.without.covers(instant)


def _all_excluded(which: str, instant: Instant) -> ScheduleError:
    since = to_datetime(instant).isoformat()
    return ScheduleError(f"no {which} time found from {since}: {MOST_EXCLUDED} stretches in a row are excluded")


@frozen
class Between(Schedule):
    """At the times of `of` from `start` on and before `end`."""

    schedule: Schedule
    start: Instant | None
    end: Instant | None

    @classmethod
    def of(cls, schedule: Schedule, start: datetime | None, end: datetime | None) -> Schedule:
        """Bounds of bounds are kept as the narrower ones."""
        _enumerable(schedule, "bounded")
        first, last = _bound(start, "start"), _bound(end, "end")
        if isinstance(schedule, Between):
            first = schedule.start if first is None else max(first, schedule.start or first)
            last = schedule.end if last is None else min(last, schedule.end or last)
            schedule = schedule.schedule
        if first is not None and last is not None and first >= last:
            raise ScheduleError(f"between: {_shown(first)} is not before {_shown(last)}; the end is exclusive")
        return schedule if first is None and last is None else cls(schedule, first, last)

    @property
    def tz_name(self) -> str | None:
        """The zone of what is bounded."""
        return self.schedule.tz_name

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """Bound within its bounds."""
        return BoundBetween(_part(self.schedule, job_id, name, anchor), self.start, self.end)

    def describe(self) -> str:
        """In words."""
        tz = self.tz_name or "UTC"
        since = f", from {_shown(self.start, tz)}" if self.start is not None else ""
        until = f", before {_shown(self.end, tz)}" if self.end is not None else ""
        return f"{self.schedule.describe()}{since}{until}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        bounds = {"start": _json(self.start), "end": _json(self.end)}
        return {"kind": "between", "of": self.schedule.to_json(), **bounds}


def _bound(at: datetime | None, argument: str) -> Instant | None:
    try:
        return None if at is None else to_instant(at, argument)
    except InvalidArgument as error:
        raise ScheduleError(f"between: {error}") from None


def _shown(at: Instant, tz: str = "UTC") -> str:
    return to_datetime(at, zone_info(tz)).isoformat(" ")


def _json(at: Instant | None) -> str | None:
    return None if at is None else to_datetime(at).isoformat()


@frozen
class BoundBetween(Bound):
    """The times of `inner` within `[start, end)`."""

    inner: Bound
    start: Instant | None
    end: Instant | None

    @property
    def has_exclusions(self) -> bool:
        """As within."""
        return self.inner.has_exclusions

    @property
    def shares_with(self) -> Hashable:
        """Within the same bounds."""
        return ("between", self.inner.shares_with, self.start, self.end)

    def next_after(self, instant: Instant) -> Instant | None:
        """The inner one's, if it is before the end."""
        at = self.inner.next_after(instant if self.start is None else max(instant, self.start - 1))
        return at if at is not None and self._contains(at) else None

    def last_before(self, instant: Instant) -> Instant | None:
        """The inner one's, if it is not before the start."""
        at = self.inner.last_before(instant if self.end is None else min(instant, self.end))
        return at if at is not None and self._contains(at) else None

    def _contains(self, at: Instant) -> bool:
        return (self.start is None or at >= self.start) and (self.end is None or at < self.end)

    def times(self, start: Instant, end: Instant) -> Iterator[Instant]:
        """The inner one's, cut at both ends."""
        return self.inner.times(*self._cut(start, end))

    def count(self, start: Instant, end: Instant, limit: int | None = None) -> int:
        """The inner one's, cut at both ends."""
        return self.inner.count(*self._cut(start, end), limit)

    def _cut(self, start: Instant, end: Instant) -> tuple[Instant, Instant]:
        first = start if self.start is None else max(start, self.start)
        return first, end if self.end is None else min(end, self.end)

    def is_excluded(self, instant: Instant) -> bool:
        """As within."""
        return self.inner.is_excluded(instant)

    def runs_at(self, instant: Instant) -> bool:
        """Within the bounds only."""
        return self._contains(instant) and self.inner.runs_at(instant)

    def parts(self) -> tuple[Bound, ...]:
        """The inner one's."""
        return self.inner.parts()

    def covers(self, instant: Instant) -> bool:
        """Within the bounds only."""
        return self._contains(instant) and self.inner.covers(instant)

    def covered_until(self, instant: Instant, base: Bound) -> Instant:
        """No further than the end."""
        until = self.inner.covered_until(instant, base)
        return until if self.end is None else min(until, self.end)

    def covered_since(self, instant: Instant, base: Bound) -> Instant:
        """No further than the start."""
        since = self.inner.covered_since(instant, base)
        return since if self.start is None else max(since, self.start)
