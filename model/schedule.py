"""When a job runs, as a pure value.

A `Schedule` is what users write: frozen, hashable, equal by value, with a JSON form. Bound to a job it is a
`BoundSchedule`, which answers in integers which time is next and which was last. Here are the plain ones, `Every`,
`Once` and `Reboot`; `Cron` has a module of its own, and what `|`, `-` and `between` make of them is in `algebra.py`.
Nothing here asks what time it is, except `upcoming` when it is not told.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from itertools import islice
from typing import Any, cast
from zoneinfo import ZoneInfo

from attrs import frozen

from .bound import END, Bound, Driver
from .bound import BoundSchedule as BoundSchedule
from .calendar import local_datetime, local_seconds, seconds_named, zone, zone_name
from .clock import SystemClock
from .errors import InvalidArgument, ScheduleError, shown
from .instants import DAY, MILLISECOND, SECOND, Instant, Micros, to_datetime, to_instant, to_micros


class Schedule(ABC):
    """When a job runs. Combine with `a | b` (either), `a - b` (but not when b), `.between(start, end)`."""

    __slots__ = ()

    @abstractmethod
    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """The schedule of this job; `anchor` is when the job was first added."""

    @abstractmethod
    def describe(self) -> str:
        """The schedule in words, with its zone."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain JSON from which `schedule_from_json` makes an equal schedule."""

    @property
    def driven_by(self) -> Driver:
        """What names the next time; what is not driven by time cannot be combined or enumerated."""
        return "time"

    @property
    def tz_name(self) -> str | None:
        """The zone in which its times are best shown, where it has one."""
        return None

    def __or__(self, other: object) -> Schedule:
        """At the times of either."""
        from .algebra import Union  # it builds on this module

        return Union.of(self, other) if isinstance(other, Schedule) else NotImplemented

    def __sub__(self, other: object) -> Schedule:
        """At the times of this one, except those that lie in what the other names."""
        from .algebra import Difference

        return Difference.of(self, other) if isinstance(other, Schedule) else NotImplemented

    def between(self, start: datetime | None = None, end: datetime | None = None) -> Schedule:
        """At its times from `start` on and before `end`."""
        from .algebra import Between

        return Between.of(self, start, end)

    def upcoming(
        self, n: int, after: datetime | None = None, *, name: str = "", tz: str | None = None
    ) -> list[datetime]:
        """The next `n` times at which it runs, for a job of this `name` added at `after` (now, if not given).

        Empty for schedules that an event drives, a completion or a start.
        """
        wanted = _checked_count(n)
        since = SystemClock().now() if after is None else to_instant(after, "after")
        bound = self.bind("", name, since)
        shown_in = zone_info(tz or self.tz_name or "UTC")
        return [to_datetime(at, shown_in) for at in islice(_running(bound, since), wanted)]


MOST_UPCOMING = 100_000


def _checked_count(n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= MOST_UPCOMING:
        raise InvalidArgument("n", n, f"must be a whole number from 0 to {MOST_UPCOMING}")
    return n


def _running(bound: BoundSchedule, after: Instant) -> Iterator[Instant]:
    """The times to run after an instant."""
    if bound.driven_by != "time":
        return
    at = bound.next_after(after)
    while at is not None:
        yield at
        at = bound.next_after(at)


def zone_info(tz: str) -> tzinfo:
    """The zone of this name as `datetime` wants it."""
    return zone(zone_name(tz)).info


# --- at an interval ------------------------------------------------------------------------------------------------

LONGEST_INTERVAL: Micros = 1000 * 366 * DAY


@frozen(init=False, weakref_slot=False)
class Every(Schedule):
    """At an interval of real time, from the moment when the job was first added; or after each completion.

    >>> Every(minutes=5).describe()
    'every 5 minutes'
    """

    micros: Micros
    after_completion: bool

    def __init__(
        self,
        interval: timedelta | float | None = None,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        after_completion: bool = False,
    ) -> None:
        parts = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        # Frozen: what users give and what is kept differ, so attrs cannot write this for us.
        object.__setattr__(self, "micros", _interval(interval, parts))
        object.__setattr__(self, "after_completion", bool(after_completion))

    @property
    def driven_by(self) -> Driver:
        """Time, or the end of the last execution."""
        return "completion" if self.after_completion else "time"

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """Anchored: the first time is one interval after `anchor`."""
        return BoundCompletion(self.micros) if self.after_completion else BoundEvery(self.micros, anchor)

    def describe(self) -> str:
        """In words."""
        length = duration_in_words(self.micros)
        return f"{length} after each completion" if self.after_completion else f"every {_without_one(length)}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kind": "every", "micros": self.micros, "after_completion": self.after_completion}


