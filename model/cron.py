"""Cron schedules: an expression in a zone. The only module that touches croniter.

`Cron` is the value that users write. `cron_fields.py` checks its text field by field, croniter expands the fields here,
`cron_tables.py` makes tables of them, and bound to a job it is a `BoundCron` (`cron_times.py`), which steps over those
and over the changes of the clocks. Crons that say the same share all of it, so that a million jobs may hold one each.

croniter stands between guards, because some of what it accepts it reads in a way nobody means: `5-5` as every minute,
`*/90` as hourly, `#` beside a day of the month as AND. What it would misread is refused or rewritten before it sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from attrs import Factory, field, frozen
from croniter import CroniterError, croniter

from .bound import BoundSchedule, Driver
from .calendar import Transition, zone, zone_name
from .cron_fields import (
    DAY,
    HOUR,
    KINDS,
    MINUTE,
    MONTH,
    REBOOT,
    SECOND,
    WEEKDAY,
    YEAR,
    Fields,
    Kind,
    fields_of,
    is_wildcard,
    needs_name,
    normalized,
    resolved,
    spelled,
    split_field,
    unrestricted,
    widest,
)
from .cron_tables import DaySet, Rule, days_named, seconds_of_hour
from .cron_times import BoundCron, Fold, Gap
from .describe import cron_in_words
from .errors import ScheduleError, shown
from .instants import Instant
from .schedule import BoundReboot, Schedule

DIALECT: Final = "clepsydra-1"
"""Stored with each expression, so that a later reading of cron cannot change what an old job means."""

_GAPS: Final = ("after", "skip")
_FOLDS: Final = ("first", "second", "both")


def _gap(given: Gap | None) -> Gap | None:
    if given is not None and given not in _GAPS:
        raise ScheduleError(f"gap={shown(given)}: must be 'after', 'skip' or None")
    return given


def _fold(given: Fold | None) -> Fold | None:
    if given is not None and given not in _FOLDS:
        raise ScheduleError(f"fold={shown(given)}: must be 'first', 'second', 'both' or None")
    return given


@frozen(weakref_slot=False)
class Cron(Schedule):
    """A cron expression in a time zone: 5 fields, 6 with seconds first, 7 with the year last, or an `@word`.

    `H` draws a value from the job's name. `@reboot` is the same as `Reboot()`. What a DST change does is decided by
    `gap` ("after" or "skip") and `fold` ("first", "second" or "both"); None leaves it to the expression.

    >>> from datetime import UTC, datetime
    >>> [str(at) for at in Cron("30 9 * * MON", tz="Europe/Zurich").upcoming(1, after=datetime(2027, 1, 1, tzinfo=UTC))]
    ['2027-01-04 09:30:00+01:00']
    """

    expr: str = field(converter=normalized)
    tz: str = field(default="UTC", converter=zone_name)
    gap: Gap | None = field(default=None, converter=_gap)
    fold: Fold | None = field(default=None, converter=_fold)
    # Shared with all crons that say the same; None where it takes a job's name to know.
    _bound: BoundSchedule | None = field(
        init=False, eq=False, repr=False, default=Factory(lambda self: _bound_of(self), takes_self=True)
    )

    @property
    def driven_by(self) -> Driver:
        """Time, but for `@reboot`."""
        return "reboot" if self.expr == REBOOT else "time"

    @property
    def tz_name(self) -> str | None:
        """Its zone."""
        return self.tz

    def bind(self, job_id: str, name: str, anchor: Instant) -> BoundSchedule:
        """The same for every job, unless `H` asks for the job's name."""
        if self._bound is not None:
            return self._bound
        fields = fields_of(self.expr)
        return _bound(resolved(fields, name), self.tz, *_policies(fields, self.gap, self.fold))

    def describe(self) -> str:
        """In words, with the zone."""
        if self.expr == REBOOT:
            return "at each start of the scheduler"
        return f"{cron_in_words(fields_of(self.expr))}, {self.tz} time"

    def touched_by(self, transition: Transition, name: str = "") -> str | None:
        """How a change of the zone's offset touches it, in words; None if it does not."""
        bound = self.bind("", name, 0)
        return bound.touched_by(transition) if isinstance(bound, BoundCron) else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; the dialect says by which rules the expression is read."""
        where = {"tz": self.tz, "gap": self.gap, "fold": self.fold}
        return {"kind": "cron", "expr": self.expr, **where, "dialect": DIALECT}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cron:
        """From the JSON form; a dialect of another version is refused rather than read wrongly."""
        if data["dialect"] != DIALECT:
            raise ScheduleError(
                f"stored cron {shown(data['expr'])}: dialect {shown(data['dialect'])} is not known here"
            )
        return cls(data["expr"], data["tz"], data["gap"], data["fold"])


def _bound_of(cron: Cron) -> BoundSchedule | None:
    return _bound_without_name(cron.expr, cron.tz, cron.gap, cron.fold)


@lru_cache(maxsize=4096)
def _bound_without_name(expr: str, tz: str, gap: Gap | None, fold: Fold | None) -> BoundSchedule | None:
    if expr == REBOOT:
        return BoundReboot()
    fields = fields_of(expr)
    if needs_name(fields):
        rule_of(widest(fields))  # refused here if no name at all could make it run
        return None
    return _bound(fields, tz, *_policies(fields, gap, fold))


def _policies(fields: Fields, gap: Gap | None, fold: Fold | None) -> tuple[Gap, Fold]:
    """What was asked for, or what suits the expression."""
    wildcard = is_wildcard(fields)
    return gap or ("skip" if wildcard else "after"), fold or ("both" if wildcard else "first")


@lru_cache(maxsize=4096)
def _bound(fields: Fields, tz: str, gap: Gap, fold: Fold) -> BoundCron:
    return BoundCron(rule_of(fields), zone(tz), gap, fold, spelled(fields))


# --- croniter between our guards -----------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def rule_of(fields: Fields) -> Rule:
    """The tables for fields without `H`."""
    split = [split_field(index, text) for index, text in enumerate(fields)]
    values = _expanded(fields, [plain for plain, _ in split])
    days = None if unrestricted(fields[DAY]) else DaySet(values[DAY], split[DAY][1])
    weekdays = None if unrestricted(fields[WEEKDAY]) else DaySet(values[WEEKDAY], split[WEEKDAY][1])
    years = None if unrestricted(fields[YEAR]) else values[YEAR]
    rule = Rule(
        in_hour=seconds_of_hour(values[SECOND], values[MINUTE]),
        hours=values[HOUR],
        days=days_named(days, weekdays, values[MONTH], years),
        unit=60 if fields[SECOND] == "0" else 1,
    )
    if not rule.days.possible:
        where = "in the years given" if years else "in any year"
        raise ScheduleError(
            f"cron {shown(spelled(fields))}: names a day that does not exist {where}; it would never run"
        )
    return rule


def _expanded(fields: Fields, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Each field's values as croniter expands them, in our order; () where nothing is left for it to read."""
    # croniter reads the second as the sixth field and the year as the seventh; what it need not read costs time.
    order = (MINUTE, HOUR, DAY, MONTH, WEEKDAY, SECOND, YEAR)
    shown_to_it = order if fields[YEAR] != "*" else order[:6] if fields[SECOND] != "0" else order[:5]
    try:
        expanded, _ = croniter.expand(" ".join(texts[index] or "*" for index in shown_to_it).lower())
    except CroniterError as error:  # our grammar should have refused it
        raise ScheduleError(f"cron {shown(spelled(fields))}: croniter cannot read it: {shown(str(error))}") from None
    values: list[tuple[int, ...]] = [(0,), (), (), (), (), (), ()]
    for index, found in zip(shown_to_it, expanded, strict=True):
        values[index] = _numbers(KINDS[index], found) if texts[index] else ()
    return values


def _numbers(kind: Kind, values: Sequence[int | str]) -> tuple[int, ...]:
    if "*" in values:
        return kind.values
    return tuple(sorted([value for value in values if isinstance(value, int)]))
