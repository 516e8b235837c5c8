"""cronexpr, supertinycron in C, timed: `cron_steps_with_cronexpr.py cron_steps SIZE`.

It knows UTC alone, and has no object for an expression: each step parses it again. It cannot step over all of them.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from crons import start, timed

next_fire: Any = importlib.import_module("cronexpr").next_fire  # of an environment of its own, not of the checks


def make(text: str, zone: str) -> Callable[[], object]:
    """From time to time."""
    at = start(zone)

    def step() -> None:
        nonlocal at
        at = next_fire(text, at)

    return step


if __name__ == "__main__":
    print(json.dumps(timed(None, make, int(sys.argv[2]), ("UTC",), may_fail=True)))
