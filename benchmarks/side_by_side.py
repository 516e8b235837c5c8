"""Runs contenders in turn, each in a process of its own, and publishes medians, ratios and bars of that same run.

A script of a question gives `contenders`: functions that measure once and return numbers by name. With `--one NAME` it
measures that contender in this process and prints JSON; without, it calls itself for each of them, A B A B, so that a
machine whose speed drifts treats them alike. A question may have several groups of contenders, each with ratios of its
own, and something that is there around all of its rounds, such as a server.

A peer that is not to be had is reported with the reason. What fails is reported as well, and the script's exit code is
1 then. A run of everything is published in docs/performance/; one of a part only where `--results` says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import machine
import peers
import published
import results
from attrs import define, field
from contenders import Bar, Contender, Measure, described
from pages import page

MISSING = "missing"
"""The key of the one answer that is not a number."""
QUIET = 30.0
"""Seconds after which a measurement that goes on is mentioned again."""


class Around(Protocol):
    """Makes what stands around a group's rounds; what it gives when it is entered, if it is text, is told."""

    def __call__(self) -> AbstractContextManager[object]: ...


@define
class Question:
    """What a script asks, and of whom."""

    title: str
    groups: Mapping[str, Mapping[str, Contender]]
    sizes: Sequence[int]
    rounds: int
    first: str
    around: Mapping[str, Around]
    bars: Sequence[Bar]
    more_is_better: Sequence[str]
    plotted: Sequence[str]

    @property
    def name(self) -> str:
        """That of the script."""
        return Path(sys.argv[0]).stem

    @property
    def claim(self) -> str:
        """The paragraphs of the script's docstring between the question and the command."""
        told: str = (sys.modules["__main__"].__doc__ or "").strip()
        parts = [part.replace("\n", " ") for part in told.split("\n\n")[1:] if not part.startswith("    ")]
        return "\n\n".join(parts)


def main(
    question: str,
    contenders: Mapping[str, Measure],
    *,
    size: int | Sequence[int],
    rounds: int = 5,
    first: str = "clepsydra",
    bars: Sequence[Bar] = (),
    more_is_better: Sequence[str] = (),
    plotted: Sequence[str] = (),
) -> None:
    """The command line of a benchmark script."""
    groups(
        question,
        {"all": contenders},
        size=size,
        rounds=rounds,
        first=first,
        bars=bars,
        more_is_better=more_is_better,
        plotted=plotted,
    )


def groups(
    question: str,
    contenders: Mapping[str, Mapping[str, Measure]],
    *,
    size: int | Sequence[int],
    rounds: int = 5,
    first: str = "clepsydra",
    around: Mapping[str, Around] | None = None,
    bars: Sequence[Bar] = (),
    more_is_better: Sequence[str] = (),
    plotted: Sequence[str] = (),
) -> None:
    """The command line of a script whose contenders are compared within groups: by database, say.

    Several sizes are a curve. More of what is counted per second is better, and less of the rest, unless
    `more_is_better` names it. All measures are plotted unless `plotted` names those that are.
    """
    sizes = [size] if isinstance(size, int) else list(size)
    asked = Question(
        question,
        {group: {name: described(name, each) for name, each in of.items()} for group, of in contenders.items()},
        sizes,
        rounds,
        first,
        around or {},
        bars,
        more_is_better,
        plotted,
    )
    options = _options(asked)
    if options.one:
        group, name = options.one
        with asked.around.get(group, nullcontext)():  # a server that is there already is used
            print(json.dumps(_measured_here(asked.groups[group][name], options.size[0])))
        return
    whole = options.rounds >= rounds and options.size == sizes and not options.group and not options.contender
    folder = Path(options.results) if options.results else published.FOLDER if whole else None
    try:
        sys.exit(_run(asked, options, folder))
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing is published")


