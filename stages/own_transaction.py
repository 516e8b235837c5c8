"""Effects exactly once: a task that ends its execution inside a database transaction of its own.

    with current_execution().transaction(connection) as finish:
        connection.execute("UPDATE accounts SET paid = 1 WHERE id = ?", (7,))
        finish.result = {"paid": 7}

What the store would record when the task returns is recorded in the transaction in which the task has its effect, with
the same fence: both commit, or neither does. From then on the execution has ended, whatever the task does afterwards.
Knows the store by what it can do on somebody's connection (`storage/joining.py`); knows neither the pool nor the lane.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from ..model.clock import Clock
from ..model.errors import LeaseLost
from ..model.execution import Ending, Outcome
from ..model.payload import encode
from ..storage.joining import Joined, in_thread, is_awaited, joining
from ..storage.protocol import Finished

if TYPE_CHECKING:
    from .running import Run

log = logging.getLogger("clepsydra.pool")


@define
class Finish:
    """How the execution will end when the block commits: successfully, with this result."""

    result: Any = None
    """Any JSON value. What the task returns afterwards is not kept."""


@frozen
class FinishDesk:
    """What the runs of one node need for that."""

    storage: object
    clock: Clock
    node: str
    tell: Callable[[str, Finished], object]
    """Called with the execution's id when it has ended so, in whichever thread."""

    def transaction(
        self, run: Run, connection: object
    ) -> AbstractContextManager[Finish] | AbstractAsyncContextManager[Finish]:
        """The block; see `Run.transaction`."""
        block = _FinishingBlock(self, run, connection)
        return _AwaitedBlock(block) if is_awaited(connection) else block


class _FinishingBlock(AbstractContextManager[Finish]):
    """For connections whose methods block."""

    def __init__(self, desk: FinishDesk, run: Run, connection: object) -> None:
        self._desk, self._run = desk, run
        self._joined: Joined = joining(desk.storage).on_connection(connection)
        self._finish = Finish()

    def __enter__(self) -> Finish:
        if self._run.finish is not None:
            raise LeaseLost(self._run.id, "it has finished already, in an earlier transaction of this task")
        if self._run.conclusion is not None:
            raise LeaseLost(self._run.id, "its task has ended, and hooks come after that")
        if self._run.over:
            raise LeaseLost(self._run.id, "this attempt was given up on, its time was over")
        self._joined.begin()
        return self._finish

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._undo()
            return
        try:
            outcome = self._outcome()
            finished = self._joined.finish_running(outcome, outcome.at)
            if finished is None:
                raise LeaseLost(self._run.id, "it was cancelled, or given to another attempt, meanwhile")
            self._run.finishing = True
            self._joined.commit()
        except BaseException:
            # Also when nobody knows whether it was committed: the store knows, and refuses what is reported later.
            self._run.finishing = False
            self._undo()
            raise
        self._run.finish = outcome
        self._desk.tell(self._run.id, finished)

    def _outcome(self) -> Outcome:
        result = None if self._finish.result is None else encode(self._finish.result, "result")
        claim = self._run.claim
        return Outcome(
            claim.execution_id, claim.attempt_id, self._desk.node, Ending.SUCCEEDED, self._desk.clock.now(), result
        )

    def _undo(self) -> None:
        try:
            self._joined.roll_back()
        except Exception as error:  # what is on its way out says more
            log.warning("the transaction of %r could not be rolled back: %s", self._run, error)


@frozen
class _AwaitedBlock(AbstractAsyncContextManager[Finish]):
    """For those whose methods are awaited."""

    block: _FinishingBlock

    async def __aenter__(self) -> Finish:
        return await in_thread(self.block.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await in_thread(partial(self.block.__exit__, kind, error, trace))
