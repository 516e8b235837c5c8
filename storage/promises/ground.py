"""The ground that the checks stand on: what a check is, and a small world around one store to write it in.

Knows no test framework: a check is called with something that makes storages, and raises `AssertionError` when the
store does not keep the promise. Each check gets a fresh store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

from attrs import define, field, frozen

from ...model.execution import Cause, Ending, Execution, Kind, Outcome, State
from ...model.filters import ExecutionFilter, JobFilter
from ...model.instants import MINUTE, SECOND, Instant
from ...model.job import Job, JobRecord
from ...model.schedule import Every
from ...model.strategies import Node
from ...model.work import Work
from ..audit import audit
from ..protocol import Claim, Finished, Fire, Fired, JobChange, NewExecution, NewJob, Settle, Started, Storage

Answer = TypeVar("Answer")

T0: Instant = 1_767_614_400 * SECOND
"""Monday, 5 January 2026, 12:00 UTC: when every check begins."""

NODE = Node("node-a", "a", T0, 0)
OTHER = Node("node-b", "b", T0, 0)


class StorageMaker(Protocol):
    """Makes the storage objects that a check works on."""

    def __call__(self) -> Storage:
        """A storage on a place of its own, empty and not opened."""
        ...

    def again(self, storage: Storage) -> Storage:
        """Another storage on the same data, as after a restart; where the data lives in the object, that object."""
        ...


@frozen
class Check:
    """A promise of every store, and how to find out whether one keeps it."""

    name: str
    """The promise as a sentence."""
    cases: tuple[str, ...]
    """The conformance cases that it covers."""
    promise: str
    run: Callable[[World], None]

    def __call__(self, make_storage: StorageMaker) -> None:
        """Raise `AssertionError` unless a fresh store keeps the promise."""
        if not __debug__:
            raise RuntimeError("the checks are made of assertions: run them without python -O")
        world = World(make_storage)
        world.store.open(NODE, T0)
        try:
            self.run(world)
        finally:
            world.store.close()

    def __str__(self) -> str:
        return "-".join((*self.cases, self.name))


def promise(*cases: str) -> Callable[[Callable[[World], None]], Check]:
    """Make a function the check of a promise: its name and docstring say which."""
    return lambda run: Check(run.__name__, cases, (run.__doc__ or "").strip(), run)


@contextmanager
def raises(*errors: type[BaseException]) -> Generator[list[BaseException]]:
    """The block must raise one of these; afterwards the list has it."""
    caught: list[BaseException] = []
    try:
        yield caught
    except errors as error:
        caught.append(error)
        return
    raise AssertionError(f"nothing was raised; expected {' or '.join(error.__name__ for error in errors)}")


def a_job(name: str = "report", **options: Any) -> Job:
    """A job that runs every minute, unless the options say otherwise."""
    options.setdefault("schedule", Every(minutes=1))
    return Job(name, options.pop("task", "reports.make"), **options)


@define
class World:
    """A store with one scheduler's hands on it. Every id comes from one counter, so ids grow in the order of making."""

    make: StorageMaker
    store: Storage = field(init=False)
    made: int = 0

    def __attrs_post_init__(self) -> None:
        self.store = self.make()

    def id(self) -> str:
        """The next id."""
        self.made += 1
        return f"00000000-0000-7000-8000-{self.made:012x}"

    def reopen(self, now: Instant = T0) -> None:
        """Close the store and open it as another process would after a restart."""
        self.store.close()
        self.store = self.make.again(self.store)
        self.store.open(Node("node-a2", "a", now, 0), now)

    def at_once(self, act: Callable[[Storage, int], Answer], many: int = 8) -> list[Answer]:
        """What so many get who do it at the same moment, each on a storage of its own where the data can be shared.

        They are the nodes `node-0` and so on. Where it cannot, the one storage is used by one after the other.
        """
        shared = self.store.shared
        stores = [self.make.again(self.store) for _ in range(many)] if shared else [self.store] * many
        start, turn = threading.Barrier(many), nullcontext() if shared else threading.Lock()

        def one(number: int) -> Answer:
            start.wait()
            with turn:
                return act(stores[number], number)

        try:
            for number, store in enumerate(stores if shared else ()):
                store.open(Node(f"node-{number}", "", T0, 0), T0)
            with ThreadPoolExecutor(many) as threads:
                return list(threads.map(one, range(many)))
        finally:
            for store in stores if shared else ():
                store.close()

    # ---- jobs

    def change(self, job: Job, now: Instant = T0, **options: Any) -> JobChange:
        """Put one job, and what became of it."""
        (change,) = self.store.put_jobs([NewJob(self.id(), job, **options)], now)
        return change

    def put(self, job: Job | None = None, now: Instant = T0, **options: Any) -> JobRecord:
        """Put one job: its record."""
        return self.change(a_job() if job is None else job, now, **options).record

    def job(self, name: str = "report") -> JobRecord:
        """The job as it stands."""
        page = self.store.list_jobs(JobFilter(names=name))
        assert len(page.items) == 1, f"{len(page.items)} jobs are called {name!r}"
        return page.items[0]

    # ---- executions

    def fire_of(self, record: JobRecord, nominal: Instant, **options: Any) -> Fire:
        """A fire that runs one nominal time and settles those before it as coalesced."""
        bound = record.bind()
        settled: list[Settle] = []
        if bound is not None and bound.driven_by == "time":
            if record.cursor + 1 < nominal and bound.count(record.cursor + 1, nominal, 1):
                settled.append(Settle(Kind.COALESCED, record.cursor + 1, nominal))
            if bound.has_exclusions:
                settled.append(Settle(Kind.EXCLUDED, record.cursor + 1, nominal + 1))
        options.setdefault("settled", settled)
        options.setdefault("execution_id", self.id())
        options.setdefault("due_at", nominal)
        return Fire(record.id, record.generation, record.cursor, options.pop("to", nominal), nominal=nominal, **options)

    def fire(self, record: JobRecord, nominal: Instant, now: Instant | None = None, **options: Any) -> str:
        """Fire one nominal time of a job as it stands now: the id of its execution."""
        fire = self.fire_of(self.job(record.name), nominal, **options)
        answer = self.fires([fire], nominal if now is None else now)
        assert answer.applied == [record.id], answer.refused
        return fire.execution_id

    def fires(self, fires: Sequence[Fire], now: Instant) -> Fired:
        """Several fires at once."""
        return self.store.fire(fires, now)

    def new(self, task: str = "mail.welcome", due_at: Instant = T0, **options: Any) -> NewExecution:
        """An enqueued call; what `NewExecution` has no field for belongs to its `Work`."""
        own = ("id", "start_by", "key", "on_conflict", "job_id", "job_name", "generation", "cause")
        mine = {key: options.pop(key) for key in own if key in options}
        cause = mine.pop("cause", Cause.ENQUEUE)
        return NewExecution(mine.pop("id", None) or self.id(), Work(task, **options), cause, due_at, **mine)

    def enqueue(self, task: str = "mail.welcome", now: Instant = T0, **options: Any) -> str:
        """Enqueue one call: its id."""
        options.setdefault("due_at", now)
        (result,) = self.store.add_executions([self.new(task, **options)], now)
        return result.id

    def manual(self, record: JobRecord, now: Instant = T0) -> str:
        """A manual run of a job."""
        work = record.job.work
        item = NewExecution(
            self.id(), work, Cause.MANUAL, now, job_id=record.id, job_name=record.name, generation=record.generation
        )
        (result,) = self.store.add_executions([item], now)
        return result.id

    def start(self, *ids: str, now: Instant = T0, node: str = NODE.id) -> Started:
        """Start the named executions."""
        return self.store.start(node, now, items=ids)

    def claim(self, execution_id: str, now: Instant = T0, node: str = NODE.id) -> Claim:
        """Start one execution that must start."""
        answer = self.start(execution_id, now=now, node=node)
        assert [claim.execution_id for claim in answer.claims] == [execution_id], answer
        return answer.claims[0]

    def outcome(
        self, claim: Claim, ending: Ending = Ending.SUCCEEDED, now: Instant = T0, node: str = NODE.id, **options: Any
    ) -> Outcome:
        """How an attempt ended; one that is followed by another gets its id."""
        if ending in (Ending.RETRY, Ending.SNOOZED, Ending.GIVEN_BACK):
            options.setdefault("next_attempt_id", self.id())
            options.setdefault("not_before", now)
        options.setdefault("alone", claim.job_id is None)
        return Outcome(claim.execution_id, claim.attempt_id, node, ending, now, **options)

    def finish(
        self, claim: Claim, ending: Ending = Ending.SUCCEEDED, now: Instant = T0, node: str = NODE.id, **options: Any
    ) -> Finished:
        """Report how an attempt ended."""
        return self.store.finish([self.outcome(claim, ending, now, node, **options)], now)

    def run(self, execution_id: str, ending: Ending = Ending.SUCCEEDED, now: Instant = T0) -> None:
        """Start and finish."""
        answer = self.finish(self.claim(execution_id, now), ending, now)
        assert len(answer.applied) == 1, answer

    def get(self, execution_id: str) -> Execution:
        """The execution as it stands."""
        return self.store.get_executions([execution_id])[execution_id]

    def state(self, execution_id: str) -> State:
        """Where it is."""
        return self.get(execution_id).state

    def verdict(self, execution_id: str) -> Kind | None:
        """How its nominal time ended."""
        return self.get(execution_id).verdict

    def ids(self, where: ExecutionFilter | None = None) -> list[str]:
        """Which executions there are, in the order of their ids."""
        return [row.id for row in self.store.list_executions(where or ExecutionFilter(), limit=10_000).items]

    def ready(self, now: Instant = T0, limit: int = 10_000, **options: Any) -> list[str]:
        """What may start now."""
        return [row.id for row in self.store.ready(now, limit, **options)]

    # ---- law 1

    def ranges(self, name: str = "report") -> list[tuple[Kind, Instant, Instant]]:
        """The ranges of the jobs that bore a name, in minutes after T0."""
        pages = self.store.verdicts(name, T0 - 1000 * MINUTE, T0 + 1_000_000 * MINUTE)
        return [(span.kind, span.start, span.end) for page in pages for span in page.ranges]

    def settled(self, name: str = "report") -> dict[int, str]:
        """The verdict of each accounted nominal time of every job that bore the name, by whole minutes after T0."""
        found: dict[int, str] = {}
        for page in self.store.verdicts(name, T0 - 1000 * MINUTE, T0 + 1_000_000 * MINUTE):
            for epoch in page.epochs:
                bound = epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)
                for span in page.ranges:
                    if span.generation != epoch.generation:
                        continue
                    for at in bound.times(max(span.start, epoch.since + 1), span.end):
                        if bound.is_excluded(at) == (span.kind is Kind.EXCLUDED):
                            found[(at - T0) // MINUTE] = span.kind.value
            for mark in page.marks:
                found[(mark.nominal - T0) // MINUTE] = "waiting" if mark.kind is None else mark.kind.value
        return dict(sorted(found.items()))

    def check_law_1(self, *names: str) -> None:
        """Each nominal time has exactly one verdict or one unsettled execution."""
        for name in names or ("report",):
            start, end = T0 - 1000 * MINUTE, T0 + 1_000_000 * MINUTE
            broken = audit(self.store.verdicts(name, start, end), start=start, end=end)
            assert not broken, "\n".join(map(str, broken))
