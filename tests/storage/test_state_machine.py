"""Random lives of a store: the same operations on every adapter give the same answers, and the laws hold after each.

Hypothesis chooses the operations. Two schedulers and one that dies work on two jobs and a queue; answers are lost and
calls repeated. After every step the stores must agree in all they can be asked, and the auditor must find nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clepsydra.model.errors import DuplicateKey
from clepsydra.model.execution import FINISHED, UNFINISHED, Ending, Execution, Kind, Outcome, State
from clepsydra.model.filters import ExecutionFilter, JobFilter, Order
from clepsydra.model.instants import MINUTE, SECOND, Instant, to_datetime
from clepsydra.model.job import Job, JobRecord, JobState
from clepsydra.model.policies import Misfire, Overlap, Recovery
from clepsydra.model.schedule import Every, Once, Schedule
from clepsydra.model.strategies import LOCAL, All, Random
from clepsydra.storage.audit import audit
from clepsydra.storage.ledger import Ledger
from clepsydra.storage.memory import MemoryStorage
from clepsydra.storage.promises.ground import NODE, T0, World
from clepsydra.storage.protocol import Beat, Claim, Fire, NewJob, Placement, Settle, Storage
from clepsydra.storage.sqlite import SQLiteStorage
from clepsydra.storage.verifying import verify_store

from ..postgres import PostgresMaker, Schemas

T = TypeVar("T")

EVER = (T0 - 10_000 * MINUTE, T0 + 10_000_000 * MINUTE)
NAMES = ("a", "b")
NODES = (NODE.id, "node-b", "node-that-dies")
SCHEDULES: tuple[Schedule | None, ...] = (
    Every(minutes=1),
    Every(seconds=45) | Every(minutes=2),
    Every(minutes=1) - Every(minutes=3),
    Every(seconds=30, after_completion=True),
    Once(to_datetime(T0 + 30 * MINUTE)),
    None,
)
ENDINGS = (*Ending, Ending.SUCCEEDED, Ending.SUCCEEDED)

jobs = st.builds(
    Job,
    name=st.sampled_from(NAMES),
    task=st.sampled_from(("t.one", "t.two")),
    schedule=st.sampled_from(SCHEDULES),
    overlap=st.sampled_from(tuple(Overlap)),
    max_running=st.sampled_from((1, 1, 2)),
    misfire=st.sampled_from((Misfire(), Misfire(window=90))),
    start_by=st.sampled_from((None, None, 100)),
    recovery=st.sampled_from(tuple(Recovery)),
    recoveries=st.sampled_from((1, 3)),
    queue=st.sampled_from(("default", "default", "other")),
    priority=st.sampled_from((0, 0, 1)),
    limit=st.sampled_from((None, None, 4)),
    run_on=st.sampled_from((LOCAL, LOCAL, LOCAL, All(), Random())),
    paused=st.sampled_from((False, False, False, True)),
)


class OnePlace:
    """Makes one storage, and others on its data."""

    def __init__(self, make: Callable[[], Storage], lives_in_object: bool) -> None:
        self._make, self._lives_in_object = make, lives_in_object

    def __call__(self) -> Storage:
        return self._make()

    def again(self, storage: Storage) -> Storage:
        return storage if self._lives_in_object else self._make()


class Stores(RuleBasedStateMachine):
    """The same life on every adapter."""

    schemas: ClassVar[Schemas | None] = None
    """Where PostgreSQL is to be had."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="clepsydra-")
        path = Path(self.folder) / "store.db"
        self.worlds = [
            World(OnePlace(MemoryStorage, lives_in_object=True)),
            World(OnePlace(lambda: SQLiteStorage(path, synchronous="NORMAL"), lives_in_object=False)),
        ]
        self.on_server: PostgresMaker | None = None
        self.now = T0
        for world in self.worlds:
            world.store.open(NODE, T0)
        self.rows: dict[str, Execution] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.claims: dict[str, Claim] = {}
        self.claimed_by: dict[str, str] = {}
        self.reports: list[Outcome] = []
        self.may_revive = False

    def teardown(self) -> None:
        for world in self.worlds:
            world.store.close()
        if self.on_server is not None:
            self.on_server.close()
        shutil.rmtree(self.folder)

    def both(self, act: Callable[[World], T]) -> T:
        """Do it on every store: the answers must be the same."""
        first, *others = [act(world) for world in self.worlds]
        for other in others:
            assert other == first, _difference(first, other)
        return first

    def of_all(self, ids: list[str], data: st.DataObject, least: int = 0) -> list[str]:
        return data.draw(st.lists(st.sampled_from(ids), min_size=least, max_size=4)) if ids else []

    def ids(self, *states: State) -> list[str]:
        return [row.id for row in self.rows.values() if not states or row.state in states]

    # ---- what happens

    @initialize(first=jobs, second=jobs, on_server=st.sampled_from((False, False, True)))
    def add_jobs(self, first: Job, second: Job, on_server: bool) -> None:
        if on_server and self.schemas is not None:  # not always: a server takes its time
            self.on_server = PostgresMaker(self.schemas)
            self.worlds.append(World(self.on_server))
            self.worlds[-1].store.open(NODE, T0)
        self.both(lambda world: world.store.put_jobs([NewJob(world.id(), first), NewJob(world.id(), second)], self.now))
        self.read()

    @rule(seconds=st.sampled_from((1, 30, 600)))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(
        name=st.sampled_from(NAMES),
        change=st.sampled_from(({"overlap": "allow"}, {"max_running": 2}, {"task": "t.two"}, {"queue": "other"}, {})),
        overlap=st.sampled_from(tuple(Overlap)),
    )
    def put_a_busy_job(self, name: str, change: dict[str, Any], overlap: Overlap) -> None:
        options: dict[str, Any] = {"task": "t.one", "overlap": overlap, **change}
        job = Job(name, options.pop("task"), Every(minutes=1), **options)
        self.both(lambda world: world.store.put_jobs([NewJob(world.id(), job)], self.now))

    @rule(job=jobs, declared=st.booleans(), create_only=st.sampled_from((False, False, True)), repeated=st.booleans())
    def put(self, job: Job, declared: bool, create_only: bool, repeated: bool) -> None:
        def act(world: World) -> Any:
            new = NewJob(world.id(), job, declared, create_only=create_only)
            changes = world.store.put_jobs([new], self.now)
            if repeated:
                again = world.store.put_jobs([new], self.now)
                assert [change.record for change in again] == [change.record for change in changes]
            return changes

        self.both(act)

    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(("pause", "resume", "resume", "stop", "remove", "purge")))
    def govern(self, name: str, what: str) -> None:
        where = JobFilter(names=name)
        match what:
            case "pause":
                self.both(lambda world: world.store.set_job_state(where, JobState.PAUSED, self.now))
            case "resume":
                self.both(lambda world: world.store.set_job_state(JobFilter(), JobState.ACTIVE, self.now))
            case "stop":
                self.both(lambda world: world.store.set_job_state(where, JobState.STOPPED, self.now))
            case "remove":
                self.both(lambda world: world.store.delete_jobs(where, self.now))
            case _ if name == NAMES[-1]:
                self.both(lambda world: world.store.purge(include_executions=self.now % MINUTE == 0))
                self.rows.clear()
                self.jobs.clear()
            case _:
                pass

    @rule(
        data=st.data(),
        after=st.sampled_from((60, 60, 61, 200)),
        stale=st.sampled_from((False, False, False, True)),
        repeated=st.booleans(),
    )
    def fire(self, data: st.DataObject, after: int, stale: bool, repeated: bool) -> None:
        self.now += after * SECOND
        records = [record for record in self.jobs.values() if record.state is JobState.ACTIVE]
        plans = [plan for record in records if (plan := self.plan(record, data)) is not None]
        if stale:
            plans = [evolve(plan, cursor=plan.cursor - 1) for plan in plans]

        def act(world: World) -> Any:
            fires = [evolve(plan, execution_id=world.id() if plan.execution_id else "") for plan in plans]
            answer = world.store.fire(fires, self.now)
            if repeated:
                again = world.store.fire([fire for fire in fires if fire.execution_id], self.now)
                applied = {fire.job_id for fire in fires if fire.execution_id} & set(answer.applied)
                assert applied <= set(again.applied)
            return answer

        self.both(act)

    def plan(self, record: JobRecord, data: st.DataObject) -> Fire | None:
        """What the timeline could ask for: the latest time, the next one, or none, with the others settled."""
        bound = record.bind()
        if bound is None:
            return None
        if bound.driven_by == "completion":
            due = self.now
            return (
                Fire(record.id, record.generation, record.cursor, due, "new", due, due, alone=True)
                if (due > record.cursor)
                else None
            )
        times = [at for at in bound.times(record.cursor + 1, self.now + 1) if not bound.is_excluded(at)]
        if not times:
            return None
        how = data.draw(st.sampled_from(("latest", "latest", "next", "none", "coalesce")))
        nominal = times[0] if how == "next" else times[-1]
        finishes = bound.next_after(nominal) is None
        settled: list[Settle] = []
        end = nominal + 1 if how == "none" else nominal
        if any(at < end for at in times):
            settled.append(Settle(Kind.MISSED if how == "none" else Kind.COALESCED, record.cursor + 1, end))
        if bound.has_exclusions:
            settled.append(Settle(Kind.EXCLUDED, record.cursor + 1, nominal + 1))
        return Fire(
            *(record.id, record.generation, record.cursor, nominal, "" if how == "none" else "new", nominal, nominal),
            settled=settled,
            coalesce_before=nominal if how == "coalesce" else None,
            finishes=finishes,
        )

    @rule(name=st.sampled_from(NAMES))
    def run_job(self, name: str) -> None:
        records = [record for record in self.jobs.values() if record.name == name]
        for record in records:
            self.both(lambda world, record=record: world.manual(record, self.now))  # type: ignore[misc]

    @rule(
        key=st.sampled_from((None, "k", "l")),
        conflict=st.sampled_from(("keep", "replace", "raise")),
        after=st.sampled_from((0, 0, 70)),
        priority=st.sampled_from((0, 1)),
        recovery=st.sampled_from(tuple(Recovery)),
        start_by=st.sampled_from((None, None, 50)),
    )
    def enqueue(
        self, key: str | None, conflict: Any, after: int, priority: int, recovery: Recovery, start_by: int | None
    ) -> None:
        due = self.now + after * SECOND

        def act(world: World) -> Any:
            item = world.new(
                *("t.one", due),
                key=key,
                on_conflict=conflict,
                priority=priority,
                recovery=recovery,
                start_by=None if start_by is None else due + start_by * SECOND,
            )
            try:
                return world.store.add_executions([item], self.now)
            except DuplicateKey as error:
                return str(error)

        self.both(act)

    @rule(data=st.data(), repeated=st.booleans())
    def place(self, data: st.DataObject, repeated: bool) -> None:
        waiting = self.both(lambda world: [row.id for row in world.store.unplaced(self.now, 10)])
        chosen = {row: data.draw(st.lists(st.sampled_from(NODES), unique=True, max_size=3)) for row in waiting}
        dead = data.draw(st.sampled_from(((), (), (NODES[2],))))

        def act(world: World) -> Any:
            placements = [
                Placement(row, [(node, row if not index else world.id()) for index, node in enumerate(nodes)], dead)
                for row, nodes in chosen.items()
            ]
            answer = world.store.place(placements, self.now)
            if repeated:
                assert set(world.store.place(placements, self.now).executions) >= set(answer.executions)
            return answer

        self.both(act)

    @rule(node=st.sampled_from(NODES))
    def start_what_is_ready(self, node: str) -> None:
        self.start_some([], {"default": 3, "other": 3}, node, None)

    @rule(
        data=st.data(),
        node=st.sampled_from(NODES),
        free=st.sampled_from(({}, {"default": 1}, {"default": 2, "other": 0})),
        tasks=st.sampled_from((None, {"t.one"})),
    )
    def start(self, data: st.DataObject, node: str, free: dict[str, int], tasks: set[str] | None) -> None:
        self.start_some(self.of_all(self.ids(State.PENDING, State.RUNNING), data), free, node, tasks)

    def start_some(self, items: list[str], free: dict[str, int], node: str, tasks: set[str] | None) -> None:
        before = self.occupying()

        answer = self.both(lambda world: world.store.start(node, self.now, items=items, free=free, tasks=tasks))

        for claim in answer.claims:
            assert self.claimed_by.setdefault(claim.attempt_id, node) == node, "one attempt, two nodes"
            self.claims[claim.attempt_id] = claim
            self.may_start(claim)
        self.read()
        for job_id, count in self.occupying().items():
            record = self.jobs.get(job_id)
            if record is not None and record.job.overlap is not Overlap.ALLOW:
                assert count <= max(before.get(job_id, 0), record.job.max_running), "overlap"

    def may_start(self, claim: Claim) -> None:
        """Law 7: what starts belongs to a job that is there and wants it, or was never a job's."""
        row, record = self.rows[claim.execution_id], self.jobs.get(claim.job_id or "")
        if row.state is State.RUNNING or claim.job_id is None:
            return
        assert record is not None, "started for a job that is gone"
        assert claim.work == record.job.work, "started an old definition"
        if row.first_started_at is None and row.nominal is not None:
            assert record.state is JobState.ACTIVE or record.reason in ("exhausted", "limit")

    def occupying(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.rows.values():
            if row.job_id is not None and row.occupies:
                counts[row.job_id] = counts.get(row.job_id, 0) + 1
        return counts

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.sampled_from((False, False, True)), repeated=st.booleans())
    def finish(self, data: st.DataObject, late: bool, repeated: bool) -> None:
        current = sorted(row.attempt_id for row in self.rows.values() if row.occupies and row.attempt_id in self.claims)
        among = current if current and not late else sorted(self.claims)
        attempts = data.draw(st.lists(st.sampled_from(among), min_size=1, max_size=3, unique=True))
        endings = [data.draw(st.sampled_from(ENDINGS)) for _ in attempts]
        after = data.draw(st.sampled_from((0, 0, 45))) * SECOND
        maker = self.worlds[0]
        outcomes: list[Outcome] = []
        for attempt, ending in zip(attempts, endings, strict=True):
            error = "on purpose" if ending is Ending.FAILED else None
            outcome = maker.outcome(self.claims[attempt], ending, self.now, self.claimed_by[attempt], error=error)
            follows = bool(outcome.next_attempt_id)
            outcomes.append(evolve(outcome, not_before=self.now + after) if follows else outcome)
        for world in self.worlds:
            world.made = maker.made

        answer = self.both(lambda world: world.store.finish(outcomes, self.now))
        if repeated:
            again = self.both(lambda world: world.store.finish(outcomes, self.now))
            assert again.applied == answer.applied
        self.reports = [*self.reports, *(out for out in outcomes if out.attempt_id in answer.applied)][-5:]

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def report_again(self, data: st.DataObject) -> None:
        """An outcome that was applied once comes again, much later: it changes nothing."""
        report = data.draw(st.sampled_from(self.reports))
        before = self.both(snapshot)

        self.both(lambda world: world.store.finish([report], self.now))

        assert self.both(snapshot) == before

    @rule(data=st.data(), node=st.sampled_from(NODES))
    def heartbeat(self, data: st.DataObject, node: str) -> None:
        attempts = self.of_all(sorted(self.claims), data)
        beats = [Beat(self.claims[attempt].execution_id, attempt, '"half"') for attempt in attempts]

        answers = self.both(lambda world: world.store.heartbeat(node, beats, self.now))

        for attempt, answer in answers.items():
            assert answer == "gone" or self.claimed_by[attempt] == node

    @rule(nodes=st.sets(st.sampled_from(NODES[1:]), min_size=1))
    def rescue(self, nodes: set[str]) -> None:
        self.both(lambda world: world.store.rescue(sorted(nodes), self.now, world.id))

    @rule(data=st.data(), what=st.sampled_from(("cancel", "retry", "delete", "force")))
    def meddle(self, data: st.DataObject, what: str) -> None:
        where = ExecutionFilter(ids=self.of_all(self.ids(), data))
        match what:
            case "cancel":
                self.both(lambda world: world.store.cancel_executions(where, self.now))
            case "retry":
                self.may_revive = True
                self.both(lambda world: world.store.retry_executions(where, self.now, world.id))
            case _:
                self.both(lambda world: world.store.delete_executions(where, force=what == "force"))

    @rule(age=st.sampled_from((0, 60, 600)), limit=st.sampled_from((1, 3, 100)))
    def forget(self, age: int, limit: int) -> None:
        def act(world: World) -> None:
            # To the end: which of two ranges leaves first is the store's to choose, what is left is not.
            while world.store.delete_history(self.now - age * SECOND, limit).total:
                pass

        self.both(act)

    @rule()
    def restart(self) -> None:
        for world in self.worlds:
            world.store.close()
            world.store = world.make.again(world.store)
            world.store.open(evolve(NODE, started_at=self.now), self.now)

    # ---- what must hold

    @invariant()
    def the_stores_agree(self) -> None:
        self.read()

    def read(self) -> None:
        """Compare all that the stores can be asked, and what they said a step ago."""
        _, records, rows, *_ = self.both(snapshot)
        known_jobs, known_rows = self.jobs, self.rows
        self.jobs = {record.id: record for record in records}
        self.rows = {row.id: row for row in rows}
        for job_id, record in self.jobs.items():
            before = known_jobs.get(job_id)
            assert before is None or before.cursor <= record.cursor
            assert before is None or before.horizon <= record.horizon
            assert before is None or before.generation <= record.generation
        for row_id, row in self.rows.items():
            earlier = known_rows.get(row_id)
            if earlier is not None and earlier.finished and not self.may_revive:
                assert evolve(earlier, occupies=row.occupies) == row, "finished states are immutable"
        self.may_revive = False

    @invariant()
    def the_laws_hold(self) -> None:
        for world in self.worlds:
            for name in NAMES:
                broken = audit(world.store.verdicts(name, *EVER), start=EVER[0], end=EVER[1])
                assert not broken, "\n".join(map(str, broken))
            report = verify_store(world.store, chunk=5)
            assert report.ok, str(report)

    @invariant()
    def nothing_is_held_for_ever(self) -> None:
        for row in self.rows.values():
            if row.state is State.HELD:
                others = [other for other in self.rows.values() if other.job_id == row.job_id]
                assert any(other.occupies or other.state in (State.PENDING, State.PLACING) for other in others)

    @invariant()
    def rows_are_consistent(self) -> None:
        for row in self.rows.values():
            assert (row.finished_at is not None) == (row.state in FINISHED), row
            assert row.state not in UNFINISHED or row.cancel_revision == 0, row
            assert row.occupies <= (row.first_started_at is not None), row
            if row.nominal is not None:
                assert (row.verdict is Kind.FIRED) == (row.first_started_at is not None), row
                assert (row.verdict is not None) == (row.state in FINISHED or row.first_started_at is not None), row
            else:
                assert row.verdict is None, row

    @invariant()
    def keys_are_unique(self) -> None:
        keys = [(row.work.task, row.key) for row in self.rows.values() if row.key and row.state in UNFINISHED]
        assert len(keys) == len(set(keys))


