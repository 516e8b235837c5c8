"""The lease: whether this node may still claim work, and whether other nodes are dead. Pure; monotonic time comes in.

No clocks are compared. A node trusts its own lease for as long as it has renewed it by its own clock. It takes another
one for dead when the store says that its lock is free, or when it has seen that one's heartbeat unchanged for a whole
lease of its own monotonic time, with no failed look and no gap over half of the lease in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from ..model.strategies import Node


class Lease:
    """This node's own lease. Written by the node keeper, read by the executor."""

    def __init__(self, length: float, renewed_at: float) -> None:
        self.length = length
        self._renewed_at = renewed_at

    def renew(self, at: float) -> None:
        """The store has taken the heartbeat that was sent at this time."""
        self._renewed_at = at

    def held(self, now: float) -> bool:
        """Whether it still runs."""
        return self.left(now) > 0

    def left(self, now: float) -> float:
        """For how many seconds it still runs."""
        return self._renewed_at + self.length - now


@define
class _Sighting:
    beat: int
    since: float


class Lookout:
    """Watches the heartbeats of other nodes."""

    def __init__(self, mine: str, lease: float) -> None:
        self._mine = mine
        self._lease = lease
        self._seen: dict[str, _Sighting] = {}
        self._looked_at: float | None = None

    def failed(self) -> None:
        """A look at the store failed: nobody's silence counts."""
        self._seen.clear()
        self._looked_at = None

    def observe(self, nodes: Sequence[Node], now: float) -> list[str]:
        """The ids of the nodes that are dead."""
        # Half, because those who look each third of a lease look a little later than that, each time. It is still safe:
        # a node that lives beats each third, so that not even both together make a whole lease.
        if self._looked_at is not None and now - self._looked_at > self._lease / 2:
            self._seen.clear()  # we ourselves were away
        self._looked_at = now
        known, self._seen = self._seen, {}
        return [node.id for node in nodes if node.id != self._mine and self._is_dead(node, known.get(node.id), now)]

    def _is_dead(self, node: Node, sighting: _Sighting | None, now: float) -> bool:
        if node.alive is False:
            return True
        if sighting is None or sighting.beat != node.beat:
            sighting = _Sighting(node.beat, now)
        self._seen[node.id] = sighting
        return now - sighting.since >= self._lease
