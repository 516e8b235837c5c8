"""A schedule bound to a job: which instants it names, in integers.

`BoundSchedule` is what the rest of the package asks; `Bound` is what our own share, with what the algebra of schedules
needs beyond that. Pure: no clock, any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Literal, Protocol, TypeAlias

from .calendar import LIMIT
from .instants import SECOND, Instant, Micros

Driver: TypeAlias = Literal["time", "completion", "reboot"]
"""What names the next time: the calendar, the end of the last execution, or the start of a node."""

END: Instant = LIMIT * SECOND
"""No schedule names a time from here on."""


class BoundSchedule(Protocol):
    """A schedule bound to a job: which instants it names. Pure; any thread."""

    @property
    def driven_by(self) -> Driver:
        """What names the next time; only schedules driven by `time` can be enumerated."""
        ...

    @property
    def interval(self) -> Micros | None:
        """The pause after each execution, of a completion-driven schedule; None for others."""
        ...

    @property
    def has_exclusions(self) -> bool:
        """Whether `times` may name instants that are not to run."""
        ...

    @property
    def shares_with(self) -> Hashable:
        """Bound schedules with equal values here name the same times."""
        ...

    def next_after(self, instant: Instant) -> Instant | None:
        """The first time to run strictly later than `instant`; None when there is none.

        A completion-driven schedule takes `instant` for the end of the last execution.
        """
        ...

    def last_before(self, instant: Instant) -> Instant | None:
        """The last time to run strictly earlier than `instant`; arithmetic, not a walk."""
        ...

    def times(self, start: Instant, end: Instant) -> Iterator[Instant]:
        """All nominal times in `[start, end)` in order, the excluded ones too, each found when it is asked for."""
        ...

    def count(self, start: Instant, end: Instant, limit: int | None = None) -> int:
        """How many nominal times lie in `[start, end)`; no more than `limit` are counted."""
        ...

    def is_excluded(self, instant: Instant) -> bool:
        """Whether this nominal time is one that is not to run."""
        ...


class Bound(ABC):
    """What our bound schedules share: driven by time, enumerated step by step, nothing excluded."""

    __slots__ = ()

    @property
    def driven_by(self) -> Driver:
        """The calendar."""
        return "time"

    @property
    def interval(self) -> Micros | None:
        """None: no completion is waited for."""
        return None

    @property
    def has_exclusions(self) -> bool:
        """None."""
        return False

    @property
    @abstractmethod
    def shares_with(self) -> Hashable:
        """What it takes to name the same times."""

    @abstractmethod
    def next_after(self, instant: Instant) -> Instant | None:
        """The step itself."""

    @abstractmethod
    def last_before(self, instant: Instant) -> Instant | None:
        """The step back."""

    def times(self, start: Instant, end: Instant) -> Iterator[Instant]:
        """One step after the other."""
        at = self.next_after(start - 1)
        while at is not None and at < end:
            yield at
            at = self.next_after(at)

    def count(self, start: Instant, end: Instant, limit: int | None = None) -> int:
        """Counted one by one."""
        return sum(1 for _ in islice(self.times(start, end), limit))

    def is_excluded(self, instant: Instant) -> bool:
        """Never."""
        return False

    # What the algebra asks of its parts.

    def runs_at(self, instant: Instant) -> bool:
        """Whether it is to run at exactly this instant."""
        return self.next_after(instant - 1) == instant

    def parts(self) -> tuple[Bound, ...]:
        """The schedules from which it takes all its times."""
        return (self,)

    def covers(self, instant: Instant) -> bool:
        """Whether it, as an exclusion, takes away this time of another's: here, if it names exactly that."""
        return self.runs_at(instant)

    def covered_until(self, instant: Instant, base: Bound) -> Instant:
        """For a covered instant: an end of the stretch from there on in which no time of `base` is left."""
        return instant + 1

    def covered_since(self, instant: Instant, base: Bound) -> Instant:
        """For a covered instant: a start of the stretch up to there in which no time of `base` is left."""
        return instant
