"""Keeps children running: starts them in order, restarts what crashes, stops them in reverse, gives up in time.

The model is Erlang's. A child is anything with a `run`; a supervisor has one too, so that supervisors make a tree and
an app can put its own children beside ours. It knows names, outcomes and times, and not what its children do.

    Supervisor(
        "app",
        [Child("scheduler", scheduler.run), Child("web", serve, restart=Restart.TRANSIENT)],
        strategy=Strategy.ONE_FOR_ONE,
    )

Each child runs in a shielded cancel scope of its own in one task group, and one loop decides. Groups nested in groups
would be shorter, but a cancelled outer group reaches all inner ones at once: no order in stopping. The shield leaves
every stop to the loop, which ends the last child first.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import assert_never, cast

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field, frozen

from ..model.clock import Clock, SystemClock
from ..model.errors import ClepsydraError, InvalidArgument, RestartLimitReached
from ..model.instants import to_micros, to_timedelta

log = logging.getLogger("clepsydra.supervisor")

FIRST_BACKOFF = 0.1
"""Seconds before the second restart of a child within the window; the first is at once, each further one doubles."""


class Restart(StrEnum):
    """When a child that has ended is run again."""

    PERMANENT = "permanent"
    """Always, even if it returned."""
    TRANSIENT = "transient"
    """Only if it crashed."""
    TEMPORARY = "temporary"
    """Never, nor when another child's crash has stopped it."""


class Strategy(StrEnum):
    """Who is restarted when a child is."""

    ONE_FOR_ONE = "one_for_one"
    """That child."""
    REST_FOR_ONE = "rest_for_one"
    """That child and those after it, which lean on it."""
    ONE_FOR_ALL = "one_for_all"
    """All of them."""


def _within(value: timedelta | float) -> timedelta:
    micros = to_micros(value, "within")
    if micros <= 0:
        raise InvalidArgument("within", value, "must be longer than nothing")
    return to_timedelta(micros)


@frozen
class Intensity:
    """How many restarts are borne within how long; one more and the supervisor gives up."""

    restarts: int = 3
    within: timedelta = field(default=timedelta(seconds=5), converter=_within)

    def __attrs_post_init__(self) -> None:
        if self.restarts < 0:
            raise InvalidArgument("restarts", self.restarts, "must not be negative")

    def backoff(self, crashes: int) -> float:
        """Seconds before a child is restarted that has crashed so often within the window.

        Capped so that all the waiting of a spent budget takes half the window at most: a child that crashes at once
        must spend its budget, not outlast it.
        """
        if crashes < 2:
            return 0.0
        cap = self.within.total_seconds() / (2 * max(1, self.restarts))
        return min(FIRST_BACKOFF * 2.0 ** min(crashes - 2, 60), cap)


@frozen
class Child:
    """What is to be kept running. `run` is called anew for each incarnation."""

    name: str
    run: Callable[[], Awaitable[None]]
    restart: Restart = Restart.PERMANENT
    intensity: Intensity | None = None
    """A restart budget of its own; None: it shares the supervisor's."""


@frozen
class SupervisorEvent:
    """Something happened to a child."""

    supervisor: str
    name: str
    incarnation: int
    """1 for the first run, one more for each restart."""


@frozen
class ChildStarted(SupervisorEvent):
    """The first incarnation is running."""


@frozen
class ChildRestarted(SupervisorEvent):
    """A further incarnation is running. `error` is its own crash; None: it had returned, or another one crashed."""

    error: BaseException | None


@frozen
class ChildReturned(SupervisorEvent):
    """It ended by itself, without an error."""


@frozen
class ChildCrashed(SupervisorEvent):
    """It ended with an error. With no restarts left, or for a temporary child, it is not restarted."""

    error: BaseException
    restarts_left: int


@frozen
class ChildStopped(SupervisorEvent):
    """The supervisor has stopped it: because another child crashed, or because all is being stopped."""


class ChildCancelled(ClepsydraError, RuntimeError):
    """A child was ended by a cancellation that did not come from its supervisor; counts as a crash."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} was cancelled, but not by its supervisor")
        self.name = name


class SupervisorRunning(ClepsydraError, RuntimeError):
    """`run` was called while it is running already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"supervisor {name!r} is running already; make another one for another set of children")
        self.name = name


class ChildState(StrEnum):
    """Where a child is."""

    IDLE = "idle"
    """Not started yet, or stopped."""
    RUNNING = "running"
    RESTARTING = "restarting"
    """Down; waits for its turn or its backoff."""
    DONE = "done"
    """Ended for good."""