def _interval(interval: timedelta | float | None, parts: Mapping[str, float]) -> Micros:
    micros = 0
    try:
        if interval is not None:
            micros += to_micros(interval, "interval")
        for name, value in parts.items():
            if type(value) is int and value == 0:
                continue  # not given
            micros += to_micros(value, name) * _UNITS[name]
    except (InvalidArgument, OverflowError) as error:
        raise ScheduleError(f"Every: {error}") from None
    return _in_bounds(micros)


def _in_bounds(micros: Micros) -> Micros:
    if not MILLISECOND <= micros <= LONGEST_INTERVAL:
        given = f"an interval of {micros / SECOND:g} s"
        raise ScheduleError(f"Every: {given}; give from 0.001 s to 1000 years, e.g. Every(minutes=5)")
    return micros


_UNITS = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}


def duration_in_words(micros: Micros) -> str:
    """A length of time in its two largest units or so: `1 hour 30 minutes`."""
    words: list[str] = []
    for unit, size in _UNITS.items():
        count, micros = divmod(micros, size * SECOND)
        if count:
            words.append(f"{count} {unit[:-1] if count == 1 else unit}")
    if micros:
        words.append(f"{micros / MILLISECOND:g} milliseconds")
    return " ".join(words)


def _without_one(length: str) -> str:
    one, _, unit = length.partition(" ")
    return unit if one == "1" and " " not in unit else length


