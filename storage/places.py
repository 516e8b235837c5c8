"""Places: which executions are bound to a node for good, and which may move when it has gone.

What a run strategy bound to one node of several is placed anew, except where the strategy gave each node its own: such
a place is gone with its node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..model.execution import Execution, State
from ..model.job import JobRecord
from ..model.strategies import All
from .holding import Holding


def place_anew(row: Execution) -> None:
    """Let the node selector choose again."""
    row.target, row.state = "", State.PLACING


class Places(Holding):
    """What is asked about the places of executions."""

    def _own_places(self, rows: Iterable[Execution], jobs: Mapping[str, JobRecord]) -> set[str]:
        """Ids of the executions that their node alone may run."""
        return {row.id for row in rows if row.target and self._is_own_place(row, jobs.get(row.job_id or ""))}

    def _is_own_place(self, row: Execution, record: JobRecord | None) -> bool:
        if record is None:
            return row.job_id not in self.unreadable_jobs()
        if isinstance(record.job.run_on, All):
            return True
        # Its nominal time has executions for other targets as well.
        return row.nominal is not None and len(self.list_marks([record.id], row.nominal, row.nominal + 1)) > 1

    def alive_nodes(self, but: Collection[str] = ()) -> set[str]:
        """Ids of the nodes that are registered."""
        return {node.id for node in self.list_nodes()}.difference(but)
