"""The board between executor and execution broadcaster: who has room, and where work is waiting.

Demand flows against the events. The executor writes how many slots of each queue it could fill; the execution
broadcaster reads that, less what it has sent and nobody has dealt with yet: its credit. Levels, never increments: a
level that is read late or twice does no harm. The other way round everybody who puts work into the store leaves a hint
here.

All of it is bounded by the number of queues, or of jobs that ask to be watched. Both ends are nudged through their
channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..model.execution import Kind
from ..model.instants import Instant
from ..storage.protocol import Finished, Settlement


class Demand:
    """Free slots and waiting work, per queue. Used on the event loop only."""

    def __init__(self) -> None:
        self.open = False
        """Whether anything may be claimed at all; False before the executor is there and while draining."""
        self.wanted: dict[str, Instant] = {}
        """Hints: stored work of a queue is ready at this instant, or was."""
        self.unknown_work = False
        """There may be work in the store, of queues that nobody can name."""
        self.promised: dict[str, int] = {}
        """Transactions of callers that have put work into the store, by mark, and may not have ended: each with the
        number of its last promise.
        """
        self.placing: set[str] = set()
        """Stored executions that the node selector has been asked to place."""
        self.dry: set[str] = set()
        """Queues that had less ready work than there was room for."""
        self.drawn: set[str] = set()
        """Queues with more ready work than there was room for: the executor asks for it by itself, which saves the way
        up and down. Unless one of their jobs is due as well: then the execution broadcaster has to choose.
        """
        self.hot = False
        """Whether the execution broadcaster knows of ready work in the store: it answers at once when there is room."""
        self.overdue: set[str] = set()
        """Queues in which jobs are due that have had no credit yet."""
        self.watched: set[str] = set()
        """Jobs whose next run depends on the end of the present one."""
        self.ended: dict[str, Instant] = {}
        """When executions of watched jobs have ended."""
        self.incarnation = 0
        self._free: dict[str, int] = {}
        self._default = 0
        self._total: int | None = None
        self._under_way: dict[str, int] = {}
        self._promises = 0

    # ---- the executor writes

    def restarted(self) -> None:
        """A new executor: whatever was on its way to the old one is lost, and waits in the store."""
        self.incarnation += 1
        self.drawn.clear()
        self._under_way.clear()
        self.placing.clear()

    def publish(self, free: dict[str, int], default: int, total: int | None) -> bool:
        """The slots to fill now: of queues in use, of any other queue, and of all together (None: no limit).

        True when there is something for the execution broadcaster to act on: credit, hints, or ends.
        """
        before = self._free
        self._free, self._default, self._total = free, default, total
        if self.wanted or self.dry or self.ended or self.unknown_work or not free:
            return True
        # A queue that was in use and is not any more has come free, too.
        return any(self.credit(queue) for queue in {**before, **free})

    def settle(self, queue: str, count: int = 1) -> None:
        """So many of the sent ones have been dealt with: started, settled, placed elsewhere, refused."""
        self._under_way[queue] = max(0, self._under_way.get(queue, 0) - count)

    def under_way(self, queue: str) -> int:
        """How many of the sent ones have not been dealt with."""
        return self._under_way.get(queue, 0)

    def note_ended(self, job_id: str, at: Instant) -> None:
        """An execution of the job has ended."""
        if job_id in self.watched:
            self.ended[job_id] = max(at, self.ended.get(job_id, at))

    # ---- anybody writes

    def note_finished(self, finished: Finished, now: Instant) -> None:
        """Outcomes are recorded: their jobs may go on, and what they held back is ready."""
        for queue, at in finished.follows.items():
            self.want(queue, at)
        for queue in finished.ready:
            self.want(queue, now)
        for job_id, at in finished.ended if self.watched else ():
            self.note_ended(job_id, at)

    def note_settled(self, settlements: Iterable[Settlement], now: Instant) -> None:
        """Executions have ended without running: their jobs may go on, and what they held back may be ready."""
        for settlement in settlements:
            if settlement.job_id is not None:
                self.note_ended(settlement.job_id, now)
                if settlement.kind is not Kind.OVERLAP_SKIPPED:  # whom that was skipped for is still running
                    self.want(settlement.queue, now)

    def note_placed(self, execution_ids: Collection[str]) -> None:
        """The node selector has placed these, or settled them; there may be more to place."""
        self.placing.difference_update(execution_ids)
        self.unknown_work = self.unknown_work or bool(execution_ids)

    def promise(self, mark: str) -> None:
        """There will be work in the store if this transaction commits."""
        self._promises += 1
        self.promised[mark] = self._promises
        self.unknown_work = True

    def want(self, queue: str, at: Instant) -> None:
        """There is work of this queue in the store, ready at that instant."""
        known = self.wanted.get(queue)
        if known is None or at < known:
            self.wanted[queue] = at

    # ---- the execution broadcaster reads

    def credit(self, queue: str) -> int:
        """How many more of this queue may be sent."""
        if not self.open:
            return 0
        credit = self._free.get(queue, self._default) - self._under_way.get(queue, 0)
        if self._total is not None:
            credit = min(credit, self._total - sum(self._under_way.values()))
        return max(0, credit)

    def note_overdue(self, queues: Collection[str]) -> None:
        """In these queues jobs are due, and in no others."""
        self.overdue = set(queues)
        self.drawn -= self.overdue

    def sent(self, queue: str, count: int = 1) -> None:
        """So many are on their way."""
        self._under_way[queue] = self._under_way.get(queue, 0) + count

    def drop_promises(self, ended: Mapping[str, int]) -> None:
        """These transactions have ended, unless more was promised meanwhile: a mark may serve one after another."""
        for mark, promise in ended.items():
            if self.promised.get(mark) == promise:
                del self.promised[mark]

    def take_ended(self) -> dict[str, Instant]:
        """The ends noted since the last time."""
        if not self.ended:
            return {}
        taken, self.ended = self.ended, {}
        return taken
