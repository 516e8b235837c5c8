"""The words in which a script declares its question: who is measured, and what is to be reached.

A contender is a function from a size to numbers by name. `peer` and `limit` say beside it what a reader has to know;
a plain function is described by the first line of its docstring, and its part told by its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Literal

from attrs import evolve, frozen

Measure = Callable[[int], Mapping[str, float]]
Role = Literal["ours", "peer", "limit"]


@frozen
class Contender:
    """Measures once when it is called, like the function that it holds."""

    measure: Measure
    role: Role
    configured: str
    """In words: what it was told to do, and what it was left to do by default."""
    requirement: str = ""
    """The peer whose version is told: a name in `peers.REQUIREMENTS`, or a distribution installed here."""
    most: int | None = None
    """Larger sizes would take it too long."""

    def __call__(self, size: int) -> Mapping[str, float]:
        return self.measure(size)

    def takes(self, size: int) -> bool:
        """Whether it is asked for that size."""
        return self.most is None or size <= self.most


def peer(measure: Measure, requirement: str, configured: str, *, most: int | None = None) -> Contender:
    """Another program that answers the question."""
    return Contender(measure, "peer", configured, requirement, most)


def limit(measure: Measure, configured: str, requirement: str = "") -> Contender:
    """The least program that gives the same answer. Ratios are told to the first of them that has the measure."""
    return Contender(measure, "limit", configured, requirement)


def described(name: str, measure: Measure) -> Contender:
    """Whatever a script gave as its contender of that name."""
    if isinstance(measure, Contender):
        return evolve(measure, requirement="clepsydra") if measure.role == "ours" else measure
    about: object = getattr(measure, "func", measure)  # of a partial, the function in it
    words = (inspect.getdoc(about) or "").split("\n\n")[0].replace("\n", " ")
    if name.startswith("clepsydra"):
        return Contender(measure, "ours", words, "clepsydra")
    return Contender(measure, "limit" if name.startswith("bare") else "peer", words)


@frozen(kw_only=True)
class Bar:
    """What a measure is to reach: a number, or so many times what another contender or measure reached."""

    measure: str
    at_most: float | None = None
    at_least: float | None = None
    of: str = "clepsydra"
    """Whose measure it is."""
    beside: str | None = None
    """The contender whose median is multiplied; without it (and without `than`) the bar is a plain number."""
    than: str | None = None
    """The measure that is multiplied, where it is another one."""
    group: str | None = None
    """Without it, each group in which the measure is."""
    size: int | None = None
    """Without it, the largest at which both were measured."""

    def __attrs_post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"a bar on {self.measure!r} takes one of at_most and at_least")

    @property
    def is_relative(self) -> bool:
        """Whether the bar depends on what was measured beside."""
        return self.beside is not None or self.than is not None

    @property
    def words(self) -> str:
        """As a reader would say it."""
        kind, factor = ("at most", self.at_most) if self.at_most is not None else ("at least", self.at_least)
        subject = self.measure if self.of == "clepsydra" else f"{self.of}: {self.measure}"
        if not self.is_relative:
            return f"{subject}: {kind} {factor:g}"
        what = f"that of {self.beside}" if self.than is None else f'"{self.than}"'
        if self.than is not None and self.beside is not None:
            what += f" of {self.beside}"
        return " ".join(part for part in (f"{subject}:", kind, _factor(factor or 0), what) if part)


def _factor(factor: float) -> str:
    """A part of something as a fraction, as long as it is a round one; nothing at all where it is the same."""
    if factor == 1:
        return ""
    below = 1 / factor if 0 < factor < 1 else 0
    return f"1/{below:.0f}" if below and abs(below - round(below)) < 1e-9 else f"{factor:g} times"
