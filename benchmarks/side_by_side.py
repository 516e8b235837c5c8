"""Runs contenders in turn, each in a process of its own, and publishes medians, ratios and bars of that same run.

A script of a question gives `contenders`: functions that measure once and return numbers by name. With `--one NAME` it
measures that contender in this process and prints JSON; without, it calls itself for each of them, A B A B, so that a
machine whose speed drifts treats them alike. A question may have several groups of contenders, each with ratios of its
own, and something that is there around all of its rounds, such as a server.

A peer that is not to be had is reported with the reason, and so is one that has not ended within the patience of the
question: it is not asked for that size again, nor for a larger one. What fails is reported as well, and the script's
exit code is 1 then. With `--within` there are as many rounds as there is time for, of each size at least one; with
`--rounds-of 100000=1` a size has fewer than the others. A run of
everything is published in docs/performance/; one of a part only where `--results` says.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
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
PATIENCE = 900.0
"""Seconds that one may take."""


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
    patience: float

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
    patience: float = PATIENCE,
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
        patience=patience,
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
    patience: float = PATIENCE,
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
        patience,
    )
    options = _options(asked)
    if options.one:
        group, name = options.one
        with asked.around.get(group, nullcontext)():  # a server that is there already is used
            print(json.dumps(_measured_here(asked.groups[group][name], options.size[0])))
        return
    asked.patience = options.patience
    whole = options.rounds >= rounds and options.size == sizes
    whole = whole and not (options.group or options.contender or options.within or options.rounds_of)
    folder = Path(options.results) if options.results else published.FOLDER if whole else None
    try:
        sys.exit(_run(asked, options, folder))
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing is published")


def _options(asked: Question) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=asked.title)
    parser.add_argument("--size", type=_positive, nargs="+", default=list(asked.sizes))
    parser.add_argument("--rounds", type=_positive, default=asked.rounds)
    parser.add_argument(
        "--rounds-of", type=_rounds_of, nargs="+", default=[], metavar="SIZE=N", help="fewer, of a size"
    )
    parser.add_argument("--within", type=float, metavar="SECONDS", help="fewer rounds, where there is no time for all")
    parser.add_argument("--patience", type=float, metavar="SECONDS", default=asked.patience, help="with one of them")
    parser.add_argument("--group", choices=sorted(asked.groups), action="append", help="these only")
    parser.add_argument("--contender", action="append", help="these only, and the first")
    parser.add_argument("--results", metavar="FOLDER", help="publish there, even if it is not the whole run")
    parser.add_argument(
        "--while", dest="meanwhile", metavar="WHAT", default="", help="what else runs here, for the page"
    )
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


def _rounds_of(text: str) -> tuple[int, int]:
    size, _, rounds = text.partition("=")
    return _positive(size), _positive(rounds)


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
    rounds_of = {size: dict(options.rounds_of).get(size, options.rounds) for size in options.size}
    progress = Progress(
        [
            (group, name, size)
            for group, of in chosen.items()
            for number in range(options.rounds)
            for size in options.size
            for name, each in of.items()
            if number < rounds_of[size] and each.takes(size)
        ]
    )
    measured: list[results.Group] = []
    for number, (group, of) in enumerate(chosen.items()):
        with asked.around.get(group, nullcontext)() as note:
            left = began + options.within - time.perf_counter() if options.within else math.inf
            turns = Turns(group, of, progress, asked.patience, time.perf_counter() + left / (len(chosen) - number))
            taken = turns.take(rounds_of)
        measured.append(
            results.Group(
                name=group,
                notes=[note] if isinstance(note, str) else [],
                contenders={name: _about(name, each, taken, options.size) for name, each in of.items()},
                tables=results.tables(taken, of, asked.first),
            )
        )
    page_of = results.Page(
        question=asked.name,
        title=asked.title,
        claim=asked.claim,
        at=at,
        commit=machine.commit(),
        machine={**about, "load after": machine.load(), **_meanwhile(options.meanwhile)},
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


def _meanwhile(told: str) -> dict[str, str]:
    return {"meanwhile": told} if told else {}


def _about(name: str, contender: Contender, taken: results.Taken, sizes: Sequence[int]) -> results.About:
    return results.About(
        role=contender.role,
        version=peers.version(contender.requirement) if contender.requirement else "",
        configured=" ".join([contender.configured, *_bounds(contender, sizes)]),
        missing=taken.missing.get(name, ""),
        unfinished=taken.unfinished.get(name, ("", 0))[0],
        failed=taken.failed.get(name, ""),
    )


def _bounds(contender: Contender, sizes: Sequence[int]) -> Iterator[str]:
    if not all(map(contender.takes, sizes)):
        yield f"Measured up to {contender.most:,}: more would take it too long."


def _exit_code(measured: Sequence[results.Group]) -> int:
    failed = False
    for group in measured:
        for name, about in group["contenders"].items():
            if about["missing"]:
                print(f"{group['name']}, {name}: missing: {about['missing']}", file=sys.stderr)
            if about["unfinished"]:
                print(f"{group['name']}, {name}: not finished: {about['unfinished']}", file=sys.stderr)
            if about["failed"]:
                print(f"{group['name']}, {name}: FAILED: {about['failed']}", file=sys.stderr)
                failed = True
    return int(failed)


@define
class Turns:
    """Of the contenders of one group."""

    group: str
    of: Mapping[str, Contender]
    progress: Progress
    patience: float
    until: float
    """When no further round is to begin that would not end by then."""
    taken: results.Taken = field(factory=results.Taken)

    def take(self, rounds_of: Mapping[int, int]) -> results.Taken:
        """Each once in a round, A B A B, as many rounds as its size has."""
        for number in range(max(rounds_of.values())):
            for size in [size for size, rounds in rounds_of.items() if number < rounds]:
                names = [name for name, each in self.of.items() if each.takes(size)]
                if number and not self.progress.ends_by(self.until, [(self.group, name, size) for name in names]):
                    self.progress.done += len(names)
                    continue
                for name in names:
                    with self.progress.of(self.group, name, size):
                        if name not in self.taken.missing and size < self.taken.unfinished.get(name, ("", math.inf))[1]:
                            self.measure(name, size)
        return self.taken

    def measure(self, name: str, size: int) -> None:
        """In a process of its own."""
        command = [sys.executable, sys.argv[0], "--one", self.group, name, "--size", str(size)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        with process:
            try:
                said, wrong = self.progress.while_it_lasts(process, self.patience)
            except subprocess.TimeoutExpired:
                end(process)
                self.taken.unfinished[name] = f"at size {size:,} within {duration(self.patience)}", size
                return
            except BaseException:
                end(process)
                raise
        if process.returncode:
            last = (wrong.strip().splitlines() or [f"ended with {process.returncode} and said nothing"])[-1]
            self.taken.failed[name] = f"at size {size}: {last}"
            print(wrong, file=sys.stderr)
            return
        numbers: dict[str, Any] = json.loads(said.splitlines()[-1])
        if MISSING in numbers:
            self.taken.missing[name] = numbers[MISSING]
            return
        self.taken.note(name, size, numbers)


def end(process: subprocess.Popen[str]) -> None:
    """And all that it has started; they have a while in which to remove their files."""
    if sys.platform == "win32":
        process.kill()
        return
    for sign in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=QUIET)
            return


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

    def ends_by(self, until: float, these: Sequence[tuple[str, str, int]]) -> bool:
        """Whether there is time for these, if they take as long as they last did."""
        return time.perf_counter() + sum(self.took.get(each, 0.0) for each in these) <= until

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

    def while_it_lasts(self, process: subprocess.Popen[str], patience: float) -> tuple[str, str]:
        """What a process says, mentioned now and then. Raises `TimeoutExpired` when it has taken too long."""
        until = time.perf_counter() + patience
        while True:
            left = until - time.perf_counter()
            try:
                return process.communicate(timeout=min(QUIET, left))
            except subprocess.TimeoutExpired:
                if left <= QUIET:
                    raise
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
