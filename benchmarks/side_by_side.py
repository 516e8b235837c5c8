"""Runs contenders in turn, each in a process of its own, and prints medians and ratios of the same run.

A script of a question gives `contenders`: functions that measure once and return numbers by name. With `--one NAME` it
measures that contender in this process and prints JSON; without, it calls itself for each of them, A B A B, so that a
machine whose speed drifts treats them alike. A question may have several groups of contenders, each with ratios of its
own, and something that is there around all of its rounds, such as a server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

Measure = Callable[[int], Mapping[str, float]]
Around = Callable[[], AbstractContextManager[object]]


def main(
    question: str, contenders: Mapping[str, Measure], *, size: int, rounds: int = 5, first: str = "clepsydra"
) -> None:
    """The command line of a benchmark script."""
    groups(question, {"all": contenders}, size=size, rounds=rounds, first=first)


def groups(
    question: str,
    contenders: Mapping[str, Mapping[str, Measure]],
    *,
    size: int,
    rounds: int = 5,
    first: str = "clepsydra",
    around: Mapping[str, Around] | None = None,
) -> None:
    """The command line of a script whose contenders are compared within groups: by database, say."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--group", choices=sorted(contenders), action="append", help="these only")
    parser.add_argument("--contender", action="append", help="these only, and the first")
    parser.add_argument("--one", nargs=2, metavar=("GROUP", "NAME"), help="measure this one here, and print JSON")
    options = parser.parse_args()
    if options.one:
        group, name = options.one
        print(json.dumps(dict(contenders[group][name](options.size))))
        return
    print(f"{question}\nsize {options.size}, {options.rounds} rounds in turn; {machine()}")
    for group in options.group or contenders:
        chosen = [name for name in contenders[group] if not options.contender or name in (first, *options.contender)]
        with (around or {}).get(group, nullcontext)():
            results = _take_turns(group, chosen, options.size, options.rounds)
        if len(contenders) > 1:
            print(f"\n== {group} ==")
        _print_table(results, first)


def machine() -> str:
    """What a reader has to know of it, how busy it is just now included."""
    load = "/".join(f"{minutes:.1f}" for minutes in os.getloadavg())
    return (
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {_processor()}, "
        f"{os.cpu_count()} cores, load {load} before"
    )


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def _take_turns(group: str, names: list[str], size: int, rounds: int) -> dict[str, list[Mapping[str, float]]]:
    results: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name, measured in results.items():
            print(f"  round {number + 1} of {rounds}: {group}, {name}", file=sys.stderr)
            measured.append(_measure_in_a_process(group, name, size))
    return results


def _measure_in_a_process(group: str, name: str, size: int) -> Mapping[str, float]:
    command = [sys.executable, sys.argv[0], "--one", group, name, "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"  {name}: not measured: {last}", file=sys.stderr)
        return {}
    numbers: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def _print_table(results: Mapping[str, list[Mapping[str, float]]], first: str) -> None:
    measures = list(dict.fromkeys(measure for rounds in results.values() for one in rounds for measure in one))
    for name, rounds in results.items():
        if not any(rounds):
            print(f"\n{name}: not measured")
    for measure in measures:
        ours = _median(results[first], measure)
        print(f"\n{measure}")
        for name, rounds in results.items():
            median = _median(rounds, measure)
            if median is None:
                print(f"  {name:<24} not measured")
                continue
            values = sorted(one[measure] for one in rounds if measure in one)
            ratio = "" if name == first or not ours else f"  {median / ours:8.2f} times ours"
            print(f"  {name:<24} {median:12.3f}  ({values[0]:.3f} to {values[-1]:.3f}){ratio}")


def _median(rounds: list[Mapping[str, float]], measure: str) -> float | None:
    values = [one[measure] for one in rounds if measure in one]
    return statistics.median(values) if values else None
