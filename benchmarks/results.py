"""What comes of the numbers: medians, spread, ratios, and whether the bars are reached. Pure; its values are JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from attrs import Factory, define
from contenders import Bar, Contender


class Row(TypedDict):
    """One contender's share in a measure, at one size."""

    contender: str
    size: int
    values: list[float]
    """One for each round, in the order of the rounds."""
    median: float
    least: float
    most: float
    to_ours: float | None
    """The median over that of the first of ours."""
    to_limit: float | None


class Table(TypedDict):
    """One measure, of all who have it."""

    measure: str
    rows: list[Row]


class About(TypedDict):
    """What a reader has to know of a contender."""

    role: str
    version: str
    configured: str
    missing: str
    """Why it was not measured; empty when it was."""
    unfinished: str
    """At which size it has not ended in time; empty when it has."""
    failed: str
    """What it said when it was measured and failed."""


class Group(TypedDict):
    """Contenders that are compared with each other."""

    name: str
    notes: list[str]
    contenders: dict[str, About]
    tables: list[Table]


class Reached(TypedDict):
    """A bar, and where the measurement of the same run stands beside it."""

    bar: str
    group: str
    size: int
    measured: float | None
    wanted: float | None
    reached: bool | None
    """None when one of the two was not measured."""
    margin: float | None
    """How many times better than the bar, or, below 1, how much of it is reached."""


class Page(TypedDict):
    """All that is published of a question."""

    question: str
    title: str
    claim: str
    at: str
    commit: str
    machine: dict[str, str]
    rounds: int
    sizes: list[int]
    seconds: float
    groups: list[Group]
    bars: list[Reached]
    more_is_better: list[str]
    plotted: list[str]


@define
class Taken:
    """The numbers of a group, as they come in."""

    numbers: dict[tuple[str, int], list[Mapping[str, float]]] = Factory(
        dict[tuple[str, int], list[Mapping[str, float]]]
    )
    missing: dict[str, str] = Factory(dict[str, str])
    unfinished: dict[str, tuple[str, int]] = Factory(dict[str, tuple[str, int]])
    """In words, and the size."""
    failed: dict[str, str] = Factory(dict[str, str])

    def note(self, name: str, size: int, numbers: Mapping[str, float]) -> None:
        """One more round of one of them."""
        self.numbers.setdefault((name, size), []).append(numbers)


def tables(taken: Taken, contenders: Mapping[str, Contender], first: str) -> list[Table]:
    """A table for each measure, in the order in which they were first named."""
    measures = dict.fromkeys(measure for rounds in taken.numbers.values() for one in rounds for measure in one)
    yardsticks = [first, *(name for name, each in contenders.items() if each.role == "limit")]
    return [_table(taken, measure, contenders, yardsticks) for measure in measures]


def _table(taken: Taken, measure: str, contenders: Mapping[str, Contender], yardsticks: Sequence[str]) -> Table:
    values = {
        (name, size): [one[measure] for one in rounds if measure in one]
        for (name, size), rounds in sorted(taken.numbers.items(), key=lambda item: item[0][1])
    }
    values = {key: each for key, each in values.items() if each}
    medians = {key: statistics.median(each) for key, each in values.items()}
    limits = [name for name in yardsticks[1:] if any(key[0] == name for key in medians)]
    rows: list[Row] = []
    for name in contenders:
        for (whose, size), each in values.items():
            if whose != name:
                continue
            median = medians[whose, size]
            rows.append(
                Row(
                    contender=name,
                    size=size,
                    values=each,
                    median=median,
                    least=min(each),
                    most=max(each),
                    to_ours=_ratio(median, medians.get((yardsticks[0], size))),
                    to_limit=_ratio(median, medians.get((limits[0], size))) if limits else None,
                )
            )
    return Table(measure=measure, rows=rows)


def _ratio(one: float, other: float | None) -> float | None:
    return one / other if other else None


def reached(bars: Iterable[Bar], groups: Sequence[Group]) -> list[Reached]:
    """Each bar beside the measurement, in each group where it applies."""
    found: list[Reached] = []
    for bar in bars:
        for group in groups:
            if bar.group == group["name"] or (bar.group is None and _has(group, bar.measure)):
                found.append(_beside(bar, group))
    return found


def _has(group: Group, measure: str) -> bool:
    return any(table["measure"] == measure for table in group["tables"])


def _beside(bar: Bar, group: Group) -> Reached:
    ours = _medians(group, bar.measure, bar.of)
    others = _medians(group, bar.than or bar.measure, bar.beside or bar.of) if bar.is_relative else ours
    both = sorted(size for size in ours if size in others and bar.size in (None, size))
    factor = bar.at_most if bar.at_most is not None else bar.at_least
    assert factor is not None
    size = both[-1] if both else (bar.size or 0)
    verdict = Reached(
        bar=bar.words, group=group["name"], size=size, measured=ours.get(size), wanted=None, reached=None, margin=None
    )
    if both:
        wanted = factor * others[size] if bar.is_relative else factor
        better, worse = (wanted, ours[size]) if bar.at_most is not None else (ours[size], wanted)
        verdict["wanted"], verdict["reached"], verdict["margin"] = wanted, worse <= better, _ratio(better, worse)
    return verdict


def _medians(group: Group, measure: str, contender: str) -> dict[int, float]:
    """By size."""
    return {
        row["size"]: row["median"]
        for table in group["tables"]
        if table["measure"] == measure
        for row in table["rows"]
        if row["contender"] == contender
    }
