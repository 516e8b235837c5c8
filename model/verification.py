"""What an audit of a store comes to: findings, each with the law that does not hold, and how much was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from attrs import frozen

LAWS: Final[Mapping[int, str]] = {
    1: "one verdict",
    2: "one fire",
    3: "fenced outcomes",
    4: "one claim",
    10: "the host survives",
}
"""The laws that a store can be seen to keep or to break, by number; `docs/explanation/invariants.md` tells of them."""


@frozen
class Finding:
    """One thing in a store that should not be."""

    law: int
    what: str
    """What is wrong, in words."""
    job: str | None = None
    job_id: str | None = None
    nominal: datetime | None = None
    execution_id: str | None = None

    def __str__(self) -> str:
        where = [
            *((f"job {self.job!r}",) if self.job else ()),
            *((self.nominal.isoformat(),) if self.nominal else ()),
            *((f"execution {self.execution_id}",) if self.execution_id else ()),
        ]
        return f"law {self.law}, {LAWS[self.law]}: {', '.join(where)}: {self.what}"


@frozen
class Verification:
    """The report of `verify()`."""

    findings: Sequence[Finding]
    """In the order in which they were found: jobs first, then executions."""
    more: int
    """How many were found beyond those kept here."""
    jobs: int
    """Looked at, those that were removed and are remembered included."""
    executions: int
    """Looked at, each with its attempts."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        looked_at = f"{_many(self.jobs, 'job')} and {_many(self.executions, 'execution')} looked at"
        if self.ok:
            return f"every law holds: {looked_at}"
        found = len(self.findings) + self.more
        lines = [f"{_many(found, 'finding')}, {looked_at}", *map(str, self.findings)]
        return "\n".join([*lines, f"and {self.more} more"] if self.more else lines)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
