"""The instants that a cron expression names in a zone, and what a change of the clocks makes of them.

One rule says all about DST changes: the instants named are those whose wall time matches, less the pass of a fold that
is dropped, plus the first instant after a gap in which a matching wall time was lost. So times strictly increase, and
looking back is the mirror of looking forward. Both step from piece to piece of constant UTC offset (`calendar.py`) and
ask the tables (`cron_tables.py`) within each.

Left to itself, a *wildcard* expression (second, minute or hour begins with `*` or is `H/n`) keeps the beat of real
time: nothing in the gap, both passes of the fold. A *fixed-time* one runs once for each wall time: in the fold at the
first pass, in the gap at the first instant after it. `gap=` and `fold=` say otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, Literal, TypeAlias

from .bound import Bound
from .calendar import DAY_SECONDS, FIRST_PASS, LIMIT, NEITHER, SECOND_PASS, Transition, Zone, local_datetime
from .cron_tables import Rule
from .instants import SECOND, Instant

Gap: TypeAlias = Literal["after", "skip"]
Fold: TypeAlias = Literal["first", "second", "both"]

_DROPPED: Final[Mapping[Fold, int]] = {"first": SECOND_PASS, "second": FIRST_PASS, "both": NEITHER}
_FAR: Final = 2 * DAY_SECONDS  # longer than any gap or fold


class BoundCron(Bound):
    """The instants that an expression names in a zone. Whole seconds inside, microseconds outside. Shared."""

    __slots__ = ("_dropped", "_gap_runs", "_rule", "_shares_with", "_zone")

    def __init__(self, rule: Rule, there: Zone, gap: Gap, fold: Fold, expr: str) -> None:
        self._rule = rule
        self._zone = there
        self._gap_runs = gap == "after"
        self._dropped = _DROPPED[fold]
        self._shares_with = ("cron", expr, there.name, gap, fold)

    @property
    def shares_with(self) -> Hashable:
        """What was written, `H` resolved: not the job and not its anchor."""
        return self._shares_with

    def next_after(self, instant: Instant) -> Instant | None:
        """One look into the tables, unless a change of the offset lies between."""
        first = instant // SECOND + 1
        start, end, offset, which, _ = self._zone.current
        # At the very start of a piece a gap may have to be made good: that is for the long way.
        if start < first < end and which != self._dropped:
            local = self._rule.at_or_after(first + offset)
            if local is not None and local - offset < end:
                return (local - offset) * SECOND
        found = self._from(max(first, 0))
        return None if found is None else found * SECOND

    def _from(self, first: int) -> int | None:
        """The first named second from `first` on, piece by piece."""
        rule = self._rule
        while first < LIMIT:
            start, end, offset, which, gap = self._zone.piece_at(first)
            if gap and first == start and self._made_good(start + offset, gap):
                return start
            local = None if which == self._dropped else rule.at_or_after(first + offset)
            if local is not None and local - offset < end:
                return local - offset
            # In a first pass what was passed may come again, so nothing may be left out; nor may a dropped pass tell.
            ahead = rule.at_or_after(first + offset) if which != FIRST_PASS else first + offset
            if ahead is None:
                return None
            first = max(end, ahead - offset - _FAR)
        return None

    def last_before(self, instant: Instant) -> Instant | None:
        """The mirror of `next_after`."""
        last = (instant - 1) // SECOND
        start, end, offset, which, _ = self._zone.current
        if start <= last < end and which != self._dropped:
            local = self._rule.at_or_before(last + offset)
            if local is not None and local - offset >= start:
                return (local - offset) * SECOND
        found = self._until(min(last, LIMIT - 1))
        return None if found is None else found * SECOND

    def _until(self, last: int) -> int | None:
        """The last named second up to `last`, piece by piece."""
        rule = self._rule
        while last >= 0:
            start, _, offset, which, gap = self._zone.piece_at(last)
            local = None if which == self._dropped else rule.at_or_before(last + offset)
            if local is not None and local - offset >= start:
                return local - offset
            if gap and self._made_good(start + offset, gap):
                return start
            back = rule.at_or_before(last + offset) if which != SECOND_PASS else last + offset
            if back is None:
                return None
            last = min(start - 1, back - offset + _FAR)
        return None

    def _made_good(self, local: int, gap: int) -> bool:
        """Whether the gap that ends at `local` swallowed a time that runs right after it."""
        if not self._gap_runs:
            return False
        lost = self._rule.at_or_after(local - gap)
        return lost is not None and lost < local

    def covers(self, instant: Instant) -> bool:
        """Whether it names the minute, or the second, in which the instant lies."""
        second = self._unit_of(instant)
        return self.next_after(second * SECOND - 1) == second * SECOND

    def _unit_of(self, instant: Instant) -> int:
        second = instant // SECOND
        offset = self._zone.piece_at(max(second, 0))[2]
        return second - (second + offset) % self._rule.unit

    def covered_until(self, instant: Instant, base: Bound) -> Instant:
        """The end of the run of named minutes or seconds, no further than the next change of the offset."""
        second = self._unit_of(instant)
        _, end, offset, _, _ = self._zone.piece_at(max(second, 0))
        if self._rule.at_or_after(second + offset) != second + offset:  # it makes a gap good
            return (second + self._rule.unit) * SECOND
        return min(self._rule.named_until(second + offset, self._names_every_minute_of(base)) - offset, end) * SECOND

    def covered_since(self, instant: Instant, base: Bound) -> Instant:
        """The start of the run of named minutes or seconds, no further back than the last change of the offset."""
        second = self._unit_of(instant)
        start, _, offset, _, _ = self._zone.piece_at(max(second, 0))
        if self._rule.at_or_after(second + offset) != second + offset:  # it makes a gap good
            return second * SECOND
        return max(self._rule.named_since(second + offset, self._names_every_minute_of(base)) - offset, start) * SECOND

    def _names_every_minute_of(self, base: Bound) -> bool:
        """Whether in each hour that it names it leaves nothing of the base, which then need not be walked through."""
        return all(
            # By name: of a zone that was evicted from its cache there may be two.
            isinstance(part, BoundCron)
            and part._zone.name == self._zone.name
            and self._rule.leaves_nothing_of(part._rule)
            for part in base.parts()
        )

    def touched_by(self, transition: Transition) -> str | None:
        """How a change of the offset touches it, in words."""
        before, after = (
            transition.at // SECOND + offset for offset in (transition.offset_before, transition.offset_after)
        )
        first = self._rule.at_or_after(min(before, after))
        if first is None or first >= max(before, after):
            return None
        following = self._rule.at_or_after(first + 1)
        several = following is not None and following < max(before, after)
        when = f"{_wall(first)} and more" if several else _wall(first)
        day = f"{local_datetime(first):%Y-%m-%d}"
        if after < before:
            return f"{when} {'come' if several else 'comes'} twice on {day}; {self._runs_in_fold()}"
        return f"{when} {'do' if several else 'does'} not exist on {day}; {self._runs_after_gap(first, after, several)}"

    def _runs_in_fold(self) -> str:
        return {SECOND_PASS: "runs the first time", FIRST_PASS: "runs the second time"}.get(
            self._dropped, "runs both times"
        )

    def _runs_after_gap(self, lost: int, after: int, several: bool) -> str:
        if not self._gap_runs:
            return "left out"
        another_day = "" if lost // DAY_SECONDS == after // DAY_SECONDS else f" on {local_datetime(after):%Y-%m-%d}"
        return f"runs {'once ' if several else ''}at {_wall(after)}{another_day}"


def _wall(local: int) -> str:
    at = local_datetime(local)
    return f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"
