"""The ledger: all of a store's promises, kept over the primitives of `tables.py`.

An adapter that gives the primitives and inherits from `Ledger` has the whole `Storage` protocol, with the same rules as
every other adapter. What is left to it is opening, closing and being interrupted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from attrs import evolve

from ..model.filters import EVERY_JOB, Order
from ..model.instants import Instant
from ..model.strategies import Node
from .auditing import Auditing
from .cancelling import Cancelling
from .enqueueing import Enqueueing
from .finishing import Finishing
from .firing import Firing
from .job_ledger import JobLedger
from .placing import Placing
from .protocol import Changes, Quarantined
from .reading import Reading
from .rescuing import Rescuing
from .retention import Retention
from .starting import Starting


class ExecutionLedger(
    Firing, Enqueueing, Placing, Starting, Finishing, Cancelling, Rescuing, Reading, Retention, Auditing
):
    """`ExecutionStorage` over the primitives, one module for each thing that befalls an execution."""


class Ledger(JobLedger, ExecutionLedger):
    """A `Storage` on table primitives."""

    _node: Node | None = None

    @abstractmethod
    def open(self, node: Node, now: Instant) -> None:
        """Prepare, migrate, register the node; remember it in `_node`."""

    @abstractmethod
    def close(self) -> None:
        """Unregister the node and let go of everything. Idempotent."""

    @abstractmethod
    def interrupt(self) -> None:
        """Discard the connection of a call that was given up on."""

    def heartbeat_node(self, node_id: str, now: Instant) -> Sequence[Node]:
        """Count the node's beat up, and give all nodes."""
        with self.transaction():
            known = {node.id: node for node in self.list_nodes()}
            mine = known.get(node_id)
            if mine is None and self._node is not None and self._node.id == node_id:
                mine = self._node  # rescued by mistake: we are alive, and say so under a beat of our own
            if mine is not None:
                self.save_node(evolve(mine, beat=mine.beat + 1))
            return self.list_nodes()

    def nodes(self) -> Sequence[Node]:
        """All nodes."""
        with self.reading():
            return self.list_nodes()

    def changes(self, since: int) -> Changes:
        """Jobs and cancel requests after a revision."""
        with self.reading():
            revision = self.last_revision()
            if revision == since:
                return Changes(revision)
            jobs, _ = self.select_jobs(EVERY_JOB, Order.ID, None, None, after_revision=since)
            removed, complete = self.removed_since(since)
            return Changes(revision, jobs, removed, self.cancelled_since(since), complete)

    def take_quarantined(self) -> Sequence[Quarantined]:
        """Rows put aside since the last call."""
        taken: list[Quarantined] = []
        while self._quarantined:
            taken.append(self._quarantined.popleft())  # a reader beside us may add one meanwhile
        return taken
