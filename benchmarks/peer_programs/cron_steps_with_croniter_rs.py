"""croniter-rs, croniter's relative in Rust, timed: `cron_steps_with_croniter_rs.py cron_steps SIZE`.

It drops the zone of what it is given and steps on naive times, so it is timed in UTC alone. Its object is reused.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from crons import start, timed

croniter: Any = importlib.import_module("croniter_rs").croniter  # of an environment of its own, not of the checks


def parse(text: str, _: str) -> Any:
    """An iterator."""
    return croniter(text, start("UTC"), ret_type=datetime)


def make(text: str, zone: str) -> Callable[[], object]:
    """From time to time."""
    step: Callable[[], object] = parse(text, zone).get_next
    return step


if __name__ == "__main__":
    print(json.dumps(timed(parse, make, int(sys.argv[2]), ("UTC",))))
