"""Runs the benchmarks: all questions, or those that are named, one after another.

    python benchmarks                              all of them, published in docs/performance/
    python benchmarks fan_out drain --rounds 7     these two; what follows the names is handed to each
    python benchmarks --list                       the questions, and what each claims
    python benchmarks --render [FOLDER]            the pages and plots again, from the JSON that is there

A question is a script of this folder whose docstring has a claim. One that fails does not keep the others from being
asked; the exit code is 1 then.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import published
from side_by_side import duration

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """The command line."""
    questions = claims()
    named = [name.removesuffix(".py") for name in arguments[: _names(arguments)]]
    options = arguments[len(named) :]
    if unknown := [name for name in named if name not in questions]:
        print(f"no question is called {', '.join(unknown)}; there are {', '.join(questions)}", file=sys.stderr)
        return 2
    if options[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if options == ["--list"]:
        return _list({name: questions[name] for name in named or questions})
    if options[:1] == ["--render"] and len(options) <= 2:
        return _render(Path(options[1]) if options[1:] else published.FOLDER)
    return _ask(named or list(questions), options)


def _names(arguments: list[str]) -> int:
    """How many of them come before the first option."""
    return next((place for place, each in enumerate(arguments) if each.startswith("-")), len(arguments))


def claims() -> dict[str, str]:
    """The docstring of each question, by its name."""
    told = {
        file.stem: ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "" for file in sorted(HERE.glob("*.py"))
    }
    return {name: docstring for name, docstring in told.items() if "\nClaim: " in docstring}


def _list(questions: dict[str, str]) -> int:
    for name, docstring in questions.items():
        asked, claim = docstring.split("\n\n")[:2]
        print(f"{name}: {asked}\n{textwrap.indent(claim, '    ')}\n")
    return 0


def _render(folder: Path) -> int:
    for results in list(published.found(folder)):
        print(results["question"])
        published.publish(results, folder)
    return 0


def _ask(questions: list[str], options: list[str]) -> int:
    began, failed = time.perf_counter(), list[str]()
    for number, name in enumerate(questions, 1):
        gone = duration(time.perf_counter() - began)
        print(f"=== {name}, question {number} of {len(questions)}, after {gone}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *options], check=False)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
