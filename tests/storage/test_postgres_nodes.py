"""Nodes that work on the same jobs at the same moment: however they meet, each time fires once and the laws hold."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from typing import Any

import pytest

from clepsydra.model.errors import StoreUnavailable
from clepsydra.model.execution import Cause, Ending, Outcome
from clepsydra.model.filters import ExecutionFilter, JobFilter
from clepsydra.model.instants import SECOND, Instant
from clepsydra.model.job import Job, JobState
from clepsydra.model.policies import Overlap
from clepsydra.model.schedule import Every
from clepsydra.model.strategies import Node
from clepsydra.model.work import Work
from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.protocol import Claim, Fire, NewExecution, NewJob, Started
from clepsydra.storage.verifying import verify_store

from ..postgres import Schemas

T0: Instant = 1_767_614_400 * SECOND
NODES, JOBS, ROUNDS = 3, 6, 15
ENDINGS = (Ending.SUCCEEDED, Ending.SUCCEEDED, Ending.FAILED, Ending.RETRY, Ending.GIVEN_BACK)


class Shared:
    """What the nodes have in common: the time, the numbers, and who has claimed what."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self.claimed: Counter[str] = Counter()

    def id(self) -> str:
        with self._lock:
            return f"{next(self._numbers):09}"

    def now(self) -> Instant:
        with self._lock:
            return T0 + next(self._numbers) * SECOND // 20

    def claim(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            self.claimed.update(claim.attempt_id for claim in claims)


class Worker:
    """One node at random work, in batches as the lane makes them."""

    def __init__(self, storage: PostgresStorage, name: str, shared: Shared, seed: int) -> None:
        self.storage, self.name, self.shared, self.random = storage, name, shared, Random(seed)
        self.running: list[Claim] = []

    def work(self) -> None:
        for _ in range(ROUNDS):
            for answer in self.carry_out(list(self.calls(self.shared.now()))):
                if isinstance(answer, Started):
                    self.shared.claim(answer.claims)
                    self.running += answer.claims

    def carry_out(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """All in one transaction; if that fails, one by one, each until it is done."""
        try:
            return self.flush(calls)
        except StoreUnavailable:
            return [answer for call in calls for answer in self.insist(call)]

    def insist(self, call: Callable[[], Any]) -> list[Any]:
        for _ in range(100):
            try:
                return self.flush([call])
            except StoreUnavailable:
                continue
        raise AssertionError("a call by itself never found its way")

    def flush(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        with self.storage.transaction():
            return [call() for call in calls]

    def calls(self, now: Instant) -> Iterator[Callable[[], Any]]:
        store, random, shared = self.storage, self.random, self.shared
        job = f"job-{random.randrange(JOBS)}"
        if random.random() < 0.1:
            state = random.choice((JobState.PAUSED, JobState.ACTIVE))
            yield lambda: store.set_job_state(JobFilter(names=job), state, now)
        if random.random() < 0.1:
            yield lambda: store.cancel_executions(ExecutionFilter(jobs=job), now)
        if self.running:
            outcomes = [self.outcome(self.running.pop(), now) for _ in range(random.randint(1, len(self.running)))]
            yield lambda: store.finish(outcomes, now)
        fires = list(self.fires(now))
        yield lambda: store.fire(fires, now)
        item = NewExecution(shared.id(), Work("t", queue="q"), Cause.ENQUEUE, now, key=random.choice((None, "k", "l")))
        yield lambda: store.add_executions([item], now)
        yield lambda: store.start(self.name, now, free={"default": 4, "q": 2}, tasks={"t"})

    def fires(self, now: Instant) -> Iterator[Fire]:
        for record in self.storage.load_jobs() or ():
            bound = record.bind()
            due = None if bound is None or record.state is not JobState.ACTIVE else bound.next_after(record.cursor)
            if due is not None and due <= now:
                yield Fire(record.id, record.generation, record.cursor, due, self.shared.id(), due, due)

    def outcome(self, claim: Claim, now: Instant) -> Outcome:
        ending = self.random.choice(ENDINGS)
        follows = ending in (Ending.RETRY, Ending.GIVEN_BACK)
        return Outcome(
            *(claim.execution_id, claim.attempt_id, self.name, ending, now),
            error="it did not work",
            next_attempt_id=self.shared.id() if follows else "",
            not_before=now,
            alone=claim.job_id is None,
        )


@pytest.mark.parametrize("seed", range(2))
def test_nodes_that_get_in_each_other_s_way_keep_the_laws(postgres: Schemas, seed: int) -> None:
    schema, shared = postgres.take(), Shared()
    stores = [PostgresStorage(postgres.dsn, schema=schema) for _ in range(NODES)]
    for number, store in enumerate(stores):
        store.open(Node(f"node-{number}", "", T0, 0), T0)
    overlaps = list(Overlap)
    jobs = [Job(f"job-{n}", "t", Every(seconds=0.2), overlap=overlaps[n % len(overlaps)]) for n in range(JOBS)]
    stores[0].put_jobs([NewJob(shared.id(), job) for job in jobs], T0)
    workers = [Worker(store, f"node-{n}", shared, 10 * seed + n) for n, store in enumerate(stores)]

    with ThreadPoolExecutor(NODES) as threads:
        for done in [threads.submit(worker.work) for worker in workers]:
            done.result(120)

    report = verify_store(stores[0])
    for store in stores:
        store.close()
    postgres.give_back(schema)
    assert report.ok, str(report)
    assert shared.claimed
    assert max(shared.claimed.values()) == 1
