"""What a task may say instead of giving a result: call me again later, or forget about it.

Returned or raised, from the task itself or from deep inside it. Neither is a failure, and neither uses up a try.
"""

from __future__ import annotations

from datetime import timedelta

from .errors import InvalidArgument
from .instants import DAY, Micros, to_micros, to_timedelta

LONGEST_SNOOZE: Micros = 100 * 365 * DAY
"""About a century: what is later than that is a mistake in somebody's arithmetic."""


class Snooze(Exception):
    """Run this execution again after `delay`, as the same try.

    return Snooze(timedelta(minutes=5))
    """

    def __init__(self, delay: timedelta | float) -> None:
        self._micros = to_micros(delay, "delay")
        if not 0 <= self._micros <= LONGEST_SNOOZE:
            raise InvalidArgument("delay", delay, "must be a length of time from nothing to a hundred years")
        super().__init__(f"snooze for {to_timedelta(self._micros)}")

    @property
    def micros(self) -> Micros:
        """The delay in microseconds."""
        return self._micros

    @property
    def delay(self) -> timedelta:
        """How long it wants to wait."""
        return to_timedelta(self._micros)


class Cancel(Exception):
    """End this execution as cancelled, for the reason given.

    raise Cancel("the customer has left")
    """

    def __init__(self, reason: str = "cancelled by the task") -> None:
        if not isinstance(reason, str):
            raise InvalidArgument("reason", reason, "must be a string")
        super().__init__(reason)
        self._reason = reason

    @property
    def reason(self) -> str:
        """Why."""
        return self._reason
