"""The face's part about what has happened: verdicts, why something ran or did not, and whether the laws hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial

from anyio.lowlevel import checkpoint

from ..model.errors import ExecutionNotFound, JobNotFound
from ..model.execution import Verdict
from ..model.explanation import Explanation
from ..model.instants import to_instant
from ..model.job import Job, JobRecord, check_name
from ..model.verification import Verification
from ..storage.verifying import CHUNK, Auditor, take_step
from .entered import BATCH, Entered
from .explaining import look_at_execution, look_at_time
from .explanations import explain_execution, explain_time
from .health import complaints
from .prospects import Here, room_of
from .runtime import Runtime
from .verdicts import unfold


class Answers(Entered):
    """Questions about the past, and some about the future."""

    async def verdicts(self, job: str, start: datetime, end: datetime) -> AsyncIterator[Verdict]:
        """How each nominal time of a job in `[start, end)` ended, ascending: `async for verdict in
        scheduler.verdicts(...)`.

        Of a removed job as well. Nothing is told of times before the retention's horizon, nor of those still to come.
        """
        first, last = to_instant(start, "start"), to_instant(end, "end")
        pages = await self._read(lambda store: store.verdicts(job, first, last))
        known = self._running().chain.book.by_name
        if not pages and job not in known:
            raise JobNotFound(job, known)
        for told, verdict in enumerate(unfold(job, list(pages), first, last), start=1):
            yield verdict
            if told % BATCH == 0:
                await checkpoint()

    async def explain(self, job: str | Job | JobRecord, at: datetime) -> Explanation:
        """Why a nominal time of a job ran, ran late or did not run; of one to come, what could stop it.

        `at` is the time, or any instant: then the last nominal time up to it is explained. The answer has all of it as
        data, and `str()` of it says it in sentences. Of a removed job as well. Raises `JobNotFound`, and
        `InvalidArgument` for a naive datetime.
        """
        name = job.name if isinstance(job, Job | JobRecord) else check_name(job, "job")
        asked, now, runtime = to_instant(at, "at"), self.clock.now(), self._running()
        looked = await self._read(lambda store: look_at_time(store, name, asked, now))
        if looked is None:
            raise JobNotFound(name, runtime.chain.book.by_name)
        return explain_time(looked, self._here(runtime))

    async def explain_execution(self, execution_id: str) -> Explanation:
        """The same of an execution: an enqueued call, a manual run, or one of a nominal time.

        Raises `ExecutionNotFound`.
        """
        told = await self._read(lambda store: look_at_execution(store, execution_id))
        if told is None:
            raise ExecutionNotFound(execution_id)
        return explain_execution(told, self.clock.now(), self._here(self._running()))

    def _here(self, runtime: Runtime) -> Here:
        chain = runtime.chain
        slots, pool, rooms = chain.slots, chain.pool, chain.task_slots.rooms
        abandoned = pool.statistics().degraded
        return Here(
            runtime.node,
            chain.nodes.nodes,
            self._registry.tasks,
            self._strategies,
            chain.book.declared,
            lambda queue: (slots.of(queue), min(slots.free(queue, pool), slots.free_in_all(pool))),
            lambda task: room_of(task, rooms(run.claim.work.task for run in pool.running().values())),
            list(complaints(runtime, abandoned, self.clock.monotonic())),
        )

    async def verify(self) -> Verification:
        """Audit the store against the laws, a few rows at a time, while everything goes on: a report with `ok` and what
        was found.
        """
        chunk = BATCH if self._running().lane.is_direct else CHUNK
        auditor = Auditor()
        while auditor.place is not None:
            auditor.take_in(await self._read(partial(take_step, place=auditor.place, chunk=chunk)))
            await checkpoint()
        return auditor.report()