def snapshot(world: World) -> Any:
    """All that a store can be asked, from one snapshot of its own."""
    with cast(Ledger, world.store).reading():
        return _all_of(world.store, _LATEST)


def _all_of(store: Storage, now: Instant) -> Any:
    rows = list(store.list_executions(limit=100_000).items)
    return (
        store.load_jobs() is None,
        list(store.list_jobs(JobFilter(), Order.ID, 1000).items),
        rows,
        [list(store.list_attempts(row.id)) for row in rows],
        store.stats(),
        store.last_execution_date(),
        [row.id for row in store.ready(now, 1000)],
        dict(store.next_due(T0)),
        [row.id for row in store.running()],
        [_comparable(page) for name in NAMES for page in store.verdicts(name, *EVER)],
        [row.id for row in store.list_executions(ExecutionFilter(), Order.FINISHED_DESC, 1000).items],
    )


def _difference(first: Any, other: Any) -> str:
    """The first place where two answers differ."""
    if isinstance(first, list | tuple):
        ones, others = cast(Sequence[Any], first), cast(Sequence[Any], other)
        for index, (one, two) in enumerate(zip(ones, others, strict=False)):
            if one != two:
                return f"[{index}] {_difference(one, two)}"
    return f"memory: {first}\nanother: {other}"


_LATEST: Instant = T0 + 1_000_000 * MINUTE


def _comparable(page: Any) -> Any:
    key: Callable[[Any], Any] = lambda span: (span.start, span.end, span.kind)  # noqa: E731
    return (list(page.epochs), sorted(page.ranges, key=key), list(page.marks), page.horizon, page.cursor)


@pytest.fixture(autouse=True, scope="module")
def on_postgres(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where there is no PostgreSQL, the others still live: that it was missing is said by the conformance tests."""
    with suppress(pytest.skip.Exception), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stores, "schemas", request.getfixturevalue("postgres"))
        yield
        return
    yield


TestStores = Stores.TestCase
TestStores.settings = settings(stateful_step_count=40)