def _options(asked: Question) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=asked.title)
    parser.add_argument("--size", type=_positive, nargs="+", default=list(asked.sizes))
    parser.add_argument("--rounds", type=_positive, default=asked.rounds)
    parser.add_argument("--group", choices=sorted(asked.groups), action="append", help="these only")
    parser.add_argument("--contender", action="append", help="these only, and the first")
    parser.add_argument("--results", metavar="FOLDER", help="publish there, even if it is not the whole run")
    parser.add_argument("--one", nargs=2, metavar=("GROUP", "NAME"), help="measure this one here, and print JSON")
    options = parser.parse_args()
    known = {name for of in asked.groups.values() for name in of}
    if unknown := sorted(set(options.contender or ()) - known):
        parser.error(f"no contender is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if options.one and options.one[1] not in asked.groups.get(options.one[0], {}):
        parser.error(f"{options.one[1]!r} is not a contender of the group {options.one[0]!r}")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _measured_here(contender: Contender, size: int) -> Mapping[str, float | str]:
    try:
        return dict(contender(size))
    except peers.PeerMissingError as reason:
        return {MISSING: str(reason)}


def _run(asked: Question, options: argparse.Namespace, folder: Path | None) -> int:
    if folder:
        published.check(folder)  # before an hour of measuring, not after it
    about = machine.described()
    began, at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    chosen = {
        group: {
            name: each
            for name, each in of.items()
            if not options.contender or name in (asked.first, *options.contender)
        }
        for group, of in asked.groups.items()
        if not options.group or group in options.group
    }
    progress = Progress(
        [
            (group, name, size)
            for group, of in chosen.items()
            for _ in range(options.rounds)
            for size in options.size
            for name, each in of.items()
            if each.most is None or size <= each.most
        ]
    )
    measured: list[results.Group] = []
    for group, of in chosen.items():
        with asked.around.get(group, nullcontext)() as note:
            taken = _take_turns(group, of, options.size, options.rounds, progress)
        measured.append(
            results.Group(
                name=group,
                notes=[note] if isinstance(note, str) else [],
                contenders={name: _about(name, each, taken) for name, each in of.items()},
                tables=results.tables(taken, of, asked.first),
            )
        )
    page_of = results.Page(
        question=asked.name,
        title=asked.title,
        claim=asked.claim,
        at=at,
        commit=machine.commit(),
        machine={**about, "load after": machine.load()},
        rounds=options.rounds,
        sizes=options.size,
        seconds=round(time.perf_counter() - began, 1),
        groups=measured,
        bars=results.reached(asked.bars, measured),
        more_is_better=list(asked.more_is_better),
        plotted=list(asked.plotted),
    )
    print(page(page_of, plot=False))
    if folder:
        published.publish(page_of, folder)
        print(f"published in {folder}", file=sys.stderr)
    else:
        print("not published: this is not the whole run; --results FOLDER publishes it all the same", file=sys.stderr)
    return _exit_code(measured)


def _about(name: str, contender: Contender, taken: results.Taken) -> results.About:
    return results.About(
        role=contender.role,
        version=peers.version(contender.requirement) if contender.requirement else "",
        configured=contender.configured,
        missing=taken.missing.get(name, ""),
        failed=taken.failed.get(name, ""),
    )


def _exit_code(measured: Sequence[results.Group]) -> int:
    failed = False
    for group in measured:
        for name, about in group["contenders"].items():
            if about["missing"]:
                print(f"{group['name']}, {name}: missing: {about['missing']}", file=sys.stderr)
            if about["failed"]:
                print(f"{group['name']}, {name}: FAILED: {about['failed']}", file=sys.stderr)
                failed = True
    return int(failed)


def _take_turns(
    group: str, of: Mapping[str, Contender], sizes: Sequence[int], rounds: int, progress: Progress
) -> results.Taken:
    taken = results.Taken()
    for _ in range(rounds):
        for size in sizes:
            for name, each in of.items():
                if each.most is not None and size > each.most:
                    continue
                with progress.of(group, name, size):
                    if name not in taken.missing:
                        _measure_in_a_process(group, name, size, taken, progress)
    return taken


def _measure_in_a_process(group: str, name: str, size: int, taken: results.Taken, progress: Progress) -> None:
    command = [sys.executable, sys.argv[0], "--one", group, name, "--size", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said, wrong = progress.while_it_lasts(process)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = (wrong.strip().splitlines() or [f"ended with {process.returncode} and said nothing"])[-1]
        taken.failed[name] = f"at size {size}: {last}"
        print(wrong, file=sys.stderr)
        return
    numbers: dict[str, Any] = json.loads(said.splitlines()[-1])
    if MISSING in numbers:
        taken.missing[name] = numbers[MISSING]
        return
    taken.note(name, size, numbers)


@define
class Progress:
    """Says on the standard error what is measured, how long it has taken and about how long it will."""

    todo: list[tuple[str, str, int]]
    done: int = 0
    took: dict[tuple[str, str, int], float] = field(factory=dict[tuple[str, str, int], float])
    """What each took when it was last measured."""
    began: float = field(factory=time.perf_counter)

    def of(self, group: str, name: str, size: int) -> AbstractContextManager[None]:
        """Around one measurement."""
        return _Step(self, (group, name, size))

    def left(self) -> float | None:
        """Seconds, as far as one can tell: what is not known yet is taken to be like the rest."""
        if not self.took:
            return None
        usual = sum(self.took.values()) / len(self.took)
        return sum(self.took.get(each, usual) for each in self.todo[self.done :])

    def say(self, text: str) -> None:
        """With the times."""
        left = self.left()
        soon = f", about {duration(left)} left" if left is not None else ""
        gone = duration(time.perf_counter() - self.began)
        print(f"[{self.done + 1} of {len(self.todo)}, {gone} gone{soon}] {text}", file=sys.stderr, flush=True)

    def while_it_lasts(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """What a process says, mentioned now and then."""
        while True:
            try:
                return process.communicate(timeout=QUIET)
            except subprocess.TimeoutExpired:
                self.say("still at it")


@define
class _Step:
    progress: Progress
    what: tuple[str, str, int]
    began: float = 0.0

    def __enter__(self) -> None:
        group, name, size = self.what
        self.progress.say(f"{group}, size {size}: {name}")
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.progress.took[self.what] = time.perf_counter() - self.began
        self.progress.done += 1


def duration(seconds: float) -> str:
    """As one would say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