@frozen
class Branch:
    """One line of the supervision tree, plain, for health pages and drawings."""

    name: str
    state: ChildState
    restarts: int = 0
    restart: Restart | None = None
    """None for the root, which nobody restarts."""
    strategy: Strategy | None = None
    """None for a child that is not a supervisor."""
    children: tuple[Branch, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The tree as a drawing, a line per child."""
        said = [word for word in (self.strategy, self.restart) if word is not None]
        yield f"{'  ' * depth}{self.name} ({', '.join(said)})"
        for child in self.children:
            yield from child.lines(depth + 1)


@define
class _Budget:
    """The crashes within the window, and whose they were."""

    intensity: Intensity
    _crashes: deque[tuple[float, str]] = field(factory=deque[tuple[float, str]])

    def count(self, child: str, now: float) -> None:
        self._crashes.append((now, child))
        oldest = now - self.intensity.within.total_seconds()
        while self._crashes[0][0] <= oldest:
            self._crashes.popleft()

    @property
    def left(self) -> int:
        return self.intensity.restarts - len(self._crashes)

    def backoff(self, child: str) -> float:
        return self.intensity.backoff(sum(name == child for _, name in self._crashes))

    def exceeded(self) -> RestartLimitReached:
        # All who crashed are named: with a shared budget the last one may have crashed only once.
        names = dict.fromkeys(name for _, name in self._crashes)
        return RestartLimitReached(" and ".join(names), len(self._crashes), self.intensity.within.total_seconds())


@define(eq=False)
class _Slot:
    """A child's place: what runs there now, or when something will again.

    `scope` and `ended` belong to the present incarnation. `stopping` is set by the loop before it cancels the scope, so
    that the incarnation's end is no news.
    """

    child: Child
    budget: _Budget
    state: ChildState = ChildState.IDLE
    incarnation: int = 0
    error: BaseException | None = None
    not_before: float = 0.0
    stopping: bool = False
    scope: anyio.CancelScope = field(init=False)
    ended: anyio.Event = field(init=False)


@frozen
class _Ending:
    """An incarnation has ended without having been told to. `error` is None when it returned."""

    slot: _Slot
    error: BaseException | None


@define(eq=False)
class Supervisor:
    """Runs its children until all are done, it is cancelled, or a restart budget is spent.

    A spent budget is raised as one `RestartLimitReached` from the last crash, never as a group; KeyboardInterrupt and
    SystemExit of a child end everything and are raised bare. An error that a child raises while it is being
    stopped is logged and goes no further. A handler of `on_event` that raises is logged.

    It counts as under way (`clock.activity`) from a child's end until the child's new incarnation has been entered;
    backoff is waited for at rest.
    """

    name: str
    children: Sequence[Child] = field(converter=tuple[Child, ...])
    strategy: Strategy = field(default=Strategy.ONE_FOR_ONE, kw_only=True)
    intensity: Intensity = field(factory=Intensity, kw_only=True)
    clock: Clock = field(factory=SystemClock, kw_only=True)
    on_event: Callable[[SupervisorEvent], None] | None = field(default=None, kw_only=True)

    _slots: tuple[_Slot, ...] = field(init=False)
    _running: bool = field(init=False, default=False)
    _endings: deque[_Ending] = field(init=False, factory=deque[_Ending])
    _news: anyio.Event = field(init=False)
    _owed: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        names = [child.name for child in self.children]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InvalidArgument("children", sorted(twice), "every child needs a name of its own")
        self._slots = self._fresh_slots()

    def _fresh_slots(self) -> tuple[_Slot, ...]:
        shared = _Budget(self.intensity)
        return tuple(
            _Slot(child, shared if child.intensity is None else _Budget(child.intensity)) for child in self.children
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the children and keep them running. Reports started when each has been entered."""
        if self._running:
            raise SupervisorRunning(self.name)
        self._running = True
        self._slots = self._fresh_slots()
        self._endings.clear()
        self._news = anyio.Event()
        try:
            failure = await self._run_children(task_status)
        finally:
            self._running = False
            self._rest()
            self._take_leave()
        if failure is not None:
            raise failure  # here and not inside the task group, which would wrap it

    async def _run_children(self, task_status: TaskStatus[None]) -> BaseException | None:
        failure: BaseException | None = None
        async with anyio.create_task_group() as group:
            try:
                failure = await self._keep_running(group, task_status)
            finally:
                await self._stop_all()
        return failure

    async def _keep_running(self, group: TaskGroup, task_status: TaskStatus[None]) -> BaseException | None:
        """The loop: what has ended is dealt with, what is due is restarted, then it rests. Returns why it gave up."""
        self._owe()
        for slot in self._slots:
            await self._start(slot, group)
        task_status.started()
        while True:
            while self._endings:
                if failure := await self._deal_with(self._endings.popleft()):
                    return failure
            for slot in self._due():
                await self._start(slot, group)
            if all(slot.state is ChildState.DONE for slot in self._slots):
                return None
            await self._wait()

    async def _wait(self) -> None:
        """Rest until a child ends or the next restart is due."""
        if self._endings:
            return
        down = [slot.not_before for slot in self._slots if slot.state is ChildState.RESTARTING]
        self._rest()
        self._news = anyio.Event()
        with self.clock.wake_after(min(down) - self.clock.monotonic() if down else None) as waiting:
            await self._news.wait()
        if waiting.fired:
            self._owed += 1

    def _take_leave(self) -> None:
        """What ended while all was being stopped is not lost; an interrupt among it goes before all else."""
        interrupt: BaseException | None = None
        for ending in self._endings:
            if _is_fatal(ending.error):
                interrupt = ending.error
            else:
                self._report(ending.slot, ending.error)
        if interrupt is not None:
            raise interrupt

    # What an ending leads to.

    async def _deal_with(self, ending: _Ending) -> BaseException | None:
        """Arrange for the restarts that an ending asks for. Returns what is to be raised if it is the end of all."""
        slot, error = ending.slot, ending.error
        if _is_fatal(error):
            return error
        if not _comes_back(slot.child, error):
            self._retire(slot, error)
            return None
        slot.budget.count(slot.child.name, self.clock.monotonic())
        self._report(slot, error)
        slot.error = error
        if slot.budget.left < 0:
            limit = slot.budget.exceeded()
            limit.__cause__ = error
            return limit
        await self._restart(slot)
        return None

    def _retire(self, slot: _Slot, error: BaseException | None) -> None:
        self._report(slot, error)
        slot.state = ChildState.DONE

    async def _restart(self, slot: _Slot) -> None:
        """Stop those who go down with it, and note when they all may come back."""
        affected = self._affected(slot)
        await self._stop(affected)
        not_before = self.clock.monotonic() + slot.budget.backoff(slot.child.name)
        for each in affected:
            if each.child.restart is Restart.TEMPORARY:
                each.state = ChildState.DONE
            else:
                each.state = ChildState.RESTARTING
                each.not_before = max(each.not_before, not_before)

    def _affected(self, slot: _Slot) -> list[_Slot]:
        """Who is restarted with this one. A child that is done stays done."""
        return [each for each in self._reached_from(slot) if each is slot or each.state is not ChildState.DONE]

    def _reached_from(self, slot: _Slot) -> tuple[_Slot, ...]:
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                return (slot,)
            case Strategy.REST_FOR_ONE:
                return self._slots[self._slots.index(slot) :]
            case Strategy.ONE_FOR_ALL:
                return self._slots
            case _:
                assert_never(self.strategy)

    def _due(self) -> list[_Slot]:
        now = self.clock.monotonic()
        return [slot for slot in self._slots if slot.state is ChildState.RESTARTING and slot.not_before <= now]

    # Starting and stopping.

    async def _start(self, slot: _Slot, group: TaskGroup) -> None:
        """Start the next incarnation and return when its `run` has been entered."""
        slot.incarnation += 1
        slot.state = ChildState.RUNNING
        slot.stopping = False
        slot.scope = anyio.CancelScope(shield=True)
        slot.ended = anyio.Event()
        entered = anyio.Event()
        group.start_soon(self._incarnation, slot, entered, name=f"{self.name}/{slot.child.name}")
        await entered.wait()
        if slot.incarnation == 1:
            self._emit(ChildStarted(self.name, slot.child.name, slot.incarnation))
        else:
            self._emit(ChildRestarted(self.name, slot.child.name, slot.incarnation, slot.error))
            slot.error = None

    async def _incarnation(self, slot: _Slot, entered: anyio.Event) -> None:
        """One life of a child, in a task of its own. Never raises: its end is news for the loop."""
        error: BaseException | None = None
        entered.set()
        try:
            with slot.scope:
                await slot.child.run()
        except GeneratorExit:
            raise  # the event loop has gone away; there is nobody to tell
        except BaseException as raised:  # whatever it is, the loop decides about it
            error = _unwrapped(raised, slot.child.name)
        self._end(slot, error)

    def _end(self, slot: _Slot, error: BaseException | None) -> None:
        """Synchronous: between a child's end and the news of it, the clock must find something under way."""
        slot.state = ChildState.IDLE
        slot.ended.set()
        if slot.stopping and not _is_fatal(error):
            self._report_stopped(slot, error)
            return
        self._owe()
        self._endings.append(_Ending(slot, error))
        self._news.set()

    async def _stop(self, slots: Iterable[_Slot]) -> None:
        """End these children, the last one first, each when the one after it has ended."""
        for slot in reversed(tuple(slots)):
            if slot.state is ChildState.RUNNING:  # else it has ended meanwhile, and that is in the news
                slot.stopping = True
                slot.scope.cancel()
                await slot.ended.wait()

    async def _stop_all(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._stop(self._slots)
        except BaseException:
            # asyncio's own cancellation ignores shields. The order is lost then, but no child may be left behind one.
            for slot in self._running_slots():
                slot.stopping = True
                slot.scope.cancel()
            raise

    def _running_slots(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.state is ChildState.RUNNING]

    # Telling.

    def _report(self, slot: _Slot, error: BaseException | None) -> None:
        name, left = slot.child.name, max(0, slot.budget.left)
        if error is None:
            log.info("%s: %s returned (%s)", self.name, name, slot.child.restart)
            self._emit(ChildReturned(self.name, name, slot.incarnation))
            return
        if slot.child.restart is Restart.TEMPORARY:
            left = 0
        log.error("%s: %s crashed (%s, restarts left: %d)", self.name, name, slot.child.restart, left, exc_info=error)
        self._emit(ChildCrashed(self.name, name, slot.incarnation, error, left))

    def _report_stopped(self, slot: _Slot, error: BaseException | None) -> None:
        if error is not None:
            log.error("%s: %s raised while it was being stopped", self.name, slot.child.name, exc_info=error)
        self._emit(ChildStopped(self.name, slot.child.name, slot.incarnation))

    def _emit(self, event: SupervisorEvent) -> None:
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except Exception:
            log.exception("%s: the handler of supervisor events failed at %r", self.name, event)

    # Being counted.

    def _owe(self) -> None:
        self.clock.activity.began()
        self._owed += 1

    def _rest(self) -> None:
        owed, self._owed = self._owed, 0
        self.clock.activity.ended(owed)

    # Being looked at.

    def tree(self) -> Branch:
        """The supervision tree as it is now, this supervisor at the root."""
        state = ChildState.RUNNING if self._running else ChildState.IDLE
        return Branch(self.name, state, strategy=self.strategy, children=tuple(map(_branch, self._slots)))


def _branch(slot: _Slot) -> Branch:
    child, restarts = slot.child, max(0, slot.incarnation - 1)
    below = getattr(child.run, "__self__", None)
    if not isinstance(below, Supervisor):
        return Branch(child.name, slot.state, restarts, child.restart)
    return Branch(child.name, slot.state, restarts, child.restart, below.strategy, below.tree().children)


def _comes_back(child: Child, error: BaseException | None) -> bool:
    match child.restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return error is not None
        case Restart.TEMPORARY:
            return False
        case _:
            assert_never(child.restart)


def _is_fatal(error: BaseException | None) -> bool:
    """KeyboardInterrupt, SystemExit and the like: not ours to survive."""
    return error is not None and not isinstance(error, Exception)


def _unwrapped(error: BaseException, name: str) -> BaseException:
    """A child's end as one exception: an interrupt before all else, without cancellations, out of single groups."""
    cancelled = anyio.get_cancelled_exc_class()
    leaves = list(_leaves(error))
    interrupts = [leaf for leaf in leaves if not isinstance(leaf, Exception | cancelled)]
    crashes = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if interrupts:
        return interrupts[0]
    if len(crashes) == 1:
        return crashes[0]
    if not crashes:
        stray = ChildCancelled(name)
        stray.__cause__ = error
        return stray
    return error if isinstance(error, Exception) else ExceptionGroup(f"{name} crashed", crashes)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    group = cast("BaseExceptionGroup[BaseException]", error)
    for each in group.exceptions:
        yield from _leaves(each)
