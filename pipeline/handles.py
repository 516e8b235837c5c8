"""The handle of an execution: what `enqueue` and `run_job` give. Asks the store; waits without polling where it can."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..model.errors import ExecutionFailed, ExecutionNotFound
from ..model.execution import Execution, State
from ..model.explanation import Explanation
from ..model.instants import SECOND, to_micros

if TYPE_CHECKING:
    from .execution_face import Executions


@frozen
class ExecutionHandle:
    """An execution by its id."""

    id: str
    created: bool
    """False: an unfinished execution with the same key existed, and this is that one."""
    _scheduler: Executions = field(repr=False, eq=False)

    async def fetch(self) -> Execution:
        """The execution as it stands. Raises `ExecutionNotFound` when retention has deleted it."""
        return await self._scheduler.get_execution(self.id)

    async def state(self) -> State:
        """Where it is."""
        return (await self.fetch()).state

    async def wait(self, timeout: timedelta | float | None = None) -> Execution:
        """Wait until it has ended, however. Raises `TimeoutError` after `timeout` (on the scheduler's clock)."""
        seconds = None if timeout is None else to_micros(timeout, "timeout") / SECOND
        return await self._scheduler.wait_for_execution(self.id, seconds)

    async def result(self, timeout: timedelta | float | None = None) -> Any:
        """Wait, then what the task returned. Raises `ExecutionFailed` when it ended without success."""
        execution = await self.wait(timeout)
        if execution.state is not State.SUCCEEDED:
            raise ExecutionFailed(self.id, execution.state.value, execution.error or execution.reason)
        return execution.value

    async def error(self, timeout: timedelta | float | None = None) -> str | None:
        """Wait, then the error it ended with, as text with its traceback; None when it succeeded."""
        execution = await self.wait(timeout)
        return None if execution.state is State.SUCCEEDED else execution.error or execution.reason

    async def explain(self) -> Explanation:
        """Why it ran, ran late or did not run; or what it waits for."""
        return await self._scheduler.explain_execution(self.id)

    async def cancel(self) -> bool:
        """Cancel it; False when it had ended already."""
        return bool(await self._scheduler.cancel_executions(ids=[self.id]))


def found(execution_id: str, execution: Execution | None) -> Execution:
    """The execution, or `ExecutionNotFound`."""
    if execution is None:
        raise ExecutionNotFound(execution_id)
    return execution