@frozen(weakref_slot=False)
class BoundEvery(Bound):
    """The instants `anchor + k * interval`, k from 1 on."""

    every: Micros
    anchor: Instant

    @property
    def shares_with(self) -> Hashable:
        """Two with one anchor are the same."""
        return ("every", self.every, self.anchor)

    def next_after(self, instant: Instant) -> Instant | None:
        """By division."""
        steps = max((instant - self.anchor) // self.every, 0) + 1
        at = self.anchor + steps * self.every
        return at if at < END else None

    def last_before(self, instant: Instant) -> Instant | None:
        """By division."""
        steps = (min(instant, END) - 1 - self.anchor) // self.every
        return self.anchor + steps * self.every if steps >= 1 else None

    def count(self, start: Instant, end: Instant, limit: int | None = None) -> int:
        """By division."""
        before_end = (min(end, END) - 1 - self.anchor) // self.every
        before_start = (start - 1 - self.anchor) // self.every
        found = max(before_end, 0) - max(before_start, 0)
        return max(found, 0) if limit is None else min(max(found, 0), limit)


@frozen(weakref_slot=False)
class BoundCompletion(Bound):
    """Named by the end of the last execution: outside enumeration."""

    pause: Micros

    @property
    def driven_by(self) -> Driver:
        """The end of the last execution."""
        return "completion"

    @property
    def interval(self) -> Micros | None:
        """The pause after each execution."""
        return self.pause

    @property
    def shares_with(self) -> Hashable:
        """Each job's own executions drive it."""
        return ("completion", id(self))

    def next_after(self, instant: Instant) -> Instant | None:
        """One interval after an execution that ended at `instant`."""
        at = instant + self.pause
        return at if at < END else None

    def last_before(self, instant: Instant) -> Instant | None:
        """Unknown to a pure value."""
        return None

    def times(self, start: Instant, end: Instant) -> Iterator[Instant]:
        """None: only completions name them."""
        return iter(())


# --- once ----------------------------------------------------------------------------------------------------------


@frozen(init=False, weakref_slot=False)
class Once(Schedule):
    """At one moment: an aware datetime, or a wall time in a zone.

    A wall time that a DST change leaves out is refused; one that it repeats is the first or the second pass as the
    datetime's `fold` says.

    >>> Once("2027-06-01 09:30", tz="Europe/Zurich").describe()
    'once at 2027-06-01 09:30:00, Europe/Zurich time'
    """

    instant: Instant
    tz: str | None

    def __init__(self, at: datetime | str, tz: str | None = None) -> None:
        instant, shown_in = _moment(at, tz)
        object.__setattr__(self, "instant", instant)
        object.__setattr__(self, "tz", shown_in)

    @property
    def at(self) -> datetime:
        """The moment, in its zone."""
        return to_datetime(self.instant, zone_info(self.tz or "UTC"))

    @property
    def tz_name(self) -> str | None:
        """The zone that was given."""
        return self.tz

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """The same for every job."""
        return BoundOnce(self.instant)

    def describe(self) -> str:
        """In words."""
        wall = self.at.replace(tzinfo=None).isoformat(" ")
        return f"once at {wall}, {self.tz or 'UTC'} time"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kind": "once", "at": to_datetime(self.instant).isoformat(), "tz": self.tz}


def _moment(at: object, tz: str | None) -> tuple[Instant, str | None]:
    """The instant that is meant, and the zone to show it in."""
    wall = _parsed(at)
    if tz is not None:
        zone_name(tz)
    if wall.tzinfo is None or wall.utcoffset() is None:
        if tz is None:
            raise ScheduleError(f"Once: {shown(at)} says no zone; give tz='Europe/Zurich' or the like, or an offset")
        return _named_in(tz, wall.replace(tzinfo=None), at), tz
    key = wall.tzinfo.key if isinstance(wall.tzinfo, ZoneInfo) else None
    if key is not None:
        return _named_in(key, wall.replace(tzinfo=None), at), tz or key
    return _in_range(to_instant(wall), at), tz


def _parsed(at: object) -> datetime:
    if isinstance(at, datetime):
        return at
    if not isinstance(at, str):
        raise ScheduleError(f"Once: at={shown(at)} must be a datetime, or text like '2027-06-01T09:30'")
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        raise ScheduleError(f"Once: {shown(at)} is not read; write it like '2027-06-01T09:30'") from None


def _named_in(tz: str, wall: datetime, given: object) -> Instant:
    local, micros = local_seconds(wall)
    seconds = seconds_named(tz, local)
    if not seconds:
        raise ScheduleError(f"Once: {local_datetime(local)} does not exist in {tz}: the clocks are put forward over it")
    return _in_range(seconds[-1 if wall.fold else 0] * SECOND + micros, given)


def _in_range(instant: Instant, given: object) -> Instant:
    if not 0 <= instant < END:
        raise ScheduleError(f"Once: {shown(given)} is out of range; years are 1970 to 9998")
    return instant


@frozen(weakref_slot=False)
class BoundOnce(Bound):
    """One instant."""

    instant: Instant

    @property
    def shares_with(self) -> Hashable:
        """The instant is all there is."""
        return ("once", self.instant)

    def next_after(self, instant: Instant) -> Instant | None:
        """It, or nothing."""
        return self.instant if self.instant > instant else None

    def last_before(self, instant: Instant) -> Instant | None:
        """It, or nothing."""
        return self.instant if self.instant < instant else None


# --- at each start -------------------------------------------------------------------------------------------------


@frozen(weakref_slot=False)
class Reboot(Schedule):
    """Once whenever a scheduler starts."""

    @property
    def driven_by(self) -> Driver:
        """A scheduler's start."""
        return "reboot"

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """The same for every job."""
        return BoundReboot()

    def describe(self) -> str:
        """In words."""
        return "at each start of the scheduler"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kind": "reboot"}


@frozen(weakref_slot=False)
class BoundReboot(Bound):
    """Named by a start: outside enumeration."""

    @property
    def driven_by(self) -> Driver:
        """A scheduler's start."""
        return "reboot"

    @property
    def shares_with(self) -> Hashable:
        """All alike."""
        return "reboot"

    def next_after(self, instant: Instant) -> Instant | None:
        """No calendar names it."""
        return None

    def last_before(self, instant: Instant) -> Instant | None:
        """No calendar names it."""
        return None


# --- JSON ----------------------------------------------------------------------------------------------------------


def schedule_from_json(data: Mapping[str, Any]) -> Schedule:
    """The schedule of which this is the JSON form. Raises `ScheduleError` for what is damaged or unknown."""
    try:
        return _from_json(data)
    except ScheduleError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ScheduleError(
            f"stored schedule {shown(data)} is damaged: {type(error).__name__} {shown(str(error))}"
        ) from None


def _from_json(data: Mapping[str, Any]) -> Schedule:
    match data["kind"]:
        case "every":
            return _every_from_json(data)
        case "once":
            return Once(cast(str, data["at"]), tz=data["tz"])
        case "reboot":
            return Reboot()
        case _:
            return _composed_from_json(data)


def _composed_from_json(data: Mapping[str, Any]) -> Schedule:
    from .algebra import Between, Difference, Union  # both build on this module
    from .cron import Cron

    match data["kind"]:
        case "cron":
            return Cron.from_json(data)
        case "union":
            return Union.of(*(_from_json(member) for member in data["members"]))
        case "difference":
            return Difference.of(_from_json(data["of"]), _from_json(data["without"]))
        case "between":
            return Between.of(_from_json(data["of"]), _when(data["start"]), _when(data["end"]))
        case unknown:
            raise ScheduleError(f"stored schedule {shown(data)}: kind {shown(unknown)} is not known to this version")


def _every_from_json(data: Mapping[str, Any]) -> Every:
    micros = data["micros"]
    if isinstance(micros, bool) or not isinstance(micros, int):
        raise TypeError("micros must be a whole number")
    every = object.__new__(Every)  # each of a million jobs may have its own
    every.__attrs_init__(_in_bounds(micros), data["after_completion"] is True)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    return every


def _when(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# --- jitter --------------------------------------------------------------------------------------------------------


def jitter_of(job_id: str, nominal: Instant, jitter: Micros, next_nominal: Instant | None) -> Micros:
    """How long after its nominal time this job runs: from 0 to `jitter`, always before the next nominal time.

    The same job and nominal give the same delay on every node and after every restart.
    """
    room = jitter if next_nominal is None else min(jitter, next_nominal - nominal - 1)
    if room <= 0:
        return 0
    digest = hashlib.blake2b(f"{nominal}:{job_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (room + 1)
