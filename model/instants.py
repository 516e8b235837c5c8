"""Instants: how the chain speaks of time inside.

An `Instant` is a whole number of microseconds since 1970-01-01T00:00:00Z. It is exact, compares and sorts as a plain
integer, and is what the stores keep, so nothing is lost on the way. Users see aware `datetime`s; this module is the
only bridge. It knows no clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeAlias

from .errors import InvalidArgument

Instant: TypeAlias = int
"""Microseconds since the Unix epoch, UTC."""

Micros: TypeAlias = int
"""A length of time in microseconds."""

MILLISECOND: Micros = 1_000
SECOND: Micros = 1_000_000
MINUTE: Micros = 60 * SECOND
HOUR: Micros = 60 * MINUTE
DAY: Micros = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

LAST: Instant = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The last whole second that a `datetime` can name: no schedule goes beyond it."""

_LONGEST: Micros = LAST
"""A longer time is as good as for ever, and the sum of an instant and this still fits into a database's integers."""


def to_instant(at: datetime, argument: str = "at") -> Instant:
    """The instant that an aware datetime names. Raises `InvalidArgument` for anything else."""
    if not isinstance(at, datetime):
        raise InvalidArgument(argument, at, "must be an aware datetime")
    if at.tzinfo is None or at.utcoffset() is None:
        raise InvalidArgument(argument, at, "must be an aware datetime; give it a tzinfo, e.g. datetime.timezone.utc")
    return (at - _EPOCH) // _MICROSECOND


def to_datetime(instant: Instant, tz: tzinfo = UTC) -> datetime:
    """The aware datetime (UTC by default) that an instant stands for."""
    at = _EPOCH + timedelta(microseconds=instant)
    return at if tz is UTC else at.astimezone(tz)


def to_micros(length: timedelta | float, argument: str = "duration") -> Micros:
    """A duration as users give it, a `timedelta` or seconds, in microseconds; one of millennia is cut short."""
    if isinstance(length, timedelta):
        return round(_bounded(length // _MICROSECOND))
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise InvalidArgument(argument, length, "must be a timedelta or a number of seconds")
    if length != length or length in (float("inf"), float("-inf")):
        raise InvalidArgument(argument, length, "must be a finite number of seconds")
    return round(_bounded(length * SECOND))


def to_timedelta(micros: Micros) -> timedelta:
    """A length in microseconds as a `timedelta`."""
    return timedelta(microseconds=micros)


def _bounded(micros: float) -> float:
    return max(-_LONGEST, min(micros, _LONGEST))
