"""The face's part about executions: enqueueing, waiting, listing, cancelling, trying again, deleting."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Unpack, cast, overload

from anyio.lowlevel import checkpoint

from ..model import events
from ..model.clock import Clock
from ..model.errors import InvalidArgument, StoreBusy
from ..model.execution import Attempt, Execution, Kind, State
from ..model.filters import EVERY_EXECUTION, ExecutionFilter, Order
from ..model.ids import IdMaker
from ..model.policies import count_of, one_of
from ..model.task import Call, Task
from ..storage.call_queue import OneOfMany
from ..storage.joining import AsyncConnection, Connection, is_awaited
from ..storage.lane import Companion
from ..storage.protocol import AddResult, Cancelled, Claim, NewExecution, Page, Storage
from .answers import Answers
from .callers import Callers
from .entered import BATCH, LONGEST_PAGE, in_turns
from .handles import ExecutionHandle, found
from .options import EnqueueOptions, check_options, new_executions
from .runtime import Runtime

_POLL = 1.0


class Executions(Answers):
    """Commands and questions about executions."""

    _callers: Callers

    @overload
    async def enqueue(self, call: Call, /, **options: Unpack[EnqueueOptions]) -> ExecutionHandle: ...
    @overload
    async def enqueue(
        self, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> Sequence[ExecutionHandle]: ...
    async def enqueue(
        self, call: Call | Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> ExecutionHandle | Sequence[ExecutionHandle]:
        """Run a call once: now, `after` a delay, or `at` a time. Durable when this returns. One call, or many in order.

        `key` is unique among the task's unfinished executions: with `on_conflict="keep"` the handle is that of the one
        that has it (`handle.created` says), `"replace"` gives that one this call if it has not started, `"raise"`
        raises `DuplicateKey`. The options are those of `EnqueueOptions`.
        """
        runtime = self._accepting()
        items = await in_turns(self._checked_executions("enqueue", call, options, self._make_id))
        try:
            handles = await self._add(runtime, items)
        except BaseException:
            runtime.chain.look_into_store()  # some of it may be there
            raise
        for item in items[-1:]:
            if not runtime.chain.pool.knows(item.id):  # else they have started, one after another
                runtime.chain.work_added(item.work.queue, item.due_at, {each.work.task for each in items})
        return handles[0] if isinstance(call, Call) else handles

    @overload
    def enqueue_in(
        self, connection: Connection, call: Call, /, **options: Unpack[EnqueueOptions]
    ) -> ExecutionHandle: ...
    @overload
    def enqueue_in(
        self, connection: Connection, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> Sequence[ExecutionHandle]: ...
    @overload
    def enqueue_in(
        self, connection: AsyncConnection, call: Call, /, **options: Unpack[EnqueueOptions]
    ) -> Coroutine[Any, Any, ExecutionHandle]: ...
    @overload
    def enqueue_in(
        self, connection: AsyncConnection, call: Iterable[Call], /, **options: Unpack[EnqueueOptions]
    ) -> Coroutine[Any, Any, Sequence[ExecutionHandle]]: ...
    def enqueue_in(
        self,
        connection: Connection | AsyncConnection,
        call: Call | Iterable[Call],
        /,
        **options: Unpack[EnqueueOptions],
    ) -> object:
        """As `enqueue`, in the connection's transaction: the work exists if and only if you commit it.

        For a connection to the database in which the scheduler keeps its work: `sqlite3`'s to the same file, or
        psycopg's. With psycopg's `AsyncConnection` it is awaited, with the others it is not, and is for any thread. The
        scheduler need not run here; one that does starts the work as soon as you have committed.
        """
        checked = self._checked_executions("enqueue_in", call, options, self._callers.make_id)

        def handles(added: Sequence[AddResult]) -> ExecutionHandle | Sequence[ExecutionHandle]:
            made = [ExecutionHandle(one.id, one.created, self) for one in added]
            return made[0] if isinstance(call, Call) else made

        async def awaited() -> ExecutionHandle | Sequence[ExecutionHandle]:
            return handles(await self._callers.add_awaited(connection, await in_turns(checked)))

        return awaited() if is_awaited(connection) else handles(self._callers.add(connection, list(checked)))

    def _checked_executions(
        self, name: str, call: object, options: EnqueueOptions, make_id: Callable[[], str]
    ) -> Iterator[NewExecution]:
        check_options(name, options, EnqueueOptions)
        calls = [call] if isinstance(call, Call) else _calls(call)
        items = new_executions(calls, options, self.clock.now(), make_id, self._registry.recovery)
        checked: Call | None = None
        for one, item in zip(calls, items, strict=True):
            if one != checked:
                self._registry.check_call(one)
                checked = one
            yield item

    def _promise(self, mark: str) -> None:
        """From any thread: a caller's transaction has put work into the store, and has not ended."""
        runtime = self._runtime
        if runtime is not None and not runtime.ended.is_set():
            runtime.chain.loop.call_soon(runtime.chain.work_promised, mark)

    async def _add(self, runtime: Runtime, items: Sequence[NewExecution]) -> Sequence[ExecutionHandle]:
        bring = partial(self._offer, runtime, items[0]) if items else None
        if len(items) == 1 and items[0].key is None:
            one = await self._write(OneOfMany(self._add_single, items[0]), bring)
            return [ExecutionHandle(one.id, one.created, self)]
        handles: list[ExecutionHandle] = []
        size = BATCH * runtime.lane.batches
        for start in range(0, len(items), size):
            call = partial(_add_executions, items=items[start : start + size], clock=self.clock)
            added = await self._write(call, bring)
            handles += await in_turns(ExecutionHandle(result.id, result.created, self) for result in added)
            if runtime.lane.is_direct:
                await checkpoint()  # nothing was waited for
        return handles

    def _offer(self, runtime: Runtime, item: NewExecution) -> Companion | None:
        """What may start in the transaction that brings this: then it begins after one commit, not after two."""
        return runtime.chain.offer(item.work.queue) if item.due_at <= self.clock.now() else None

    def _add_single(self, store: Storage, items: list[NewExecution]) -> Sequence[AddResult]:
        """Calls that were enqueued singly at the same moment: in one statement, each with an answer of its own."""
        return store.add_executions(items, self.clock.now())

    async def executions(
        self,
        where: ExecutionFilter = EVERY_EXECUTION,
        *,
        order: Order | str = Order.ID,
        limit: int = 100,
        cursor: str | None = None,
        offset: int = 0,
        total: bool = False,
    ) -> Page:
        """A page of executions; `page.cursor` gets the next one.

        `offset` passes over so many, which costs more the further it goes. With `total`, `page.total` says how many
        there are in all.
        """
        ordered = one_of("order", Order)(order)
        many = count_of("limit", most=LONGEST_PAGE)(limit)
        passed = count_of("offset", least=0)(offset)
        return await self._read(lambda store: store.list_executions(where, ordered, many, cursor, passed, total=total))

    async def count_executions(self, where: ExecutionFilter = EVERY_EXECUTION) -> int:
        """How many executions a filter means."""
        return await self._read(lambda store: store.count_executions(where))

    async def running(self, *, limit: int = 100, after: str | None = None) -> Sequence[Execution]:
        """What runs on any node, what was cancelled and has not stopped yet included, by `attempt_id`.

        `after` is the last `attempt_id` of the page before.
        """
        many = count_of("limit", most=LONGEST_PAGE)(limit)
        return await self._read(lambda store: store.running(None, many, after))

    async def attempts(self, execution_id: str) -> Sequence[Attempt]:
        """The past attempts of an execution, the first one first; the present or last one is in the execution."""
        return await self._read(lambda store: store.list_attempts(execution_id))

    async def find_execution(self, execution_id: str) -> Execution | None:
        """The execution, or None."""
        rows = await self._read(lambda store: store.get_executions([execution_id]))
        return rows.get(execution_id)

    async def get_execution(self, execution_id: str) -> Execution:
        """The execution. Raises `ExecutionNotFound`."""
        return found(execution_id, await self.find_execution(execution_id))

    async def stats(self, where: ExecutionFilter = EVERY_EXECUTION) -> Mapping[State, int]:
        """How many executions are in each state, from one snapshot."""
        return await self._read(lambda store: store.stats(where))

    async def cancel_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None
    ) -> Sequence[Cancelled]:
        """Cancel what is unfinished. What runs here is told to stop at once, before the store has answered."""
        chosen = _where(where, ids)
        runtime = self._running()
        for run in list(runtime.chain.pool.running().values()):
            if _is_meant(chosen, run.claim):
                runtime.chain.pool.cancel(run.attempt_id, "cancelled on request")
        cancelled = await self._write(lambda store: store.cancel_executions(chosen, self.clock.now()))
        for one in cancelled:
            if one.attempt_id is not None:
                runtime.chain.pool.cancel(one.attempt_id, "cancelled on request")
        runtime.chain.waiters.notify(one.execution_id for one in cancelled)
        runtime.chain.look_into_store()  # their jobs may go on, and what they held back may be ready
        await self._tell_cancelled([one for one in cancelled if one.attempt_id is None])
        return cancelled

    async def _tell_cancelled(self, cancelled: Sequence[Cancelled]) -> None:
        """Of what had not started, or waited for another try: what runs is told of by its node, when it has ended."""
        for start in range(0, len(cancelled), BATCH):
            now = self.clock.now()
            for one in cancelled[start : start + BATCH] if self.telemetry.listening else ():
                self.telemetry.emit(
                    events.ExecutionSkipped(
                        at=now,
                        execution_id=one.execution_id,
                        task=one.task,
                        queue=one.queue,
                        attempt=one.attempt,
                        job=one.job_name,
                        nominal=one.nominal,
                        kind=Kind.CANCELLED,
                        reason="cancelled on request",
                    )
                )
            await checkpoint()

    async def retry_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None
    ) -> Sequence[str]:
        """Give what failed, was cancelled or expired another try, now."""
        chosen = _where(where, ids)
        runtime = self._accepting()
        again = await self._write(
            lambda store: store.retry_executions(chosen, self.clock.now(), IdMaker(self.clock.now))
        )
        runtime.chain.look_into_store()
        return again

    async def delete_executions(
        self, where: ExecutionFilter | None = None, *, ids: Collection[str] | None = None, force: bool = False
    ) -> int:
        """Delete finished executions (unfinished ones too with `force`); their verdicts stay."""
        chosen = _where(where, ids)
        deleted = await self._write(lambda store: store.delete_executions(chosen, force=force))
        self._running().chain.waiters.notify_all()
        self._running().chain.look_into_store()
        return deleted

    async def wait_for_execution(self, execution_id: str, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended. Raises `TimeoutError`, or `ExecutionNotFound`."""
        execution: Execution | None = None
        with self.clock.wake_after(timeout) as waiting:
            execution = await self._wait_for(execution_id)
        if waiting.fired:
            self.clock.activity.ended()
        if execution is None:  # pyright: ignore[reportUnnecessaryComparison] - the wait above may have been cut off
            raise TimeoutError(f"execution {execution_id} has not ended within {timeout:g} s")
        return execution

    async def _wait_for(self, execution_id: str) -> Execution:
        while True:
            runtime = self._running()
            with runtime.chain.waiters.waiting_for(execution_id) as ended:
                try:
                    execution = await self.get_execution(execution_id)
                except StoreBusy:
                    continue  # how long to wait is the caller's word, however long the store is away
                if execution.finished:
                    return execution
                # Woken when it ends here; where other processes may end it, the store is asked again now and then.
                with self.clock.wake_after(_POLL if self.storage.shared else None) as waiting:
                    await ended.wait()
                if waiting.fired:
                    self.clock.activity.ended()


def _calls(given: object) -> list[Call]:
    if isinstance(given, Task | str) or not isinstance(given, Iterable):
        raise InvalidArgument("call", given, "must be task.call(...), or several of them")  # pyright: ignore[reportUnknownArgumentType]
    return list(cast(Iterable[Call], given))


def _add_executions(store: Storage, items: Sequence[NewExecution], clock: Clock) -> Sequence[AddResult]:
    return store.add_executions(items, clock.now())


def _where(where: ExecutionFilter | None, ids: Collection[str] | None) -> ExecutionFilter:
    if (where is None) == (ids is None):
        raise InvalidArgument("where", where, "give either a filter or ids=[...]")
    return ExecutionFilter(ids=ids) if where is None else where


def _is_meant(where: ExecutionFilter, claim: Claim) -> bool:
    """Whether a filter means what runs under this claim, as far as the claim can tell."""
    row = Execution(
        claim.execution_id,
        claim.work,
        claim.cause,
        claim.created_at,
        claim.due_at,
        claim.due_at,
        claim.attempt_id,
        State.RUNNING,
        claim.job_id,
        claim.job_name,
        nominal=claim.nominal,
        key=claim.key,
    )
    return where.verdicts is None and where.nodes is None and where.matches(row)
