"""Run strategies: on which nodes an execution runs. Pure choices over the nodes that are alive.

`Local` (the default) leaves it to whichever node starts it first; the others name their targets. A strategy of one's
own is any object with a `choose` method, registered with the scheduler under a name that jobs then refer to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from attrs import frozen

from .errors import ClepsydraError, InvalidArgument
from .instants import Instant


@frozen
class Node:
    """One running scheduler, as the store knows it."""

    id: str
    """Random, fresh at each start."""
    name: str
    """Given by its operator; need not be unique."""
    started_at: Instant
    beat: int
    """Grows with each heartbeat; an observer only looks whether it changes (no clocks are compared)."""
    alive: bool | None = None
    """What the store itself can tell: False when the node's lock is free, True when held, None where it cannot know."""


@frozen
class Candidate:
    """The execution for which a strategy chooses."""

    execution_id: str
    job: str
    nominal: Instant | None
    labels: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class RunStrategy(Protocol):
    """Chooses the nodes of an execution among those alive. May be `async`; raising or choosing none settles
    `no_node`.
    """

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Any:
        """The ids of the chosen nodes: a sequence of strings, or an awaitable of one."""
        ...


@frozen
class Local:
    """Whichever node has room first: the fire has no target."""


@frozen(init=False)
class Random:
    """One of the nodes alive, or of those named: the same choice however often it is asked for one execution."""

    names: tuple[str, ...]

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.__attrs_init__(_names(names))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
        """A stable draw by job and nominal time."""
        eligible = sorted(node.id for node in _eligible(nodes, self.names))
        if not eligible:
            return ()
        seed = f"{candidate.job}:{candidate.nominal or candidate.execution_id}".encode()
        draw = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
        return (eligible[draw % len(eligible)],)


@frozen(init=False)
class All:
    """Each of the nodes alive, or of those named; a named node that is not alive is a recorded `no_node`."""

    names: tuple[str, ...]

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.__attrs_init__(_names(names))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
        """Every eligible node, and for a name nobody bears the name itself: the place where it will not run."""
        eligible = [node.id for node in _eligible(nodes, self.names)]
        alive = {node.name for node in nodes}
        return [*sorted(eligible), *(name for name in self.names if name not in alive)]


@frozen(init=False)
class NodeList:
    """The first of the named nodes that is alive: a preferred node with its stand-ins."""

    names: tuple[str, ...]

    def __init__(self, names: Iterable[str]) -> None:
        self.__attrs_init__(_names(names))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        if not self.names:
            raise InvalidArgument("names", names, "must name at least one node; use Random() for any")

    def choose(self, candidate: Candidate, nodes: Sequence[Node]) -> Sequence[str]:
        """The first match in the order of the names."""
        for name in self.names:
            for node in sorted(_eligible(nodes, (name,)), key=lambda node: node.id):
                return (node.id,)
        return ()


@frozen
class Named:
    """A strategy of the app's own, by the name under which the scheduler knows it."""

    name: str


RunOn: TypeAlias = Local | Random | All | NodeList | Named
"""What a job may say of where it runs."""

LOCAL = Local()


def to_run_on(value: Any) -> RunOn:
    """What users give as `run_on`: one of the strategies, or the name of a registered one."""
    if isinstance(value, Local | Random | All | NodeList | Named):
        return value
    if isinstance(value, str) and value:
        return LOCAL if value == "local" else Named(value)
    raise InvalidArgument("run_on", value, "must be Local(), Random(), All(), NodeList([...]) or a registered name")


def run_on_to_json(run_on: RunOn) -> dict[str, Any]:
    """Plain JSON."""
    match run_on:
        case Local():
            return {"kind": "local"}
        case Named(name):
            return {"kind": "named", "name": name}
        case _:
            return {"kind": type(run_on).__name__.lower(), "names": list(run_on.names)}


def run_on_from_json(data: Mapping[str, Any]) -> RunOn:
    """The inverse of `run_on_to_json`."""
    match data.get("kind"):
        case "local":
            return LOCAL
        case "named":
            return Named(data["name"])
        case "random":
            return Random(data["names"])
        case "all":
            return All(data["names"])
        case "nodelist":
            return NodeList(data["names"])
        case kind:
            raise ClepsydraError(f"unknown run strategy {kind!r} in a stored job")


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InvalidArgument("names", names, "must be a list of node names, not one string")
    chosen = tuple(names)
    for name in chosen:
        if not isinstance(name, str) or not name:
            raise InvalidArgument("names", name, "must be node names")
    return chosen


def _eligible(nodes: Sequence[Node], names: Sequence[str]) -> list[Node]:
    return [node for node in nodes if not names or node.name in names]
