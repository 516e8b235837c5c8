"""Runs contenders in turn, each in a process of its own, and prints medians and ratios of the same run.

A script of a question gives `contenders`: functions that measure once and return numbers by name. With `--one NAME` it
measures that contender in this process and prints JSON; without, it calls itself for each of them, A B A B, so that a
machine whose speed drifts treats them alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping

Measure = Callable[[int], Mapping[str, float]]


def main(
    question: str, contenders: Mapping[str, Measure], *, size: int, rounds: int = 5, first: str = "clepsydra"
) -> None:
    """The command line of a benchmark script."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--one", choices=sorted(contenders), help="measure this one here, and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(dict(contenders[options.one](options.size))))
        return
    print(
        f"{question}\nsize {options.size}, {options.rounds} rounds in turn; Python {platform.python_version()}, "
        f"{platform.machine()}"
    )
    results: dict[str, list[Mapping[str, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, measured in results.items():
            measured.append(_measure_in_a_process(name, options.size))
    _print_table(results, first)


def _measure_in_a_process(name: str, size: int) -> Mapping[str, float]:
    command = [sys.executable, sys.argv[0], "--one", name, "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"  {name}: not measured: {last}", file=sys.stderr)
        return {}
    numbers: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def _print_table(results: Mapping[str, list[Mapping[str, float]]], first: str) -> None:
    measures = list(dict.fromkeys(measure for rounds in results.values() for one in rounds for measure in one))
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
