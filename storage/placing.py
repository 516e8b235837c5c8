"""Placing: executions that wait for the node selector get their targets, or are settled as `no_node`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import Factory, define

from ..model.execution import Execution, Kind, State
from ..model.instants import Instant
from .holding import Holding
from .protocol import Placed, Placement
from .settling import settle


class Placing(Holding):
    """`unplaced` and `place`, over the primitives."""

    def unplaced(self, now: Instant, limit: int) -> Sequence[Execution]:
        """What waits for the node selector."""
        with self.reading():
            return self.unplaced_rows(now, limit)

    def place(self, placements: Sequence[Placement], now: Instant) -> Placed:
        """Give targets, or settle as `no_node`. What is placed already is answered again."""
        if not placements:
            return Placed()
        with self.transaction():
            ids = {execution_id for placement in placements for _, execution_id in placement.targets}
            ids |= {placement.execution_id for placement in placements}
            placer = _Placer(now, self.executions_by_id(ids, lock=True))
            for placement in placements:
                placer.place(placement)
            self.update_executions(placer.changed)
            self.insert_executions(placer.added)
            self.release_held({row.job_id for row in placer.changed if row.job_id and row.finished}, now)
        return placer.answer


@define
class _Placer:
    """Takes the placements of one call one after another."""

    now: Instant
    rows: Mapping[str, Execution]
    changed: list[Execution] = Factory(list[Execution])
    added: list[Execution] = Factory(list[Execution])
    answer: Placed = Factory(Placed)

    def place(self, placement: Placement) -> None:
        """Place one execution that waits for it; anything else is passed over."""
        row = self.rows.get(placement.execution_id)
        if row is None:
            return
        if row.state is not State.PLACING:
            self._repeat(placement)
            return
        self.changed.append(row)
        if not placement.targets:
            self._no_node(row, placement.reason or "no node is alive")
            return
        # What has started before is one execution of one target already: it only moves.
        targets = placement.targets if row.first_started_at is None else placement.targets[:1]
        for index, (node_id, execution_id) in enumerate(targets):
            copy = row if index == 0 else _copy_for(row, execution_id)
            if index:
                self.added.append(copy)
            copy.target = node_id
            if node_id in placement.dead:
                self._no_node(copy, f"node {node_id} is not alive")
                continue
            copy.state = State.PENDING
            self.answer.executions.append((copy.id, node_id))

    def _repeat(self, placement: Placement) -> None:
        for node_id, execution_id in placement.targets:
            row = self.rows.get(execution_id)
            if row is not None and row.state is State.PENDING and row.target == node_id:
                self.answer.executions.append((execution_id, node_id))

    def _no_node(self, row: Execution, reason: str) -> None:
        self.answer.settled.append(settle(row, Kind.NO_NODE, reason, self.now))


def _copy_for(row: Execution, execution_id: str) -> Execution:
    return Execution(
        execution_id,
        row.work,
        row.cause,
        row.created_at,
        row.due_at,
        row.not_before,
        execution_id,
        State.PENDING,
        row.job_id,
        row.job_name,
        row.generation,
        row.nominal,
        start_by=row.start_by,
    )
